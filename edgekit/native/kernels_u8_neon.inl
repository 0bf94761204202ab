// Integer kernels on NEON, for both of its ways to multiply bytes: `smull` and `smlal`, which add up two products in 16
// bits, and `sdot` where there is one (+dotprod), which adds up four in 32.
//
// Both take signed bytes. So 128 is taken off every byte of the input (its top bit is flipped), and the sums start at
// what that takes off in all: 128 times the sum of the weights, which packing puts in front of them. Two products of
// -128 and -128 do not fit 16 bits together: `careful` kernels add up one at a time, and packing says whether weights
// need them. Exporters write no -128, so this is for programs from elsewhere.

namespace edgekit::EDGEKIT_NAMESPACE {

// In front of a panel's weights: what the sums start at, [16 * blocks] int32, and 16 bytes, the first of which is 1 if
// any weight is -128.
constexpr size_t kCarefulBytes = 16;

static inline const int8_t* weights_of(const void* packed, int blocks) {
    return static_cast<const int8_t*>(packed) + blocks * kBlock * sizeof(int32_t) + kCarefulBytes;
}
static inline bool careful_of(const void* packed, int blocks) { return weights_of(packed, blocks)[-16] != 0; }

static inline int8x16_t signed_bytes(const uint8_t* from) {
    return vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from), vdupq_n_u8(0x80)));
}

// Real values -> results, for one site and one block. Conversion and narrowing saturate, which is the same as clamping
// first, because the bounds are integers.
template <class Out>
static inline __attribute__((always_inline)) void finish_block(float32x4_t (&values)[4], const Out* residual,
                                                               const Epilogue& to, Out* output) {
    if constexpr (sizeof(Out) == 1) {
        if (residual) {
            const uint8x16_t bytes = vld1q_u8(residual);
            const uint16x8_t low = vmovl_u8(vget_low_u8(bytes)), high = vmovl_high_u8(bytes);
            const uint32x4_t wide[4] = {vmovl_u16(vget_low_u16(low)), vmovl_high_u16(low),
                                        vmovl_u16(vget_low_u16(high)), vmovl_high_u16(high)};
            const int32x4_t centre = vdupq_n_s32(to.residual_zero_point);
            const float32x4_t scale = vdupq_n_f32(to.residual_scale);
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++)  // two roundings, like the reference: no fused multiply-add
                values[q] = vaddq_f32(
                    values[q], vmulq_f32(vcvtq_f32_s32(vsubq_s32(vreinterpretq_s32_u32(wide[q]), centre)), scale));
        }
        const int16x8_t zero = vdupq_n_s16(static_cast<int16_t>(to.zero_point));
        const auto narrow = [&](float32x4_t a, float32x4_t b) {
            return vqaddq_s16(vqmovn_high_s32(vqmovn_s32(vcvtnq_s32_f32(a)), vcvtnq_s32_f32(b)), zero);
        };
        const uint8x16_t bytes =
            vqmovun_high_s16(vqmovun_s16(narrow(values[0], values[1])), narrow(values[2], values[3]));
        const uint8x16_t low = vdupq_n_u8(static_cast<uint8_t>(to.low)),
                         high = vdupq_n_u8(static_cast<uint8_t>(to.high));
        vst1q_u8(output, vminq_u8(high, vmaxq_u8(low, bytes)));
    } else {
        const float32x4_t low = vdupq_n_f32(to.low), high = vdupq_n_f32(to.high);
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            if (residual) values[q] = vaddq_f32(values[q], vld1q_f32(residual + 4 * q));
            vst1q_f32(output + 4 * q, vminq_f32(high, vmaxq_f32(low, values[q])));
        }
    }
}

// ---- Convolutions. Weights: with sdot int8 [taps][channels / 4][16][4], else [taps][channels / 4][2][16][2].

// Channels 4 * Quad .. 4 * Quad + 3 of a block of every site.
template <int Quad, bool Careful, int Sites>
static inline __attribute__((always_inline)) void multiply_quad(int32x4_t (&sums)[Sites][4],
                                                                const int8x16_t (&input)[Sites],
                                                                const int8_t* weights) {
#if defined(__ARM_FEATURE_DOTPROD)
    int8x16_t w = vld1q_s8(weights);
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++) {
        const int8x16_t next = n < 3 ? vld1q_s8(weights + 16 * (n + 1)) : w;  // ahead of its use
#pragma GCC unroll 8
        for (int i = 0; i < Sites; i++) sums[i][n] = vdotq_laneq_s32(sums[i][n], w, input[i], Quad);
        w = next;
    }
