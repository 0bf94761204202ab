#include "objects.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <map>
#include <numeric>

namespace edgekit {
namespace {

// Intersection over union; two boxes without area overlap by 0.
float overlap(const float* a, const float* b) {
    const auto area = [](const float* box) {
        return std::max(box[2] - box[0], 0.0f) * std::max(box[3] - box[1], 0.0f);
    };
    const float width = std::max(std::min(a[2], b[2]) - std::max(a[0], b[0]), 0.0f);
    const float height = std::max(std::min(a[3], b[3]) - std::max(a[1], b[1]), 0.0f);
    const float shared = width * height, united = area(a) + area(b) - shared;
    return united > 0.0f ? shared / united : 0.0f;
}

// Indices 0..count - 1, the highest value first, equal ones in their order.
std::vector<int> best_first(const std::vector<float>& values) {
    std::vector<int> order(values.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return values[a] > values[b]; });
    return order;
}

}  // namespace

Candidates read_head(const float* logits, const float* offsets, const float* anchors, const uint8_t* active,
                     int anchor_count, int classes, const HeadReading& reading) {
    // Nearly all is background, and most of what is left of classes that nothing is of.
    std::vector<uint8_t> found(classes);
    for (int a = 0; a < anchor_count; a++)
        if (active[a])
            for (int c = 0; c < classes; c++)
                found[c] |= logits[static_cast<size_t>(a) * classes + c] >= reading.class_logit;
    std::vector<int> present;
    for (int c = 0; c < classes; c++)
        if (found[c]) present.push_back(c);

    Candidates candidates;
    for (int a = 0; a < anchor_count; a++) {
        if (!active[a]) continue;
        const float* row = logits + static_cast<size_t>(a) * classes;
        float box[4];
        bool placed = false, inside = false;
        for (const int c : present) {
            if (!(row[c] >= reading.least_logit)) continue;
            if (!placed) {
                const float *offset = offsets + static_cast<size_t>(a) * 4,
                            *anchor = anchors + static_cast<size_t>(a) * 4;
                const float bars[2] = {reading.left, reading.top},
                            sides[2] = {reading.source_width, reading.source_height};
                for (int k = 0; k < 2; k++) {
                    const float centre = anchor[k] + offset[k] * reading.centre_variance * anchor[k + 2];
                    const float grown =
                        std::exp(std::min(offset[k + 2] * reading.size_variance, reading.most_log_size));
                    const float half = anchor[k + 2] * grown / 2;
                    box[k] = std::clamp((centre - half - bars[k]) / reading.scale, 0.0f, sides[k]);
                    box[k + 2] = std::clamp((centre + half - bars[k]) / reading.scale, 0.0f, sides[k]);
                }
                placed = true;
                inside = box[2] > box[0] && box[3] > box[1];
            }
            if (!inside) break;
            candidates.boxes.insert(candidates.boxes.end(), box, box + 4);
            candidates.scores.push_back(1.0f / (1.0f + std::exp(-std::clamp(row[c], -60.0f, 60.0f))));
            candidates.class_ids.push_back(c);
        }
    }
    return candidates;
}

Candidates choose_objects(const Candidates& candidates, const Suppression& suppression) {
    const auto box = [&](int i) { return &candidates.boxes[static_cast<size_t>(i) * 4]; };
    const std::vector<float>& scores = candidates.scores;
    std::map<int64_t, std::vector<int>> members;  // of each class, the best first
    const std::vector<int> order = best_first(scores);
    for (const int i : order) members[candidates.class_ids[i]].push_back(i);

    // No vote raises a score, and no box suppresses a better one: what is under the score is nothing that could be kept.
    std::vector<uint8_t> dropped(scores.size());
    std::vector<int> kept;
    std::map<int64_t, size_t> passed;  // members of a class that have had their turn
    for (const int i : order) {
        if (static_cast<int>(kept.size()) >= suppression.most || !(scores[i] >= suppression.score)) break;
        const std::vector<int>& rivals = members[candidates.class_ids[i]];
        const size_t next = ++passed[candidates.class_ids[i]];
        if (dropped[i]) continue;
        kept.push_back(i);
        for (size_t k = next; k < rivals.size() && scores[rivals[k]] >= suppression.score; k++)
            if (!dropped[rivals[k]]) dropped[rivals[k]] = overlap(box(i), box(rivals[k])) > suppression.iou;
    }

    Candidates voted;
    for (const int i : kept) {
        double sums[4] = {}, total = 0.0;
        float support = 0.0f, score = scores[i];
        int supporters = 0;
        const auto vote = [&](int k, float shared) {
            const float weight = suppression.by_score ? scores[k] : scores[k] * scores[k] * shared;
            for (int side = 0; side < 4; side++) sums[side] += static_cast<double>(weight) * box(k)[side];
            total += weight;
            // The best come first, so these are the strongest.
            if (supporters++ < suppression.supporters) support += std::min(scores[k], scores[i]);
        };
        if (suppression.votes) {
            vote(i, 1.0f);
            for (const int k : members[candidates.class_ids[i]]) {
                if (scores[k] < suppression.vote_score) break;
                const float shared = k == i ? 0.0f : overlap(box(i), box(k));
                if (shared >= suppression.vote_iou) vote(k, shared);
            }
            score = suppression.own_weight * score +
                    (1.0f - suppression.own_weight) * support / static_cast<float>(suppression.supporters);
        }
        for (int side = 0; side < 4; side++)
            voted.boxes.push_back(total > 0.0 ? static_cast<float>(sums[side] / total) : box(i)[side]);
        voted.scores.push_back(score);
        voted.class_ids.push_back(candidates.class_ids[i]);
    }

    Candidates objects;
    for (const int i : best_first(voted.scores)) {
        if (!(voted.scores[i] >= suppression.score)) break;
        const float* from = &voted.boxes[static_cast<size_t>(i) * 4];
        objects.boxes.insert(objects.boxes.end(), from, from + 4);
        objects.scores.push_back(voted.scores[i]);
        objects.class_ids.push_back(voted.class_ids[i]);
    }
    return objects;
}

}  // namespace edgekit
