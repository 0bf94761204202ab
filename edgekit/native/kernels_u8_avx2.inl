// Integer kernels on AVX2. There is no exact dot product of bytes (vpmaddubsw saturates), so bytes are widened to
// 16 bits and vpmaddwd adds up pairs: exact, and still twice the multiplications of a float instruction.

namespace edgekit::EDGEKIT_NAMESPACE {

// 16 sums -> results, for one site and one block. `low_sums` has channels 0..7, `high_sums` 8..15.
template <class Out>
static inline __attribute__((always_inline)) void finish_block(__m256 low_value, __m256 high_value, const Out* residual,
                                                               const Epilogue& to, Out* output) {
    const float zero = sizeof(Out) == 1 ? static_cast<float>(to.zero_point) : 0.0f;
    const __m256 low = _mm256_set1_ps(to.low - zero), high = _mm256_set1_ps(to.high - zero);
    if (residual) {
        if constexpr (sizeof(Out) == 1) {
            const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(residual));
            const __m256i centre = _mm256_set1_epi32(to.residual_zero_point);
            const __m256 scale = _mm256_set1_ps(to.residual_scale);
            const __m256i a = _mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), centre);
            const __m256i b = _mm256_sub_epi32(_mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8)), centre);
            low_value = _mm256_add_ps(low_value, _mm256_mul_ps(_mm256_cvtepi32_ps(a), scale));
            high_value = _mm256_add_ps(high_value, _mm256_mul_ps(_mm256_cvtepi32_ps(b), scale));
        } else {
            low_value = _mm256_add_ps(low_value, _mm256_loadu_ps(reinterpret_cast<const float*>(residual)));
            high_value = _mm256_add_ps(high_value, _mm256_loadu_ps(reinterpret_cast<const float*>(residual) + 8));
        }
    }
    low_value = _mm256_min_ps(high, _mm256_max_ps(low, low_value));
    high_value = _mm256_min_ps(high, _mm256_max_ps(low, high_value));
    if constexpr (sizeof(Out) == 1) {
        const __m256i point = _mm256_set1_epi32(to.zero_point);
        const __m256i a = _mm256_add_epi32(_mm256_cvtps_epi32(low_value), point);
        const __m256i b = _mm256_add_epi32(_mm256_cvtps_epi32(high_value), point);
        const __m256i words = _mm256_permute4x64_epi64(_mm256_packus_epi32(a, b), 0xD8);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(output),
                         _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
    } else {
        _mm256_storeu_ps(reinterpret_cast<float*>(output), low_value);
        _mm256_storeu_ps(reinterpret_cast<float*>(output) + 8, high_value);
    }
}

// Convolution weights: int16 [taps][channels / 2][16][2], one block to a panel.
template <int Sites, int Blocks, class Out>
static void conv_u8_avx2(const ConvTileU8& tile) {
    static_assert(Blocks == 1, "two registers of sums to a site, six sites: more would not fit");
    __m256i sums[Sites][2];
#pragma GCC unroll 8
    for (int i = 0; i < Sites; i++) sums[i][0] = sums[i][1] = _mm256_setzero_si256();
    auto* weights = static_cast<const int16_t*>(tile.weights);
    alignas(32) int16_t wide[Sites][kBlock];
    for (int tap = 0; tap < tile.tap_count; tap++) {
        const uint8_t* input = tile.taps[tap];
        for (int left = tile.channels; left > 0; left -= kBlock, input += tile.plane) {
#pragma GCC unroll 8
            for (int i = 0; i < Sites; i++)
                _mm256_store_si256(reinterpret_cast<__m256i*>(wide[i]),
                                   _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(input + i * kBlock))));
            const int pairs = left < kBlock ? left / 2 : kBlock / 2;
            for (int pair = 0; pair < pairs; pair++, weights += 2 * kBlock) {
                const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
                const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + kBlock));
#pragma GCC unroll 8
                for (int i = 0; i < Sites; i++) {
                    int32_t two;
                    std::memcpy(&two, &wide[i][2 * pair], 4);
                    const __m256i x = _mm256_set1_epi32(two);
                    sums[i][0] = _mm256_add_epi32(sums[i][0], _mm256_madd_epi16(x, w0));
                    sums[i][1] = _mm256_add_epi32(sums[i][1], _mm256_madd_epi16(x, w1));
                }
            }
        }
    }
    const Epilogue& to = tile.to;
    for (int index = 0; index < to.branch_count; index++) {
        const Branch& branch = to.branches[index];
        auto* bias = static_cast<const __m256i_u*>(branch.bias);
        const __m256i bias0 = _mm256_loadu_si256(bias), bias1 = _mm256_loadu_si256(bias + 1);
        const __m256 scale0 = _mm256_loadu_ps(branch.multipliers), scale1 = _mm256_loadu_ps(branch.multipliers + 8);
#pragma GCC unroll 8
        for (int i = 0; i < Sites; i++) {
            Out* row = static_cast<Out*>(branch.output) + static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock;
            auto* residual = static_cast<const Out*>(branch.residual);
            if (residual) residual += static_cast<ptrdiff_t>(to.residual_positions ? to.residual_positions[i] : i) * kBlock;
            const __m256 a = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sums[i][0], bias0)), scale0);
            const __m256 b = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sums[i][1], bias1)), scale1);
            finish_block<Out>(a, b, residual, to, row);
        }
    }
}