#else
    const int8x16_t w[4] = {vld1q_s8(weights), vld1q_s8(weights + 16), vld1q_s8(weights + 32), vld1q_s8(weights + 48)};
#pragma GCC unroll 8
    for (int i = 0; i < Sites; i++) {
        const int16x8_t pairs = vreinterpretq_s16_s8(input[i]);
        const int8x16_t a = vreinterpretq_s8_s16(vdupq_laneq_s16(pairs, 2 * Quad));
        const int8x16_t b = vreinterpretq_s8_s16(vdupq_laneq_s16(pairs, 2 * Quad + 1));
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {  // eight filters
            int16x8_t low = vmull_s8(vget_low_s8(a), vget_low_s8(w[half])), high = vmull_high_s8(a, w[half]);
            int32x4_t &four = sums[i][2 * half], &next_four = sums[i][2 * half + 1];
            if constexpr (Careful) {
                four = vpadalq_s16(four, low);
                next_four = vpadalq_s16(next_four, high);
                low = vmull_s8(vget_low_s8(b), vget_low_s8(w[2 + half]));
                high = vmull_high_s8(b, w[2 + half]);
            } else {
                low = vmlal_s8(low, vget_low_s8(b), vget_low_s8(w[2 + half]));
                high = vmlal_high_s8(high, b, w[2 + half]);
            }
            four = vpadalq_s16(four, low);
            next_four = vpadalq_s16(next_four, high);
        }
    }
#endif
}

template <int Sites, class Out, bool Careful>
static void conv_u8_neon(const ConvTileU8& tile) {
    int32x4_t sums[Sites][4];
    auto* starts = static_cast<const int32_t*>(tile.weights);
    const int8_t* weights = weights_of(tile.weights, 1);
#pragma GCC unroll 4
    for (int n = 0; n < 4; n++)
#pragma GCC unroll 8
        for (int i = 0; i < Sites; i++) sums[i][n] = vld1q_s32(starts + 4 * n);
    for (int tap = 0; tap < tile.tap_count; tap++) {
        const uint8_t* from = tile.taps[tap];
        int8x16_t input[Sites];
        int left = tile.channels;
        for (; left >= kBlock; left -= kBlock, from += tile.plane, weights += kBlock * kBlock) {
#pragma GCC unroll 8
            for (int i = 0; i < Sites; i++) input[i] = signed_bytes(from + i * kBlock);
            multiply_quad<0, Careful>(sums, input, weights);
            multiply_quad<1, Careful>(sums, input, weights + 64);
            multiply_quad<2, Careful>(sums, input, weights + 128);
            multiply_quad<3, Careful>(sums, input, weights + 192);
        }
        if (!left) continue;
#pragma GCC unroll 8
        for (int i = 0; i < Sites; i++) input[i] = signed_bytes(from + i * kBlock);
        multiply_quad<0, Careful>(sums, input, weights);
        if (left > 4) multiply_quad<1, Careful>(sums, input, weights + 64);
        if (left > 8) multiply_quad<2, Careful>(sums, input, weights + 128);
        weights += left * kBlock;
    }
    const Epilogue& to = tile.to;
    for (int index = 0; index < to.branch_count; index++) {
        const Branch& branch = to.branches[index];
        auto* bias = static_cast<const int32_t*>(branch.bias);
        const int32x4_t biases[4] = {vld1q_s32(bias), vld1q_s32(bias + 4), vld1q_s32(bias + 8), vld1q_s32(bias + 12)};
#pragma GCC unroll 8
        for (int i = 0; i < Sites; i++) {
            auto* output =
                static_cast<Out*>(branch.output) + static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock;
            auto* residual = static_cast<const Out*>(branch.residual);
            if (residual)
                residual += static_cast<ptrdiff_t>(to.residual_positions ? to.residual_positions[i] : i) * kBlock;
            float32x4_t values[4];
#pragma GCC unroll 4
            for (int q = 0; q < 4; q++)
                values[q] =
                    vmulq_f32(vcvtq_f32_s32(vaddq_s32(sums[i][q], biases[q])), vld1q_f32(branch.multipliers + 4 * q));
            finish_block<Out>(values, residual, to, output);
        }
    }
}

template <int Sites, class Out>
static void choose_conv_u8_neon(const ConvTileU8& tile) {
#if !defined(__ARM_FEATURE_DOTPROD)
    if (careful_of(tile.weights, 1)) return conv_u8_neon<Sites, Out, true>(tile);
#endif
    conv_u8_neon<Sites, Out, false>(tile);
}

