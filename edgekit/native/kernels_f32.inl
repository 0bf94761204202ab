// Float kernels. Included by one file an instruction set, which defines in its namespace `Vector`, `kLanes` (floats in
// it), `load`, `store`, `splat`, `multiply_add(x, w, sum)` (fused) and `clamp(value, low, high)` (a NaN stays).
//
// A tile keeps sites x 16 * blocks sums in registers; each step loads the weights of one input channel and broadcasts
// that channel of every site. A 16-channel block of all the tile's sites lies in 64 * sites bytes, so one pointer and
// constant offsets address it.

#include "tile_sites.inl"

namespace edgekit::EDGEKIT_NAMESPACE {

constexpr int kVectors = kBlock / kLanes;  // to a block

template <int Sites, int Blocks, bool Strided>
struct ConvF32Of {
    static void run(const ConvTileF32& tile) {
        constexpr int N = Blocks * kVectors;
        Vector sums[Sites][N] = {};
        const float* weights = tile.weights;
        const size_t plane = tile.plane;
        const uint8_t* ahead = tile.ahead;
        const int ahead_bytes = tile.ahead_lines * 64;
        const bool pointwise = tile.tap_count == 1;
        for (int tap = 0; tap < tile.tap_count; tap++) {
            TileSites<float, Sites, Strided> input(tile.taps[tap], tile.site);
            int left = tile.channels;
            for (; left >= kBlock; left -= kBlock, input.move(plane), ahead += ahead_bytes) {
                for (int at = 0; at < ahead_bytes; at += 64) __builtin_prefetch(ahead + at, 0, 2);
                if (pointwise) input.fetch(2 * plane);
#pragma GCC unroll 4
                for (int c = 0; c < kBlock; c++, weights += N * kLanes) step<N>(sums, input, c, weights);
            }
            for (int c = 0; c < left; c++, weights += N * kLanes) step<N>(sums, input, c, weights);
        }
        for (int branch = 0; branch < tile.to.branch_count; branch++)
            finish<N>(sums, tile.to, tile.to.branches[branch]);
    }

    template <int N>
    static inline __attribute__((always_inline)) void step(Vector (&sums)[Sites][N],
                                                           const TileSites<float, Sites, Strided>& input, int c,
                                                           const float* weights) {
        Vector w[N];
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) w[n] = load(weights + n * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i++) {
            const Vector x = splat(*input.at(i, c));
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) sums[i][n] = multiply_add(x, w[n], sums[i][n]);
        }
    }

    template <int N>
    static inline __attribute__((always_inline)) void finish(const Vector (&sums)[Sites][N], const Epilogue& to,
                                                             const Branch& branch) {
        const Vector low = splat(to.low), high = splat(to.high);
        auto* output = static_cast<float*>(branch.output);
        auto* residual = static_cast<const float*>(branch.residual);
        auto* bias = static_cast<const float*>(branch.bias);
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i++) {
            float* row = output + static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock;
            const float* more =
                residual
                    ? residual + static_cast<ptrdiff_t>(to.residual_positions ? to.residual_positions[i] : i) * kBlock
                    : nullptr;
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) {
                Vector value = sums[i][n] + load(bias + n * kLanes);
                if (branch.multipliers) value *= load(branch.multipliers + n * kLanes);
                const size_t at = n / kVectors, lane = n % kVectors * kLanes;
                if (more) value += load(more + at * to.residual_plane + lane);
                store(row + at * to.output_plane + lane, clamp(value, low, high));
            }
        }
    }
};

template <int Sites, int Blocks>
struct ConvF32 : ConvF32Of<Sites, Blocks, false> {};
template <int Sites, int Blocks>
struct ConvF32Strided : ConvF32Of<Sites, Blocks, true> {};

// 3x3: weights stay in registers along the run.
template <int Stride>
static void depthwise3x3(const DepthwiseRunF32& run) {
    const Vector low = splat(run.to.low), high = splat(run.to.high);
    auto* output = static_cast<float*>(run.to.branches[0].output);
    auto* bias = static_cast<const float*>(run.to.branches[0].bias);
    for (int part = 0; part < kBlock; part += kLanes) {
        Vector w[9];
#pragma GCC unroll 16
        for (int t = 0; t < 9; t++) w[t] = load(run.weights + t * kBlock + part);
        const Vector start = load(bias + part);
        const float *top = run.rows[0] + part, *middle = run.rows[1] + part, *bottom = run.rows[2] + part;
        float* to = output + part;
        for (int i = 0; i < run.length; i++) {
            // Three sums: a single one would wait nine times for the one before.
            Vector a = multiply_add(load(top), w[0], start), b = load(middle) * w[3], c = load(bottom) * w[6];
            a = multiply_add(load(top + kBlock), w[1], a);
            b = multiply_add(load(middle + kBlock), w[4], b);
            c = multiply_add(load(bottom + kBlock), w[7], c);
            a = multiply_add(load(top + 2 * kBlock), w[2], a);
            b = multiply_add(load(middle + 2 * kBlock), w[5], b);
            c = multiply_add(load(bottom + 2 * kBlock), w[8], c);
            store(to, clamp(a + b + c, low, high));
            top += Stride * kBlock;
            middle += Stride * kBlock;
            bottom += Stride * kBlock;
            to += kBlock;
        }
    }
}

static void depthwise_f32(const DepthwiseRunF32& run) {
    if (run.kernel_rows == 3 && run.kernel_columns == 3) {
        if (run.stride == 1) return depthwise3x3<1>(run);
        if (run.stride == 2) return depthwise3x3<2>(run);
    }
    const Vector low = splat(run.to.low), high = splat(run.to.high);
    auto* output = static_cast<float*>(run.to.branches[0].output);
    auto* bias = static_cast<const float*>(run.to.branches[0].bias);
    for (int i = 0; i < run.length; i++)
        for (int part = 0; part < kBlock; part += kLanes) {
            Vector sum = load(bias + part);
            const float* weights = run.weights + part;
            for (int y = 0; y < run.kernel_rows; y++)
                for (int x = 0; x < run.kernel_columns; x++, weights += kBlock)
                    sum = multiply_add(load(run.rows[y] + (i * run.stride + x) * kBlock + part), load(weights), sum);
            store(output + i * kBlock + part, clamp(sum, low, high));
        }
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
