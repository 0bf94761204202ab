// A block and a half of filters at once: 24 are common, and whole blocks would compute them as 32. Comes behind
// kernels_f32.inl. The instruction set defines `Half`. Where a vector is as long as a block, its lanes take turns between
// two input channels (`kChannels`) of eight filters, whose sums are added at last: so three vectors are full of work.
//
// A C.ReLU's two half blocks lie in one block of the output, behind the whole blocks of the first and in front of those of
// the second: so the next convolution does not read half a block of zeros twice.

namespace edgekit::EDGEKIT_NAMESPACE {

template <int Sites, bool Strided>
struct ConvF32HalfOf {
    static constexpr int N = kHalvedBlock * Half::kChannels / kLanes;

    static void run(const ConvTileF32& tile) {
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
                for (int c = 0; c < kBlock; c += Half::kChannels, weights += N * kLanes) step(sums, input, c, weights);
            }
            for (int c = 0; c < left; c += Half::kChannels, weights += N * kLanes) step(sums, input, c, weights);
        }
        Vector whole[Sites][kVectors], half[Sites][Half::kVectors];
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i++) Half::take_apart(sums[i], whole[i], half[i]);
        for (int branch = 0; branch < tile.to.branch_count; branch++)
            ConvF32Of<Sites, 1, Strided>::template finish<kVectors>(whole, tile.to, tile.to.branches[branch]);
        finish_halves(half, tile.to);
    }

    static inline __attribute__((always_inline)) void step(Vector (&sums)[Sites][N],
                                                           const TileSites<float, Sites, Strided>& input, int c,
                                                           const float* weights) {
        Vector w[N];
#pragma GCC unroll 16
        for (int n = 0; n < N; n++) w[n] = load(weights + n * kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i++) {
            const Vector x = Half::input(input.at(i, c));
#pragma GCC unroll 16
            for (int n = 0; n < N; n++) sums[i][n] = multiply_add(x, w[n], sums[i][n]);
        }
    }

    static inline __attribute__((always_inline)) void finish_halves(const Vector (&half)[Sites][Half::kVectors],
                                                                    const Epilogue& to) {
        constexpr int kHalf = kBlock / 2;
        const Vector low = splat(to.low), high = splat(to.high);
        for (int branch = 0; branch < 2; branch++) {
            const bool zeros = branch >= to.branch_count;
            const Branch& from = to.branches[zeros ? 0 : branch];
            const auto* bias = static_cast<const float*>(from.bias) + kBlock;
            const float* multipliers = from.multipliers ? from.multipliers + kBlock : nullptr;
            // Both lie in the block behind the first one of the first branch.
            const Branch& first = to.branches[0];
            auto* output = static_cast<float*>(first.output) + to.output_plane + branch * kHalf;
            const auto* residual = static_cast<const float*>(first.residual);
            if (residual) residual += to.residual_plane + branch * kHalf;
#pragma GCC unroll 16
            for (int i = 0; i < Sites; i++) {
                float* row = output + static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock;
                const ptrdiff_t place = to.residual_positions ? to.residual_positions[i] : i;
#pragma GCC unroll 4
                for (int n = 0; n < Half::kVectors; n++) {
                    Vector value = splat(0.0f);
                    if (!zeros) {
                        value = half[i][n] + Half::load(bias + n * kLanes);
                        if (multipliers) value *= Half::load(multipliers + n * kLanes);
                    }
                    if (residual) value += Half::load(residual + place * kBlock + n * kLanes);
                    Half::store(row + n * kLanes, clamp(value, low, high));
                }
            }
        }
    }
};
template <int Sites>
struct ConvF32Half : ConvF32HalfOf<Sites, false> {};
template <int Sites>
struct ConvF32HalfStrided : ConvF32HalfOf<Sites, true> {};

}  // namespace edgekit::EDGEKIT_NAMESPACE