template <int Sites, int Blocks>
struct ConvU8Neon {
    static_assert(Blocks == 1, "four registers of sums to a site and a block: no more fit");
    static void run(const ConvTileU8& tile) { choose_conv_u8_neon<Sites, uint8_t>(tile); }
};
template <int Sites, int Blocks>
struct ConvU8F32Neon {
    static void run(const ConvTileU8& tile) { choose_conv_u8_neon<Sites, float>(tile); }
};

// What stands in front of `width` filters' weights; `weight(n, i)` is the i-th of filter n.
template <class Weight>
static int8_t* pack_starts(void* to, int width, size_t depth, Weight weight) {
    auto* starts = static_cast<int32_t*>(to);
    bool careful = false;
    for (int n = 0; n < width; n++) {
        int32_t sum = 0;
        for (size_t i = 0; i < depth; i++) {
            sum += weight(n, i);
            careful |= weight(n, i) == -128;
        }
        starts[n] = 128 * sum;
    }
    auto* bytes = reinterpret_cast<int8_t*>(starts + width);
    std::memset(bytes, 0, kCarefulBytes);
    bytes[0] = careful;
    return bytes + kCarefulBytes;
}

static size_t pack_conv_u8_neon(const int8_t* weights, int filters, int taps, int channels, int first, int blocks,
                                void* to) {
    const int width = blocks * kBlock, quads = (channels + 3) / 4;
    if (to) {
        const auto weight = [&](int n, int tap, int c) -> int {
            return first + n < filters && c < channels
                       ? weights[(static_cast<size_t>(first + n) * taps + tap) * channels + c]
                       : 0;
        };
        const size_t depth = static_cast<size_t>(taps) * channels;
        int8_t* bytes = pack_starts(to, width, depth, [&](int n, size_t i) {
            return weight(n, static_cast<int>(i / channels), static_cast<int>(i % channels));
        });
#if defined(__ARM_FEATURE_DOTPROD)
        constexpr int together = 4;
#else
        constexpr int together = 2;
#endif
        for (int tap = 0; tap < taps; tap++)
            for (int start = 0; start < quads * 4; start += together)
                for (int n = 0; n < width; n++)
                    for (int c = start; c < start + together; c++) *bytes++ = static_cast<int8_t>(weight(n, tap, c));
    }
    return width * sizeof(int32_t) + kCarefulBytes + static_cast<size_t>(taps) * quads * 4 * width;
}

// ---- Depthwise convolutions. Weights: int8 [taps][16].

static size_t pack_depthwise_u8_neon(const int8_t* weights, int taps, int channels, int first, void* to) {
    if (to) {
        const auto weight = [&](int c, size_t tap) -> int {
            return first + c < channels ? weights[tap * channels + first + c] : 0;
        };
        int8_t* bytes = pack_starts(to, kBlock, taps, weight);
        for (int tap = 0; tap < taps; tap++)
            for (int c = 0; c < kBlock; c++) *bytes++ = static_cast<int8_t>(weight(c, tap));
    }
    return kBlock * sizeof(int32_t) + kCarefulBytes + static_cast<size_t>(taps) * kBlock;
}

// Add 16 channels' 16-bit sums to the 32-bit ones.
static inline __attribute__((always_inline)) void widen(int32x4_t (&sums)[4], int16x8_t low, int16x8_t high) {
    sums[0] = vaddw_s16(sums[0], vget_low_s16(low));
    sums[1] = vaddw_high_s16(sums[1], low);
    sums[2] = vaddw_s16(sums[2], vget_low_s16(high));
    sums[3] = vaddw_high_s16(sums[3], high);
}

static inline __attribute__((always_inline)) void multiply_tap(int32x4_t (&sums)[4], int8x16_t x, int8x16_t w) {
    widen(sums, vmull_s8(vget_low_s8(x), vget_low_s8(w)), vmull_high_s8(x, w));
}

template <bool Careful>
static inline __attribute__((always_inline)) void multiply_taps(int32x4_t (&sums)[4], int8x16_t x, int8x16_t w,
                                                                int8x16_t y, int8x16_t v) {
    if constexpr (Careful) {
        multiply_tap(sums, x, w);
        multiply_tap(sums, y, v);
    } else {
        widen(sums, vmlal_s8(vmull_s8(vget_low_s8(x), vget_low_s8(w)), vget_low_s8(y), vget_low_s8(v)),
              vmlal_high_s8(vmull_high_s8(x, w), y, v));
    }
}

