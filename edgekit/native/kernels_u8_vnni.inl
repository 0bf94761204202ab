// Integer kernels on AVX-512 VNNI: one instruction multiplies 64 bytes and adds them up in fours, exactly.

#include <cstring>

namespace edgekit::EDGEKIT_NAMESPACE {

static inline int32_t four_bytes(const uint8_t* from) {
    int32_t value;
    std::memcpy(&value, from, 4);
    return value;
}

// A loop whose counter is a constant: sums that are indexed by it are kept in registers, as GCC fails to see of a loop that
// it unrolls itself.
template <class Body, int... Index>
static inline __attribute__((always_inline)) void repeat(Body body, std::integer_sequence<int, Index...>) {
    (body(std::integral_constant<int, Index>{}), ...);
}
template <int Count, class Body>
static inline __attribute__((always_inline)) void repeat(Body body) {
    repeat(body, std::make_integer_sequence<int, Count>{});
}

// Sums -> integers in units of the result. What may be beyond any integer is kept below 2^30 first, so that the conversion
// saturates as the reference does; real programs are `bounded`, and need no such care.
template <bool Bounded>
static inline __m512i whole_numbers(__m512 values) {
    return _mm512_cvtps_epi32(Bounded ? values : _mm512_min_ps(values, _mm512_set1_ps(1073741824.0f)));
}

static inline __m512 real_values(__m512i sums, __m512 multipliers) {
    return _mm512_mul_ps(_mm512_cvtepi32_ps(sums), multipliers);
}

// Four times 16 integers -> bytes, in the order of `_mm512_packus_epi16`: saturation clamps to 0..255 on the way.
static inline __m512i saturated_bytes(__m512i a, __m512i b, __m512i c, __m512i d, const Epilogue& to) {
    const __m512i zero = _mm512_set1_epi16(static_cast<int16_t>(to.zero_point));
    const __m512i ab = _mm512_adds_epi16(_mm512_packs_epi32(a, b), zero);
    const __m512i cd = _mm512_adds_epi16(_mm512_packs_epi32(c, d), zero);
    const __m512i bytes = _mm512_packus_epi16(ab, cd);
    const __m512i low = _mm512_set1_epi8(static_cast<char>(static_cast<int>(to.low)));
    const __m512i high = _mm512_set1_epi8(static_cast<char>(static_cast<int>(to.high)));
    return _mm512_min_epu8(high, _mm512_max_epu8(low, bytes));
}

// `sums` include the bias.
template <bool Bounded, int Sites, int Blocks>
static inline __attribute__((always_inline)) void finish_bytes(const __m512i (&sums)[Sites][Blocks], const Epilogue& to,
                                                               const Branch& branch) {
    auto* output = static_cast<uint8_t*>(branch.output);
    auto* residual = static_cast<const uint8_t*>(branch.residual);
    // Packing four sites leaves dword k of site s at 4 k + s.
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    repeat<Blocks>([&](auto n) __attribute__((always_inline)) {
        const __m512 multipliers = _mm512_loadu_ps(branch.multipliers + n * kBlock);
        uint8_t* plane = output + n * to.output_plane;
        repeat<(Sites + 3) / 4>([&](auto four) __attribute__((always_inline)) {
            constexpr int i = four * 4, left = Sites - i < 4 ? Sites - i : 4;
            const auto whole = [&](auto k) __attribute__((always_inline)) {
                constexpr int site = i + k;
                if constexpr (site >= Sites) {
                    return _mm512_setzero_si512();
                } else {
                    __m512 value = real_values(sums[site][n], multipliers);
                    if (residual) {
                        const ptrdiff_t place = to.residual_positions ? to.residual_positions[site] : site;
                        const uint8_t* from = residual + place * kBlock + n * to.residual_plane;
                        const __m512i more =
                            _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
                        const __m512i centred = _mm512_sub_epi32(more, _mm512_set1_epi32(to.residual_zero_point));
                        value = _mm512_add_ps(
                            value, _mm512_mul_ps(_mm512_cvtepi32_ps(centred), _mm512_set1_ps(to.residual_scale)));
                    }
                    return whole_numbers<Bounded>(value);
                }
            };
            const __m512i packed =
                saturated_bytes(whole(std::integral_constant<int, 0>{}), whole(std::integral_constant<int, 1>{}),
                                whole(std::integral_constant<int, 2>{}), whole(std::integral_constant<int, 3>{}), to);
            const __m512i bytes = _mm512_permutexvar_epi32(order, packed);
            if (!to.positions || to.positions[i + left - 1] - to.positions[i] == left - 1) {
                uint8_t* at = plane + static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock;
                _mm512_mask_storeu_epi64(at, static_cast<__mmask8>((1 << 2 * left) - 1), bytes);
            } else {
                const auto store = [&](int site, __m128i sixteen) __attribute__((always_inline)) {
                    if (site < left)
                        _mm_storeu_si128(
                            reinterpret_cast<__m128i*>(plane + static_cast<ptrdiff_t>(to.positions[i + site]) * kBlock),
                            sixteen);
                };
                store(0, _mm512_castsi512_si128(bytes));
                store(1, _mm512_extracti32x4_epi32(bytes, 1));
                store(2, _mm512_extracti32x4_epi32(bytes, 2));
                store(3, _mm512_extracti32x4_epi32(bytes, 3));
            }
        });
    });
}

template <int Sites, int Blocks>
static inline __attribute__((always_inline)) void finish_floats(const __m512i (&sums)[Sites][Blocks],
                                                                const Epilogue& to, const Branch& branch) {
    const __m512 low = _mm512_set1_ps(to.low), high = _mm512_set1_ps(to.high);
    auto* residual = static_cast<const float*>(branch.residual);
#pragma GCC unroll 16
    for (int i = 0; i < Sites; i++) {
        float* row =
            static_cast<float*>(branch.output) + static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock;
        const ptrdiff_t other = to.residual_positions ? to.residual_positions[i] : i;
#pragma GCC unroll 4
        for (int n = 0; n < Blocks; n++) {
            __m512 value = real_values(sums[i][n], _mm512_loadu_ps(branch.multipliers + n * kBlock));
            if (residual)
                value = _mm512_add_ps(value, _mm512_loadu_ps(residual + other * kBlock + n * to.residual_plane));
            _mm512_storeu_ps(row + n * to.output_plane, _mm512_min_ps(high, _mm512_max_ps(low, value)));
        }
    }
}

// Convolution weights: [taps][channels / 4][16 * blocks][4].
template <int Sites, int Blocks, bool Strided, class Out>
static void conv_u8_vnni(const ConvTileU8& tile) {
    const auto bias = [&](int branch, int n) __attribute__((always_inline)) {
        return _mm512_loadu_si512(static_cast<const int32_t*>(tile.to.branches[branch].bias) + n * kBlock);
    };
    __m512i sums[Sites][Blocks];
#pragma GCC unroll 16
    for (int i = 0; i < Sites; i++)
#pragma GCC unroll 4
        for (int n = 0; n < Blocks; n++) sums[i][n] = bias(0, n);
    auto* weights = static_cast<const int8_t*>(tile.weights);
    const auto step = [&](const TileSites<uint8_t, Sites, Strided>& input, int c) __attribute__((always_inline)) {
        __m512i w[Blocks];
#pragma GCC unroll 4
        for (int n = 0; n < Blocks; n++) w[n] = _mm512_loadu_si512(weights + n * 64);
        weights += Blocks * 64;
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i++) {
            const __m512i x = _mm512_set1_epi32(four_bytes(input.at(i, c)));
#pragma GCC unroll 4
            for (int n = 0; n < Blocks; n++) sums[i][n] = _mm512_dpbusd_epi32(sums[i][n], x, w[n]);
        }
    };
    for (int tap = 0; tap < tile.tap_count; tap++) {
        TileSites<uint8_t, Sites, Strided> input(tile.taps[tap], tile.site);
        int left = tile.channels;
        for (; left >= kBlock; left -= kBlock, input.move(tile.plane)) {
            step(input, 0);
            step(input, 4);
            step(input, 8);
            step(input, 12);
        }
        for (int c = 0; c < left; c += 4) step(input, c);
    }
    for (int branch = 0; branch < tile.to.branch_count; branch++) {
        if (branch) {
#pragma GCC unroll 16
            for (int i = 0; i < Sites; i++) {
#pragma GCC unroll 4
                for (int n = 0; n < Blocks; n++) {
                    const __m512i other = _mm512_sub_epi32(bias(branch, n), bias(branch - 1, n));
                    sums[i][n] = _mm512_add_epi32(sums[i][n], other);
                }
            }
        }
        if constexpr (sizeof(Out) == 4)
            finish_floats<Sites, Blocks>(sums, tile.to, tile.to.branches[branch]);
        else if (tile.to.bounded)
            finish_bytes<true, Sites, Blocks>(sums, tile.to, tile.to.branches[branch]);
        else
            finish_bytes<false, Sites, Blocks>(sums, tile.to, tile.to.branches[branch]);
    }
}

