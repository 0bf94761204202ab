// Pools of an Engine.
#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "engine.h"
#include "requantise.h"
#include "vectors.h"

namespace edgekit {
namespace {

// One site of a block of channels, from `columns` sites of some rows.
template <class T>
void pool_largest(const T* const* rows, int row_count, ptrdiff_t at, int columns, T* to) {
    constexpr int kParts = sizeof(T), kStep = 16 / kParts;
    Sixteen<T> best[kParts];
#pragma GCC unroll 4
    for (int part = 0; part < kParts; part++) best[part] = load(rows[0] + at + part * kStep);
    for (int y = 0; y < row_count; y++)
        for (int x = 0; x < columns; x++)
#pragma GCC unroll 4
            for (int part = 0; part < kParts; part++) {
                const Sixteen<T> value = load(rows[y] + at + static_cast<ptrdiff_t>(x) * kBlock + part * kStep);
                best[part] = value < best[part] ? best[part] : value;
            }
#pragma GCC unroll 4
    for (int part = 0; part < kParts; part++) std::memcpy(to + part * kStep, &best[part], 16);
}

template <class T, class Sum>
void pool_sum(const T* const* rows, int row_count, ptrdiff_t at, int columns, int width, Sum (&sums)[kBlock]) {
    for (int y = 0; y < row_count; y++)
        for (int x = 0; x < columns; x++)
            for (int c = 0; c < width; c++) sums[c] += rows[y][at + static_cast<ptrdiff_t>(x) * width + c];
}

}  // namespace

void Engine::pool(const Operation& op, int thread) {
    const Map output = map_of(op.output);
    surround_with_zeros(op.output, output, thread);
    const Span rows = rows_of(sites_of(op.output), thread);
    if (plan_.layouts[op.output].packed && op.kernel_rows == 2 && op.kernel_columns == 2 && op.stride == 2 &&
        plan_.program.tensors[op.input].channels == 3)
        return halve_image(op, rows);
    pool_rows(op, map_of(op.input), 0, output, rows);
}

void Engine::pool_rows(const Operation& op, const Map& input, int ring_rows, const Map& output, Span rows) const {
    if (plan_.layouts[op.input].element == 4)
        pool_rows_as<float>(op, input, ring_rows, output, rows);
    else
        pool_rows_as<uint8_t>(op, input, ring_rows, output, rows);
}

// Some output rows of a pool whose input is framed, or a ring of framed rows.
template <class T>
void Engine::pool_rows_as(const Operation& op, const Map& input, int ring_rows, const Map& output,
                          Span out_rows) const {
    const Layout &from = plan_.layouts[op.input], &to = plan_.layouts[op.output];
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const TensorShape &source = plan_.program.tensors[op.input], &target = plan_.program.tensors[op.output];
    const int width = from.packed ? source.channels : kBlock, blocks = from.packed ? 1 : from.blocks;
    const int shift = to.packed ? 0 : to.physical[op.channel_offset] / kBlock;
    const int zero_sum = op.kernel_rows * op.kernel_columns * source.zero_point;
    const bool largest = op.kind == Kind::max_pool;  // for which what is outside counts for nothing
    const T* rows[16];
    for (int block = 0; block < blocks; block++) {
        const T* plane = reinterpret_cast<const T*>(input.base) + block * input.plane;
        T* results = reinterpret_cast<T*>(output.base) + (shift + block) * output.plane;
        for (int r = out.row_runs[out_rows.from]; r < out.row_runs[out_rows.to]; r++) {
            const Run& run = out.runs[r];
            const int row = run.row * op.stride - op.pad_top;
            int row_count = 0;
            for (int y = row; y < row + op.kernel_rows; y++) {
                if (largest && (y < 0 || y >= in.rows)) continue;
                const int line = ring_rows ? (y + in.border) % ring_rows : y + in.border;
                rows[row_count++] = plane + static_cast<ptrdiff_t>(line) * in.frame_columns() * width;
            }
            for (int i = 0; i < run.length; i++) {
                int column = (run.column + i) * op.stride - op.pad_left, end = column + op.kernel_columns;
                if (largest) {
                    column = std::max(column, 0);
                    end = std::min(end, in.columns);
                }
                const ptrdiff_t at = static_cast<ptrdiff_t>(column + in.border) * width;
                T* result = results + output.place(run.first + i) * width;
                if (largest) {
                    pool_largest(rows, row_count, at, end - column, result);
                    continue;
                }
                std::conditional_t<sizeof(T) == 1, int, float> sums[kBlock] = {};
                if (width == kBlock)
                    pool_sum(rows, row_count, at, op.kernel_columns, kBlock, sums);
                else
                    pool_sum(rows, row_count, at, op.kernel_columns, width, sums);
                for (int c = 0; c < width; c++) {
                    if constexpr (sizeof(T) == 4)
                        result[c] = sums[c] * op.first_scale;
                    else
                        result[c] = rounded(static_cast<float>(sums[c] - zero_sum) * op.first_scale, 0.0f, 255.0f,
                                            target.zero_point);
                }
            }
        }
    }
}

// The mean of 2x2 pixels of three channels, which every objectness network starts with: worth its own loop.
void Engine::halve_image(const Operation& op, Span rows) {
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output);
    const TensorShape &source = plan_.program.tensors[op.input], &target = plan_.program.tensors[op.output];
    const auto halve = [&](auto* base, auto* to, auto&& mean) {
        for (int r = out.row_runs[rows.from]; r < out.row_runs[rows.to]; r++) {
            const Run& run = out.runs[r];
            const size_t row =
                static_cast<size_t>(2 * run.row + in.border) * in.frame_columns() + 2 * run.column + in.border;
            const auto* upper = base + row * 3;
            const auto* lower = upper + static_cast<size_t>(in.frame_columns()) * 3;
            auto* result = to + static_cast<size_t>(output.positions[run.first]) * 3;
            for (int i = 0; i < run.length; i++, upper += 6, lower += 6, result += 3)
                for (int c = 0; c < 3; c++) result[c] = mean(upper[c] + upper[c + 3] + lower[c] + lower[c + 3]);
        }
    };
    if (plan_.layouts[op.input].element == 4) {
        halve(reinterpret_cast<const float*>(input.base), reinterpret_cast<float*>(output.base),
              [scale = op.first_scale](float sum) { return sum * scale; });
        return;
    }
    // Every sum there is, once.
    std::array<uint8_t, 1021> means;
    for (int sum = 0; sum < 1021; sum++) {
        const float mean = static_cast<float>(sum - 4 * source.zero_point) * op.first_scale;
        means[sum] = rounded(mean, 0.0f, 255.0f, target.zero_point);
    }
    halve(input.base, output.base, [&](int sum) { return means[sum]; });
}

}  // namespace edgekit
