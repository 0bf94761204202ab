#include "proposals.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <utility>

namespace edgekit {
namespace {

// What `delta` makes of `box`, within the input. The exponential is the double one's, rounded: float ones differ among
// libraries, and one bit may decide what is suppressed.
void decode(const float* box, const float* delta, float most_log_size, float width, float height, float* to) {
    const float limits[2] = {width - 1, height - 1};
    for (int k = 0; k < 2; k++) {
        const float side = box[k + 2] - box[k] + 1;
        const float centre = box[k] + side / 2 + delta[k] * side;
        const float grown = static_cast<float>(std::exp(static_cast<double>(std::min(delta[k + 2], most_log_size))));
        const float half = grown * side / 2;
        to[k] = std::clamp(centre - half, 0.0f, limits[k]);
        to[k + 2] = std::clamp(centre + half, 0.0f, limits[k]);
    }
}

struct Ranked {
    uint32_t key;  // the higher the margin, the lower
    int anchor;
};

// Whole numbers in the reverse order of the floats; no NaN.
uint32_t key_of(float margin) {
    margin += 0.0f;  // of the two zeros one
    uint32_t bits;
    std::memcpy(&bits, &margin, sizeof bits);
    return bits >> 31 ? bits : ~bits ^ 0x80000000u;
}

// By key, and equal ones as they stand: digit by digit, the lowest first (radix sort), ten times as fast as comparisons.
void sort_by_key(std::vector<Ranked>& ranked) {
    constexpr int digits = 3, bits = 11;
    constexpr uint32_t values = 1 << bits;
    std::vector<size_t> places(digits * values);
    for (const Ranked& one : ranked)
        for (int d = 0; d < digits; d++) places[d * values + (one.key >> (d * bits) & (values - 1))]++;
    std::vector<Ranked> sorted(ranked.size());
    for (int d = 0; d < digits; d++) {
        size_t* place = &places[d * values];
        size_t before = 0;
        for (uint32_t v = 0; v < values; v++) before += std::exchange(place[v], before);
        for (const Ranked& one : ranked) sorted[place[one.key >> (d * bits) & (values - 1)]++] = one;
        ranked.swap(sorted);
    }
}

// The boxes that were kept, right and bottom exclusive, each side of all of them in one row.
class Kept {
  public:
    explicit Kept(int most) {
        for (auto& row : rows_) row.reserve(static_cast<size_t>(most));
    }

    // Whether any overlaps `box` by more than `iou`.
    bool overlap(const float* box, float iou) const {
        const float left = box[0], top = box[1], right = box[2] + 1, bottom = box[3] + 1;
        const float area = (right - left) * (bottom - top);
        const float *lefts = rows_[0].data(), *tops = rows_[1].data(), *rights = rows_[2].data(),
                    *bottoms = rows_[3].data(), *areas = rows_[4].data();
        constexpr size_t step = 32;  // without a branch, so that it is done for several at once
        for (size_t first = 0; first < rows_[0].size(); first += step) {
            int found = 0;
            for (size_t k = first; k < std::min(first + step, rows_[0].size()); k++) {
                const float width = std::max(std::min(right, rights[k]) - std::max(left, lefts[k]), 0.0f);
                const float height = std::max(std::min(bottom, bottoms[k]) - std::max(top, tops[k]), 0.0f);
                const float shared = width * height;
                found |= shared / (areas[k] + area - shared) > iou;  // a RoI has an area, so this is no 0 / 0
            }
            if (found) return true;
        }
        return false;
    }

    void add(const float* box) {
        const float right = box[2] + 1, bottom = box[3] + 1;
        const float values[5] = {box[0], box[1], right, bottom, (right - box[0]) * (bottom - box[1])};
        for (int k = 0; k < 5; k++) rows_[k].push_back(values[k]);
    }

  private:
    std::vector<float> rows_[5];
};

}  // namespace

Proposals propose(const float* logits, const float* deltas, const uint8_t* active, const AnchorGrid& grid,
                  const ProposalRules& rules) {
    const int anchors = grid.anchors, cells = grid.rows * grid.columns;
    std::vector<Ranked> ranked;
    ranked.reserve(static_cast<size_t>(cells) * anchors);
    for (int cell = 0; cell < cells; cell++) {
        if (active && !active[cell]) continue;
        const float *background = logits + static_cast<size_t>(cell) * anchors * 2, *object = background + anchors;
        for (int a = 0; a < anchors; a++) {
            const float margin = object[a] - background[a];
            if (!std::isnan(margin)) ranked.push_back({key_of(margin), cell * anchors + a});
        }
    }
    sort_by_key(ranked);

    // One after the other: most anchors are never decoded, because enough is kept before their turn.
    Proposals proposals;
    Kept kept(rules.after);
    int entered = 0, left = 0;
    for (const auto& [key, index] : ranked) {
        if (entered == rules.before || left == rules.after) break;
        const int cell = index / anchors;
        const float x = static_cast<float>(cell % grid.columns) * grid.stride,
                    y = static_cast<float>(cell / grid.columns) * grid.stride;
        const float* shape = grid.boxes + static_cast<size_t>(index % anchors) * 4;
        const float anchor[4] = {x + shape[0], y + shape[1], x + shape[2], y + shape[3]};
        float box[4];
        decode(anchor, deltas + static_cast<size_t>(index) * 4, rules.most_log_size, rules.width, rules.height, box);
        // Not "less than": a NaN is no RoI.
        if (!(box[2] - box[0] + 1 >= rules.smallest_width && box[3] - box[1] + 1 >= rules.smallest_height)) continue;
        entered++;
        if (kept.overlap(box, rules.iou)) continue;
        left++;
        kept.add(box);
        proposals.boxes.insert(proposals.boxes.end(), box, box + 4);
        const float* logit = logits + static_cast<size_t>(cell) * anchors * 2 + index % anchors;
        const float margin = logit[anchors] - logit[0];
        // A softmax over two is a sigmoid of the difference.
        proposals.scores.push_back(static_cast<float>(1 / (1 + std::exp(-static_cast<double>(margin)))));
    }
    return proposals;
}

Candidates read_regions(const float* rois, const float* logits, const float* deltas, int count, int classes,
                        const RegionReading& reading) {
    const size_t width = static_cast<size_t>(classes) + 1;
    const float sides[2] = {reading.source_width, reading.source_height};
    const float bars[2] = {reading.left, reading.top};
    Candidates candidates;
    std::vector<double> chances(width);
    for (int r = 0; r < count; r++) {
        const float* row = logits + r * width;
        const double most = *std::max_element(row, row + width);
        double sum = 0;
        for (size_t c = 0; c < width; c++) sum += chances[c] = std::exp(row[c] - most);
        for (size_t c = 1; c < width; c++) {
            const float score = static_cast<float>(chances[c] / sum);
            if (!(score >= reading.score)) continue;
            float box[4];
            decode(rois + static_cast<size_t>(r) * 4, deltas + (r * width + c) * 4, reading.most_log_size,
                   reading.width, reading.height, box);
            for (int k = 0; k < 4; k++)
                box[k] = std::clamp(((k < 2 ? box[k] : box[k] + 1) - bars[k % 2]) / reading.scale, 0.0f, sides[k % 2]);
            if (!(box[2] > box[0] && box[3] > box[1])) continue;
            candidates.boxes.insert(candidates.boxes.end(), box, box + 4);
            candidates.scores.push_back(score);
            candidates.class_ids.push_back(static_cast<int64_t>(c) - 1);
        }
    }
    return candidates;
}

}  // namespace edgekit
