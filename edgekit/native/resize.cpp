#include "resize.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace edgekit {
namespace {

constexpr int kChannels = 3;

// What each result along one side of the picture is made of: `taps` pixels, some of them with weight 0.
struct Axis {
    int taps = 1;
    std::vector<int32_t> firsts = {};
    std::vector<float> weights = {};  // [results][taps]; those of a result add up to 1
};

// Result i covers i * from .. (i + 1) * from, and pixel k covers k * to .. (k + 1) * to, of a line of from * to.
Axis average(int from, int to) {
    Axis axis;
    const auto begin = [&](int64_t i) { return static_cast<int>(i * from / to); };
    const auto end = [&](int64_t i) { return static_cast<int>(((i + 1) * from + to - 1) / to); };
    for (int i = 0; i < to; i++) axis.taps = std::max(axis.taps, end(i) - begin(i));
    for (int i = 0; i < to; i++) {
        const int first = std::min(begin(i), from - axis.taps);
        axis.firsts.push_back(first);
        for (int64_t k = first; k < first + axis.taps; k++) {
            const int64_t shared =
                std::min((i + int64_t{1}) * from, (k + 1) * to) - std::max(int64_t{i} * from, k * to);
            axis.weights.push_back(static_cast<float>(std::max(shared, int64_t{0})) / static_cast<float>(from));
        }
    }
    return axis;
}

// The centre of result i lies at (i + .5) * from / to, and that of pixel k at k + .5.
Axis interpolate(int from, int to) {
    Axis axis;
    axis.taps = std::min(from, 2);
    for (int i = 0; i < to; i++) {
        const double place = std::clamp((i + 0.5) * from / to - 0.5, 0.0, from - 1.0);
        const int first = std::min(static_cast<int>(place), from - axis.taps);
        const auto second = static_cast<float>(place - first);
        axis.firsts.push_back(first);
        axis.weights.push_back(axis.taps == 1 ? 1.0f : 1.0f - second);
        if (axis.taps == 2) axis.weights.push_back(second);
    }
    return axis;
}

}  // namespace

void resize(const Kernels& kernels, const uint8_t* from, int rows, int columns, uint8_t* to, int to_rows,
            int to_columns, int64_t to_stride) {
    if (rows == 2 * to_rows && columns == 2 * to_columns) {
        std::vector<uint16_t> sums(columns * kChannels + 1);
        std::vector<uint8_t> line(to_columns * kChannels + 1);
        for (int row = 0; row < to_rows; row++, from += ptrdiff_t{2} * columns * kChannels) {
            kernels.halve(from, columns * kChannels, sums.data(), line.data());
            std::memcpy(to + row * to_stride, line.data(), line.size() - 1);
        }
        return;
    }
    const auto axis = to_rows <= rows && to_columns <= columns ? average : interpolate;
    const Axis down = axis(rows, to_rows);
    Axis across = axis(columns, to_columns);
    for (int32_t& first : across.firsts) first *= kChannels;
    const int width = columns * kChannels;
    std::vector<float> sums(width + 1);
    std::vector<uint8_t> line(to_columns * kChannels + 1);
    std::vector<const uint8_t*> under(down.taps);
    for (int row = 0; row < to_rows; row++) {
        const float* weights = &down.weights[static_cast<size_t>(row) * down.taps];
        int taps = down.taps;
        while (weights[taps - 1] == 0.0f) taps--;
        for (int k = 0; k < taps; k++) under[k] = from + static_cast<ptrdiff_t>(down.firsts[row] + k) * width;
        kernels.weigh_rows(under.data(), weights, taps, width, sums.data());
        kernels.weigh_columns(sums.data(), across.firsts.data(), across.weights.data(), across.taps, to_columns,
                              line.data());
        std::memcpy(to + row * to_stride, line.data(), line.size() - 1);
    }
}

}  // namespace edgekit