template <int Sites, int Blocks>
struct ConvU8Vnni {
    static void run(const ConvTileU8& tile) { conv_u8_vnni<Sites, Blocks, false, uint8_t>(tile); }
};
template <int Sites, int Blocks>
struct ConvU8F32Vnni {
    static void run(const ConvTileU8& tile) { conv_u8_vnni<Sites, Blocks, false, float>(tile); }
};
template <int Sites, int Blocks>
struct ConvU8VnniStrided {
    static void run(const ConvTileU8& tile) { conv_u8_vnni<Sites, Blocks, true, uint8_t>(tile); }
};

// Depthwise weights: [groups of 4 taps][16][4]. Four sites of 16 channels fill a register. The bytes of four taps are
// interleaved within each 128-bit lane, which leaves channels 4q..4q+3 of each site in part q; packing puts them back.

static size_t pack_depthwise_u8_vnni(const int8_t* weights, int taps, int channels, int first, void* to) {
    const int groups = (taps + 3) / 4;
    if (to) {
        auto* bytes = static_cast<int8_t*>(to);
        for (int group = 0; group < groups; group++)
            for (int c = 0; c < kBlock; c++)
                for (int tap = group * 4; tap < group * 4 + 4; tap++)
                    *bytes++ = tap < taps && first + c < channels
                                   ? weights[static_cast<size_t>(tap) * channels + first + c]
                                   : 0;
    }
    return static_cast<size_t>(groups) * 64;
}

