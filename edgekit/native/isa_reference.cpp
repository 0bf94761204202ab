// Plain C++: what every other instruction set is tested against.
#define EDGEKIT_NAMESPACE reference
#include <type_traits>
#include <utility>

#include "isa.h"
#include "packing.h"
#include "requantise.h"
#include "kernels_u8_plain.inl"
#include "kernels_resize.inl"
#include "kernels_rois.inl"
#include "kernel_table.inl"

namespace edgekit {
namespace reference {

template <int Sites, int Blocks>
struct ConvPlain {
    static void run(const ConvTileF32& tile) { run_at(tile, kBlock); }

    static void run_at(const ConvTileF32& tile, size_t site) {
        constexpr int N = Blocks * kBlock;
        float sums[Sites][N] = {};
        const float* weights = tile.weights;
        for (int tap = 0; tap < tile.tap_count; tap++)
            for (int c = 0; c < tile.channels; c++, weights += N) {
                const float* input = tile.taps[tap] + c / kBlock * tile.plane + c % kBlock;
                for (int i = 0; i < Sites; i++)
                    for (int n = 0; n < N; n++) sums[i][n] += input[i * site] * weights[n];
            }
        const Epilogue& to = tile.to;
        for (int index = 0; index < to.branch_count; index++)
            for (int i = 0; i < Sites; i++)
                for (int n = 0; n < N; n++) {
                    const Branch& branch = to.branches[index];
                    const size_t at = n / kBlock, lane = n % kBlock;
                    float value = sums[i][n] + static_cast<const float*>(branch.bias)[n];
                    if (branch.multipliers) value *= branch.multipliers[n];
                    if (branch.residual)
                        value += static_cast<const float*>(branch.residual)
                            [at * to.residual_plane +
                             static_cast<ptrdiff_t>(to.residual_positions ? to.residual_positions[i] : i) * kBlock +
                             lane];
                    static_cast<float*>(
                        branch.output)[at * to.output_plane +
                                       static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock + lane] =
                        clamped(value, to);
                }
    }
};

template <int Sites, int Blocks>
struct ConvPlainStrided {
    static void run(const ConvTileF32& tile) { ConvPlain<Sites, Blocks>::run_at(tile, tile.site); }
};

static void depthwise_plain(const DepthwiseRunF32& run) {
    for (int i = 0; i < run.length; i++)
        for (int c = 0; c < kBlock; c++) {
            float sum = static_cast<const float*>(run.to.branches[0].bias)[c];
            const float* weights = run.weights + c;
            for (int y = 0; y < run.kernel_rows; y++)
                for (int x = 0; x < run.kernel_columns; x++, weights += kBlock)
                    sum += run.rows[y][(i * run.stride + x) * kBlock + c] * *weights;
            static_cast<float*>(run.to.branches[0].output)[i * kBlock + c] = clamped(sum, run.to);
        }
}

}  // namespace reference

const Kernels& reference_kernels() {
    using namespace reference;
    static const Kernels kernels = [] {
        Kernels table{};
        table.name = "reference";
        table.panel_f32 = table.panel_u8 = 1;
        table.tile_f32[1] = table.tile_u8[1] = 4;
        fill<ConvPlain, 1, 4>(table.conv_f32);
        fill<ConvPlainStrided, 1, 4>(table.conv_f32_strided);
        fill<ConvU8Plain, 1, 4>(table.conv_u8);
        fill<ConvU8F32Plain, 1, 4>(table.conv_u8_f32);
        table.depthwise_f32 = depthwise_plain;
        table.depthwise_u8 = depthwise_u8_plain<uint8_t>;
        table.depthwise_u8_f32 = depthwise_u8_plain<float>;
        table.weigh_rows = weigh_rows;
        table.weigh_columns = weigh_columns;
        table.halve = halve;
        table.pool_roi = pool_roi;
        table.pack_conv_u8 = pack_conv_groups<int8_t, 1>;
        table.pack_depthwise_u8 = pack_depthwise_u8_plain;
        return table;
    }();
    return kernels;
}

}  // namespace edgekit