template <int Sites, int Blocks>
struct ConvU8Avx2 {
    static void run(const ConvTileU8& tile) { conv_u8_avx2<Sites, Blocks, uint8_t>(tile); }
};
template <int Sites, int Blocks>
struct ConvU8F32Avx2 {
    static void run(const ConvTileU8& tile) { conv_u8_avx2<Sites, Blocks, float>(tile); }
};

// Depthwise weights: int16 [pairs of taps][2 halves][8 channels][2]. Interleaving two taps within 128-bit lanes leaves
// channels 0..3 and 8..11 in one register and 4..7 and 12..15 in the other; packing bytes puts them back in order.
static size_t pack_depthwise_u8_avx2(const int8_t* weights, int taps, int channels, int first, void* to) {
    const int pairs = (taps + 1) / 2;
    if (to) {
        auto* words = static_cast<int16_t*>(to);
        for (int pair = 0; pair < pairs; pair++)
            for (int half = 0; half < 2; half++)
                for (int i = 0; i < 8; i++) {
                    const int c = first + half * 4 + i % 4 + i / 4 * 8;
                    for (int tap = pair * 2; tap < pair * 2 + 2; tap++)
                        *words++ = tap < taps && c < channels ? weights[static_cast<size_t>(tap) * channels + c] : 0;
                }
    }
    return static_cast<size_t>(pairs) * 2 * kBlock * sizeof(int16_t);
}

// One site: the sums of channels 0..3, 8..11 and of 4..7, 12..15.
template <int Taps, class Tap>
static inline __attribute__((always_inline)) void depthwise_sums(const int16_t* weights, int taps, Tap tap, __m256i& a,
                                                                 __m256i& b) {
    const int count = Taps ? Taps : taps;
#pragma GCC unroll 8
    for (int t = 0; t < count; t += 2, weights += 2 * kBlock) {
        const __m256i x = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(tap(t))));
        const __m256i y = t + 1 < count
                              ? _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(tap(t + 1))))
                              : _mm256_setzero_si256();
        const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
        const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + kBlock));
        a = _mm256_add_epi32(a, _mm256_madd_epi16(_mm256_unpacklo_epi16(x, y), w0));
        b = _mm256_add_epi32(b, _mm256_madd_epi16(_mm256_unpackhi_epi16(x, y), w1));
    }
}

template <class Out>
static void depthwise_u8_avx2(const DepthwiseRunU8& run) {
    const Epilogue& to = run.to;
    const Branch& branch = to.branches[0];
    auto* bias = static_cast<const __m256i_u*>(branch.bias);
    const __m256i low_bias = _mm256_loadu_si256(bias), high_bias = _mm256_loadu_si256(bias + 1);
    const __m256 low_scale = _mm256_loadu_ps(branch.multipliers), high_scale = _mm256_loadu_ps(branch.multipliers + 8);
    auto* weights = static_cast<const int16_t*>(run.weights);
    const bool three = run.kernel_rows == 3 && run.kernel_columns == 3;
    for (int i = 0; i < run.length; i++) {
        __m256i a = _mm256_setzero_si256(), b = _mm256_setzero_si256();
        const auto tap = [&](int t) __attribute__((always_inline)) {
            const int columns = three ? 3 : run.kernel_columns;
            return run.rows[t / columns] + (i * run.stride + t % columns) * kBlock;
        };
        if (three)
            depthwise_sums<9>(weights, 9, tap, a, b);
        else
            depthwise_sums<0>(weights, run.kernel_rows * run.kernel_columns, tap, a, b);
        const __m256i low_sums = _mm256_permute2x128_si256(a, b, 0x20), high_sums = _mm256_permute2x128_si256(a, b, 0x31);
        const __m256 x = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(low_sums, low_bias)), low_scale);
        const __m256 y = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(high_sums, high_bias)), high_scale);
        finish_block<Out>(x, y, nullptr, to, static_cast<Out*>(branch.output) + i * kBlock);
    }
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