// What all sites of a run share.
struct RunConstants {
    explicit RunConstants(const DepthwiseRunU8& run) {
        auto* from = static_cast<const int32_t*>(run.weights);
        auto* bias = static_cast<const int32_t*>(run.to.branches[0].bias);
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) {
            starts[q] = vaddq_s32(vld1q_s32(from + 4 * q), vld1q_s32(bias + 4 * q));
            multipliers[q] = vld1q_f32(run.to.branches[0].multipliers + 4 * q);
        }
    }
    int32x4_t starts[4];
    float32x4_t multipliers[4];
};

template <class Out>
static inline __attribute__((always_inline)) void finish_site(const int32x4_t (&sums)[4], const RunConstants& constants,
                                                              const Epilogue& to, int site) {
    float32x4_t values[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) values[q] = vmulq_f32(vcvtq_f32_s32(sums[q]), constants.multipliers[q]);
    finish_block<Out>(values, nullptr, to, static_cast<Out*>(to.branches[0].output) + site * kBlock);
}

// 3x3: weights stay in registers along the run, and neighbouring sites share the columns that both read.
template <class Out, int Stride, bool Careful>
static void depthwise3x3_u8_neon(const DepthwiseRunU8& run) {
    const RunConstants constants(run);
    const int8_t* weights = weights_of(run.weights, 1);
    int8x16_t w[3][3];
#pragma GCC unroll 3
    for (int y = 0; y < 3; y++)
#pragma GCC unroll 3
        for (int x = 0; x < 3; x++) w[y][x] = vld1q_s8(weights + (y * 3 + x) * kBlock);
    const auto site = [&](const auto& in, int first, int at) __attribute__((always_inline)) {
        int32x4_t sums[4] = {constants.starts[0], constants.starts[1], constants.starts[2], constants.starts[3]};
        multiply_taps<Careful>(sums, in[0][first], w[0][0], in[0][first + 1], w[0][1]);
        multiply_taps<Careful>(sums, in[1][first], w[1][0], in[1][first + 1], w[1][1]);
        multiply_taps<Careful>(sums, in[2][first], w[2][0], in[2][first + 1], w[2][1]);
        multiply_taps<Careful>(sums, in[0][first + 2], w[0][2], in[1][first + 2], w[1][2]);
        multiply_tap(sums, in[2][first + 2], w[2][2]);
        finish_site<Out>(sums, constants, run.to, at);
    };
    const auto read = [&](auto& in, int columns, int at) __attribute__((always_inline)) {
#pragma GCC unroll 3
        for (int y = 0; y < 3; y++)
#pragma GCC unroll 5
            for (int x = 0; x < columns; x++) in[y][x] = signed_bytes(run.rows[y] + (at * Stride + x) * kBlock);
    };
    int i = 0;
    for (; i + 2 <= run.length; i += 2) {
        int8x16_t in[3][Stride + 3];
        read(in, Stride + 3, i);
        site(in, 0, i);
        site(in, Stride, i + 1);
    }
    if (i < run.length) {
        int8x16_t in[3][3];
        read(in, 3, i);
        site(in, 0, i);
    }
}

template <class Out>
static void depthwise_any_u8_neon(const DepthwiseRunU8& run) {
    const RunConstants constants(run);
    for (int i = 0; i < run.length; i++) {
        int32x4_t sums[4] = {constants.starts[0], constants.starts[1], constants.starts[2], constants.starts[3]};
        const int8_t* weights = weights_of(run.weights, 1);
        for (int y = 0; y < run.kernel_rows; y++) {
            const uint8_t* from = run.rows[y] + i * run.stride * kBlock;
            for (int x = 0; x < run.kernel_columns; x++, from += kBlock, weights += kBlock)
                multiply_tap(sums, signed_bytes(from), vld1q_s8(weights));
        }
        finish_site<Out>(sums, constants, run.to, i);
    }
}

template <class Out>
static void depthwise_u8_neon(const DepthwiseRunU8& run) {
    if (run.kernel_rows == 3 && run.kernel_columns == 3 && run.stride <= 2 && !careful_of(run.weights, 1))
        return run.stride == 1 ? depthwise3x3_u8_neon<Out, 1, false>(run) : depthwise3x3_u8_neon<Out, 2, false>(run);
    depthwise_any_u8_neon<Out>(run);
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
