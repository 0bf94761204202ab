// From what a detector puts out to objects: boxes of the active anchors, class-wise suppression, voting.
#pragma once

#include <cstdint>
#include <vector>

namespace edgekit {

// How the head of a detector is read, and how the picture lies in its input.
struct HeadReading {
    float centre_variance, size_variance, most_log_size;
    float left, top, scale;                     // of the letterbox
    float source_width, source_height;          // pixels
    float least_logit, class_logit;  // of a candidate, and of one candidate at least of each class with any
};

struct Suppression {
    float score;  // of an object
    float iou;
    int most;  // objects
    bool votes;
    float vote_iou, vote_score;  // of a voter
    int supporters;
    float own_weight;  // of a box's score in its score after the vote
    bool by_score = false;  // a voter weighs its score alone, not its square times the overlap
};

// Boxes are left, top, right, bottom.
struct Candidates {
    std::vector<float> boxes, scores;
    std::vector<int64_t> class_ids;
};

// Logits [anchors][classes], offsets and anchors [anchors][4] (anchors: centre x, centre y, width, height in input
// pixels) and `active` [anchors] -> candidates in pixels of the source, in order of anchors, then classes; those without
// area inside the picture are left out.
Candidates read_head(const float* logits, const float* offsets, const float* anchors, const uint8_t* active,
                     int anchor_count, int classes, const HeadReading& reading);

// Greedy suppression, each class for itself, and the votes of what it drops; the best first.
Candidates choose_objects(const Candidates& candidates, const Suppression& suppression);

}  // namespace edgekit
