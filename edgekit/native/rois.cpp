#include "rois.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace edgekit {
namespace {

constexpr int kChannels = kPooledChannels;
constexpr int kBinCount = kRoiBins * kRoiBins;

struct Roi {
    RoiAxis down, across;
};

// The cell of a corner; halves round away from zero.
int64_t cell_of(float corner) { return std::llround(static_cast<double>(corner) / kRoiStride); }

RoiAxis bins_of(float low, float high, int cells) {
    const int64_t first = cell_of(low), length = std::max(cell_of(high) - first, int64_t{0}) + 1;
    const auto inside = [&](int64_t cell) { return static_cast<int>(std::clamp<int64_t>(cell, 0, cells)); };
    RoiAxis axis;
    for (int bin = 0; bin < kRoiBins; bin++) {
        axis.begin[bin] = inside(first + bin * length / kRoiBins);
        axis.end[bin] = inside(first + ((bin + 1) * length + kRoiBins - 1) / kRoiBins);
    }
    return axis;
}

// Maxima of `count` places, `stride` floats apart.
void highest(const float* from, int count, size_t stride, float* to) {
    float best[kChannels];
    for (int c = 0; c < kChannels; c++) best[c] = from[c];
    for (int i = 1; i < count; i++) {
        from += stride;
        for (int c = 0; c < kChannels; c++) best[c] = best[c] < from[c] ? from[c] : best[c];
    }
    for (int c = 0; c < kChannels; c++) to[c] = best[c];
}

// Gives `weights` to the first of `count` places, `stride` floats apart, that is as high as `highest`: adds them to the
// same places of `sum`. No branches, so that all channels go at once.
void give(const float* from, int count, size_t stride, const float* highest, const float* weights, float* sum) {
    float left[kChannels], best[kChannels];
    for (int c = 0; c < kChannels; c++) left[c] = weights[c];
    for (int c = 0; c < kChannels; c++) best[c] = highest[c];
    for (int i = 0; i < count; i++, from += stride, sum += stride) {
        float here[kChannels];
        for (int c = 0; c < kChannels; c++) here[c] = from[c] == best[c] ? left[c] : 0.0f;
        for (int c = 0; c < kChannels; c++) left[c] -= here[c];
        for (int c = 0; c < kChannels; c++) sum[c] += here[c];
    }
}

// Adds `bins`, the weights of one RoI, where `pool` found its maxima: first to the line of each row of bins, then to the
// cells behind it. `line` and `shares` are each room for a row of cells.
void unpool(const float* cells, int columns, const Roi& roi, float* line, float* shares, const float (*bins)[kChannels],
            float* sum) {
    const int low = roi.across.begin[0], high = roi.across.end[kRoiBins - 1];
    const size_t stride = static_cast<size_t>(columns) * kChannels;
    for (int row = 0; row < kRoiBins; row++) {
        const int top = roi.down.begin[row], height = roi.down.end[row] - top;
        if (height <= 0) continue;
        const auto first = [&](int x) { return (static_cast<size_t>(top) * columns + x) * kChannels; };
        const auto at = [](int x) { return static_cast<size_t>(x) * kChannels; };
        for (int x = low; x < high; x++) highest(cells + first(x), height, stride, line + at(x));
        if (high > low) std::fill(shares + at(low), shares + at(high), 0.0f);
        for (int column = 0; column < kRoiBins; column++) {
            const int left = roi.across.begin[column], width = roi.across.end[column] - left;
            if (width <= 0) continue;
            float best[kChannels];
            highest(line + at(left), width, kChannels, best);
            give(line + at(left), width, kChannels, best, bins[row * kRoiBins + column], shares + at(left));
        }
        for (int x = low; x < high; x++)
            give(cells + first(x), height, stride, line + at(x), shares + at(x), sum + first(x));
    }
}

std::vector<Roi> placed(const float* rois, int count, int rows, int columns) {
    std::vector<Roi> places(count);
    for (int r = 0; r < count; r++) {
        const float* box = rois + static_cast<size_t>(r) * 4;
        places[r] = {bins_of(box[1], box[3], rows), bins_of(box[0], box[2], columns)};
    }
    return places;
}

}  // namespace

void pool_rois(const Kernels& kernels, const float* features, int rows, int columns, int channels, const float* rois,
               int count, float* pooled) {
    const std::vector<Roi> places = placed(rois, count, rows, columns);
    // A few channels of all cells fit into a cache, where they serve all RoIs.
    const size_t sites = static_cast<size_t>(rows) * columns;
    std::vector<float> cells(sites * kChannels), line(static_cast<size_t>(columns) * kChannels);
    float last[kChannels * kBinCount];
    for (int first = 0; first < channels; first += kChannels) {
        const int here = std::min(kChannels, channels - first);
        for (size_t site = 0; site < sites; site++)
            std::memcpy(&cells[site * kChannels], features + site * channels + first, sizeof(float) * here);
        for (int r = 0; r < count; r++) {
            float* to = pooled + (static_cast<size_t>(r) * channels + first) * kBinCount;
            const Roi& roi = places[r];
            kernels.pool_roi(cells.data(), columns, roi.down, roi.across, line.data(), here < kChannels ? last : to);
            if (here < kChannels) std::memcpy(to, last, sizeof(float) * here * kBinCount);
        }
    }
}

void pool_rois_gradient(const float* features, int rows, int columns, int channels, const float* rois, int count,
                        const float* gradient, float* sum) {
    const std::vector<Roi> places = placed(rois, count, rows, columns);
    const size_t sites = static_cast<size_t>(rows) * columns;
    std::vector<float> cells(sites * kChannels), sums(sites * kChannels);
    std::vector<float> line(static_cast<size_t>(columns) * kChannels), shares(line.size());
    float bins[kBinCount][kChannels] = {};
    for (int first = 0; first < channels; first += kChannels) {
        const int here = std::min(kChannels, channels - first);
        for (size_t site = 0; site < sites; site++)
            std::memcpy(&cells[site * kChannels], features + site * channels + first, sizeof(float) * here);
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (int r = 0; r < count; r++) {
            const float* from = gradient + (static_cast<size_t>(r) * channels + first) * kBinCount;
            for (int c = 0; c < here; c++)
                for (int bin = 0; bin < kBinCount; bin++) bins[bin][c] = from[c * kBinCount + bin];
            unpool(cells.data(), columns, places[r], line.data(), shares.data(), bins, sums.data());
        }
        for (size_t site = 0; site < sites; site++)
            for (int c = 0; c < here; c++) sum[site * channels + first + c] += sums[site * kChannels + c];
    }
}

}  // namespace edgekit