// Four output sites' input under one tap; reads up to 16 * (4 * Stride - Stride + 1) bytes.
template <int Stride>
static inline __attribute__((always_inline)) __m512i four_sites(const uint8_t* from) {
    if constexpr (Stride == 1) return _mm512_loadu_si512(from);
    const __m512i a = _mm512_loadu_si512(from);  // sites 0 1 2 3, of which 0 and 2
    const __m512i b =
        _mm512_inserti64x2(_mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 64))),
                           _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 96)), 2);
    return _mm512_shuffle_i32x4(a, b, 0x88);
}

template <class Out, int Stride, bool Bounded>
static void depthwise3x3_u8_vnni(const DepthwiseRunU8& run) {
    const Epilogue& to = run.to;
    const Branch& branch = to.branches[0];
    auto* packed = static_cast<const int8_t*>(run.weights);
    __m512i w[3][4], bias[4];
    __m512 multipliers[4];
#pragma GCC unroll 4
    for (int q = 0; q < 4; q++) {
#pragma GCC unroll 3
        for (int g = 0; g < 3; g++)
            w[g][q] =
                _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed + g * 64 + q * 16)));
        bias[q] = _mm512_broadcast_i32x4(
            _mm_loadu_si128(reinterpret_cast<const __m128i*>(static_cast<const int32_t*>(branch.bias) + q * 4)));
        multipliers[q] = _mm512_broadcast_f32x4(_mm_loadu_ps(branch.multipliers + q * 4));
    }
    auto* output = static_cast<Out*>(branch.output);
    for (int i = 0; i < run.length; i += 4) {
        const auto tap = [&](int y, int x) __attribute__((always_inline)) {
            return four_sites<Stride>(run.rows[y] + (i * Stride + x) * kBlock);
        };
        __m512i sums[4] = {bias[0], bias[1], bias[2], bias[3]};
        const auto add = [&](const __m512i(&weights)[4], __m512i t0, __m512i t1, __m512i t2,
                             __m512i t3) __attribute__((always_inline)) {
            const __m512i low01 = _mm512_unpacklo_epi8(t0, t1), high01 = _mm512_unpackhi_epi8(t0, t1);
            const __m512i low23 = _mm512_unpacklo_epi8(t2, t3), high23 = _mm512_unpackhi_epi8(t2, t3);
            sums[0] = _mm512_dpbusd_epi32(sums[0], _mm512_unpacklo_epi16(low01, low23), weights[0]);
            sums[1] = _mm512_dpbusd_epi32(sums[1], _mm512_unpackhi_epi16(low01, low23), weights[1]);
            sums[2] = _mm512_dpbusd_epi32(sums[2], _mm512_unpacklo_epi16(high01, high23), weights[2]);
            sums[3] = _mm512_dpbusd_epi32(sums[3], _mm512_unpackhi_epi16(high01, high23), weights[3]);
        };
        const __m512i none = _mm512_setzero_si512();
        add(w[0], tap(0, 0), tap(0, 1), tap(0, 2), tap(1, 0));
        add(w[1], tap(1, 1), tap(1, 2), tap(2, 0), tap(2, 1));
        add(w[2], tap(2, 2), none, none, none);
        __m512 values[4];
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++) values[q] = real_values(sums[q], multipliers[q]);
        const int left = run.length - i < 4 ? run.length - i : 4;
        if constexpr (sizeof(Out) == 1) {
            const __m512i bytes =
                saturated_bytes(whole_numbers<Bounded>(values[0]), whole_numbers<Bounded>(values[1]),
                                whole_numbers<Bounded>(values[2]), whole_numbers<Bounded>(values[3]), to);
            _mm512_mask_storeu_epi64(output + i * kBlock, static_cast<__mmask8>((1 << 2 * left) - 1), bytes);
        } else {
            alignas(64) float parts[4][16];
            for (int q = 0; q < 4; q++) _mm512_store_ps(parts[q], values[q]);
            for (int site = 0; site < left; site++)
                for (int c = 0; c < kBlock; c++)
                    output[(i + site) * kBlock + c] = clamped(parts[c / 4][site * 4 + c % 4], to);
        }
    }
}

