// Compares the steps around the graphs of a Faster R-CNN with plain loops, on random data with NaN and infinities among
// it. Prints what differs and exits 1. Usage: two_stage_test [--seed N]
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "objects.h"
#include "isa.h"
#include "proposals.h"
#include "rois.h"

using namespace edgekit;

namespace {

std::mt19937 generator;
int failures = 0;
long cases = 0;

int integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator); }

std::vector<float> reals(size_t count, float size) {
    std::vector<float> values(count);
    for (float& value : values) value = real(-size, size);
    return values;
}

// Some of `values` become what no network should give.
void spoil(std::vector<float>& values) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    if (integer(1, 3) > 1) return;
    for (float& value : values)
        if (integer(1, 20) == 1) value = (const float[]){infinity, -infinity, std::nanf(""), 1e30f}[integer(0, 3)];
}

void compare(const char* what, const std::vector<float>& got, const std::vector<float>& expected) {
    cases++;
    if (got == expected) return;
    if (++failures <= 40) std::printf("%s: %zu values, expected %zu, or others\n", what, got.size(), expected.size());
}

// Maxima of each bin by itself, in channels of the feature map as it lies; and the way back to the cells they come from.
void test_pooling() {
    const int rows = integer(1, 20), columns = integer(1, 20), channels = integer(1, 70), count = integer(0, 6);
    // No two values are equal, and sums of the whole weights are exact in any order.
    std::vector<float> features(static_cast<size_t>(rows) * columns * channels);
    std::iota(features.begin(), features.end(), -5000.0f);
    std::shuffle(features.begin(), features.end(), generator);
    std::vector<float> weights(static_cast<size_t>(count) * channels * 36), shares(features.size(), 1);
    for (float& weight : weights) weight = static_cast<float>(integer(-9, 9));
    auto expected_shares = shares;
    std::vector<float> rois(static_cast<size_t>(count) * 4);
    for (float& corner : rois) corner = static_cast<float>(integer(-400, 800)) / 2;
    if (count) rois[0] = -kMaxRoiSide;
    std::vector<float> got(static_cast<size_t>(count) * channels * 36, 77), expected = got;
    for (int r = 0; r < count; r++) {
        int64_t cells[4];
        for (int k = 0; k < 4; k++) cells[k] = std::llround(rois[r * 4 + k] / 16.0);
        for (int bin = 0; bin < 36; bin++) {
            int64_t first[2], last[2];
            for (int k = 0; k < 2; k++) {  // x, y
                const int64_t length = std::max<int64_t>(cells[k + 2] - cells[k] + 1, 1), at = k ? bin / 6 : bin % 6;
                first[k] = std::max<int64_t>(cells[k] + at * length / 6, 0);
                last[k] = std::min<int64_t>(cells[k] + ((at + 1) * length + 5) / 6, k ? rows : columns);
            }
            for (int c = 0; c < channels; c++) {
                const float* best = nullptr;
                for (int64_t y = first[1]; y < last[1]; y++)
                    for (int64_t x = first[0]; x < last[0]; x++) {
                        const float* here = &features[(y * columns + x) * channels + c];
                        if (!best || *best < *here) best = here;
                    }
                const size_t place = (static_cast<size_t>(r) * channels + c) * 36 + bin;
                expected[place] = best ? *best : 0;
                if (best) expected_shares[best - features.data()] += weights[place];
            }
        }
    }
    for (const Kernels* kernels : usable_kernels()) {
        std::fill(got.begin(), got.end(), 77.0f);
        pool_rois(*kernels, features.data(), rows, columns, channels, rois.data(), count, got.data());
        compare(kernels->name, got, expected);
    }
    pool_rois_gradient(features.data(), rows, columns, channels, rois.data(), count, weights.data(), shares.data());
    compare("pool_rois_gradient", shares, expected_shares);
}

