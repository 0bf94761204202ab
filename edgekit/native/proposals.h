// The steps of Faster R-CNN around its two graphs: from the maps of the region proposal network to RoIs, and from what
// the head says of them to candidates for objects. edgekit/models/pvanet_rois.py is the same in numpy, to the last bit.
//
// Boxes are left, top, right, bottom in input pixels, right and bottom inclusive.
#pragma once

#include <cstdint>
#include <vector>

#include "objects.h"

namespace edgekit {

struct AnchorGrid {
    const float* boxes;  // [anchors][4] of the first cell
    int anchors, rows, columns;
    float stride;  // input pixels a cell
};

struct ProposalRules {
    float width, height;  // of the input
    float smallest_width, smallest_height;  // of a RoI
    float most_log_size;
    float iou;
    int before, after;  // RoIs that enter suppression, and that leave it, at most
};

struct Proposals {
    std::vector<float> boxes, scores;
};

// Logits [cells][2 * anchors], the background's first, deltas [cells][anchors][4] and `active` [cells] (null: all) ->
// RoIs, the best first. What has a NaN proposes nothing.
Proposals propose(const float* logits, const float* deltas, const uint8_t* active, const AnchorGrid& grid,
                  const ProposalRules& rules);

struct RegionReading {
    float width, height;  // of the input
    float left, top, scale;  // of the letterbox
    float source_width, source_height;  // pixels
    float most_log_size;
    float score;  // of a candidate
};

// Logits [rois][classes + 1], the background's first, and deltas [rois][classes + 1][4] of `rois` [rois][4] ->
// candidates in pixels of the source, right and bottom exclusive, in order of RoIs, then classes; class 0 is the first
// behind the background.
Candidates read_regions(const float* rois, const float* logits, const float* deltas, int count, int classes,
                        const RegionReading& reading);

}  // namespace edgekit