// Any kernel: one site at a time, four taps at a time.
template <class Out>
static void depthwise_any_u8_vnni(const DepthwiseRunU8& run) {
    const Epilogue& to = run.to;
    const Branch& branch = to.branches[0];
    const int taps = run.kernel_rows * run.kernel_columns;
    for (int i = 0; i < run.length; i++) {
        int32_t sums[kBlock] = {};
        auto* weights = static_cast<const int8_t*>(run.weights);
        for (int tap = 0; tap < taps; tap++) {
            const uint8_t* from =
                run.rows[tap / run.kernel_columns] + (i * run.stride + tap % run.kernel_columns) * kBlock;
            for (int c = 0; c < kBlock; c++) sums[c] += from[c] * weights[tap / 4 * 64 + c * 4 + tap % 4];
        }
        for (int c = 0; c < kBlock; c++) {
            const float value = scaled(sums[c], to, branch, c, nullptr);
            auto* output = static_cast<Out*>(branch.output) + i * kBlock + c;
            if constexpr (sizeof(Out) == 1)
                *output = rounded(value, to);
            else
                *output = clamped(value, to);
        }
    }
}

template <class Out>
static void depthwise_u8_vnni(const DepthwiseRunU8& run) {
    const bool three = run.kernel_rows == 3 && run.kernel_columns == 3, bounded = sizeof(Out) == 4 || run.to.bounded;
    if (three && run.stride == 1)
        return bounded ? depthwise3x3_u8_vnni<Out, 1, true>(run) : depthwise3x3_u8_vnni<Out, 1, false>(run);
    if (three && run.stride == 2)
        return bounded ? depthwise3x3_u8_vnni<Out, 2, true>(run) : depthwise3x3_u8_vnni<Out, 2, false>(run);
    depthwise_any_u8_vnni<Out>(run);
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
