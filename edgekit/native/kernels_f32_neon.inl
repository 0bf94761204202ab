// The float convolution on NEON, where a multiply-add takes one lane of a register: four channels of every site are
// loaded together, which spares three loads of four. kernels_f32.inl comes before this and has all else.

namespace edgekit::EDGEKIT_NAMESPACE {

template <int Sites, int Blocks, bool Strided>
struct ConvF32NeonOf {
    static_assert(Blocks == 1, "four registers of sums to a site and a block: no more fit");
    static constexpr int N = kVectors;

    static void run(const ConvTileF32& tile) {
        float32x4_t sums[Sites][N] = {};
        const float* weights = tile.weights;
        const size_t site = Strided ? tile.site : kBlock;
        for (int tap = 0; tap < tile.tap_count; tap++) {
            const float* input = tile.taps[tap];
            int left = tile.channels;
            for (; left >= kBlock; left -= kBlock, input += tile.plane)
                for (int c = 0; c < kBlock; c += 4, weights += 4 * kBlock) step_four(sums, input + c, site, weights);
            for (; left >= 4; left -= 4, input += 4, weights += 4 * kBlock) step_four(sums, input, site, weights);
            for (int c = 0; c < left; c++, weights += kBlock)
                ConvF32Of<Sites, 1, Strided>::template step<N>(sums, {input, site}, c, weights);
        }
        for (int branch = 0; branch < tile.to.branch_count; branch++)
            ConvF32<Sites, 1>::template finish<N>(sums, tile.to, tile.to.branches[branch]);
    }

    static inline __attribute__((always_inline)) void step_four(float32x4_t (&sums)[Sites][N], const float* input,
                                                                size_t site, const float* weights) {
        float32x4_t x[Sites];
#pragma GCC unroll 8
        for (int i = 0; i < Sites; i++) x[i] = vld1q_f32(input + i * site);
        step<0>(sums, x, weights);
        step<1>(sums, x, weights + kBlock);
        step<2>(sums, x, weights + 2 * kBlock);
        step<3>(sums, x, weights + 3 * kBlock);
    }

    template <int Lane>
    static inline __attribute__((always_inline)) void step(float32x4_t (&sums)[Sites][N], const float32x4_t (&x)[Sites],
                                                           const float* weights) {
        float32x4_t w = load(weights);
#pragma GCC unroll 4
        for (int n = 0; n < N; n++) {
            const float32x4_t next = n + 1 < N ? load(weights + (n + 1) * kLanes) : w;  // ahead of its use
#pragma GCC unroll 8
            for (int i = 0; i < Sites; i++) sums[i][n] = vfmaq_laneq_f32(sums[i][n], w, x[i], Lane);
            w = next;
        }
    }
};
template <int Sites, int Blocks>
struct ConvF32Neon : ConvF32NeonOf<Sites, Blocks, false> {};
template <int Sites, int Blocks>
struct ConvF32NeonStrided : ConvF32NeonOf<Sites, Blocks, true> {};

}  // namespace edgekit::EDGEKIT_NAMESPACE