// Everything is decoded and sorted, and each box compared with all that were kept.
void test_proposals() {
    const int rows = integer(1, 6), columns = integer(1, 6), anchors = integer(1, 5), cells = rows * columns;
    const ProposalRules rules{columns * 16.0f,  rows * 16.0f,    real(1, 30),   real(1, 30), 4,
                              real(0.2f, 0.9f), integer(0, 100), integer(0, 40)};
    std::vector<float> shapes = reals(static_cast<size_t>(anchors) * 4, 60);
    for (int a = 0; a < anchors; a++)
        for (int k = 0; k < 2; k++)
            if (shapes[a * 4 + k] > shapes[a * 4 + k + 2]) std::swap(shapes[a * 4 + k], shapes[a * 4 + k + 2]);
    auto logits = reals(static_cast<size_t>(cells) * anchors * 2, 3);
    auto deltas = reals(static_cast<size_t>(cells) * anchors * 4, 1);
    spoil(logits);
    spoil(deltas);
    std::vector<uint8_t> active(cells);
    for (auto& flag : active) flag = integer(0, 3) > 0;
    const auto got =
        propose(logits.data(), deltas.data(), active.data(), {shapes.data(), anchors, rows, columns, 16}, rules);

    struct Found {
        float margin, box[4];
    };
    std::vector<Found> found;
    for (int i = 0; i < cells * anchors; i++) {
        const int cell = i / anchors, a = i % anchors;
        Found one{};
        one.margin = logits[static_cast<size_t>(cell) * anchors * 2 + anchors + a] -
                     logits[static_cast<size_t>(cell) * anchors * 2 + a];
        for (int k = 0; k < 2; k++) {
            const float origin = static_cast<float>(k ? cell / columns : cell % columns) * 16;
            const float low = origin + shapes[a * 4 + k], high = origin + shapes[a * 4 + k + 2], side = high - low + 1;
            const float centre = low + side / 2 + deltas[static_cast<size_t>(i) * 4 + k] * side;
            const float log_size = deltas[static_cast<size_t>(i) * 4 + 2 + k];
            const float half =
                static_cast<float>(std::exp(static_cast<double>(log_size > 4 ? 4 : log_size))) * side / 2;
            const float limit = (k ? rules.height : rules.width) - 1;
            one.box[k] = std::clamp(centre - half, 0.0f, limit);
            one.box[k + 2] = std::clamp(centre + half, 0.0f, limit);
        }
        const bool large =
            one.box[2] - one.box[0] + 1 >= rules.smallest_width && one.box[3] - one.box[1] + 1 >= rules.smallest_height;
        if (active[cell] && large && !std::isnan(one.margin)) found.push_back(one);
    }
    std::stable_sort(found.begin(), found.end(), [](const Found& a, const Found& b) { return a.margin > b.margin; });
    if (found.size() > static_cast<size_t>(rules.before)) found.resize(rules.before);
    std::vector<float> expected;
    for (const Found& one : found) {
        if (expected.size() >= static_cast<size_t>(rules.after) * 4) break;
        bool free = true;
        for (size_t k = 0; k < expected.size(); k += 4) {
            const float *a = &expected[k], *b = one.box;
            const auto area = [](const float* box) { return (box[2] + 1 - box[0]) * (box[3] + 1 - box[1]); };
            const float width = std::min(a[2], b[2]) + 1 - std::max(a[0], b[0]);
            const float height = std::min(a[3], b[3]) + 1 - std::max(a[1], b[1]);
            const float shared = std::max(width, 0.0f) * std::max(height, 0.0f);
            free &= !(shared / (area(a) + area(b) - shared) > rules.iou);
        }
        if (free) expected.insert(expected.end(), one.box, one.box + 4);
    }
    compare("propose", got.boxes, expected);
    std::vector<float> falling = got.scores;
    std::sort(falling.begin(), falling.end(), [](float a, float b) { return a > b; });
    compare("the scores of propose", got.scores, falling);
    falling.assign(expected.size() / 4, 0);
    cases++;
    if (got.scores.size() != falling.size()) failures++;
}

// Whatever comes in, what comes out lies in the picture and has a score and a class; votes leave scores alone.
void test_regions() {
    const int count = integer(0, 30), classes = integer(0, 5);
    auto rois = reals(static_cast<size_t>(count) * 4, 100);
    auto logits = reals(static_cast<size_t>(count) * (classes + 1), 4);
    auto deltas = reals(static_cast<size_t>(count) * (classes + 1) * 4, 1);
    spoil(rois);
    spoil(logits);
    spoil(deltas);
    const RegionReading reading{96, 64, 3, 2, 0.3f, 300, 200, 4, 0.01f};
    Suppression suppression{0.05f, 0.4f, 20, false, 0.5f, 0.01f, 1, 1.0f};
    const auto candidates = read_regions(rois.data(), logits.data(), deltas.data(), count, classes, reading);
    const auto objects = choose_objects(candidates, suppression);
    suppression.votes = suppression.by_score = true;
    const auto voted = choose_objects(candidates, suppression);
    compare("scores under votes", voted.scores, objects.scores);
    for (const auto* some : {&candidates, &objects, &voted})
        for (size_t i = 0; i < some->scores.size(); i++) {
            const float *box = &some->boxes[i * 4], score = some->scores[i];
            cases++;
            const bool inside = box[0] >= 0 && box[1] >= 0 && box[0] < box[2] && box[1] < box[3] &&
                                box[2] <= 300.001f && box[3] <= 200.001f;
            if (!inside || !(score >= 0.01f && score <= 1) || some->class_ids[i] < 0 || some->class_ids[i] >= classes)
                if (++failures <= 40) std::printf("object %zu is none\n", i);
        }
}

}  // namespace

int main(int count, char** arguments) {
    unsigned seed = std::random_device{}();
    if (count == 3 && !std::strcmp(arguments[1], "--seed"))
        seed = static_cast<unsigned>(std::strtoul(arguments[2], nullptr, 10));
    std::printf("seed %u\n", seed);
    generator.seed(seed);
    for (int i = 0; i < 1000; i++) {
        test_pooling();
        test_proposals();
        test_regions();
    }
    std::printf("two stages: %ld comparisons, %d differ\n", cases, failures);
    return failures ? 1 : 0;
}
