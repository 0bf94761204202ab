// What integer kernels on AVX2 and on AVX-VNNI share: how sums become results, and depthwise convolutions, where they
// differ in `Column`.

namespace edgekit::EDGEKIT_NAMESPACE {

using Sums = __m256i[2];  // of one site and 16 channels

static inline __attribute__((always_inline)) __m256i load_bytes(const void* from) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(from));
}

// What turns real results into bytes. Read once: stores of bytes could change an Epilogue, for all the compiler knows.
// Made for float results too, whose bounds may be infinite.
struct Rounding {
    __m256 high;
    __m256i zero_point, low;
    __m256i order;  // undoes what packing does to groups of four channels

    Rounding(const Epilogue& to, __m256i order_)
        : high(_mm256_set1_ps(to.high - static_cast<float>(to.zero_point))),
          zero_point(_mm256_set1_epi16(static_cast<int16_t>(to.zero_point))),
          low(_mm256_set1_epi8(static_cast<char>(to.low > 0.0f && to.low < 256.0f ? static_cast<int>(to.low) : 0))),
          order(order_) {}

    // One site as 16 bits: the lower halves of both, then the upper halves of both. Packing saturates, so only what is
    // too large for an int32 has to be clamped before.
    inline __attribute__((always_inline)) __m256i words(__m256 a, __m256 b) const {
        const __m256i words =
            _mm256_packs_epi32(_mm256_cvtps_epi32(_mm256_min_ps(high, a)), _mm256_cvtps_epi32(_mm256_min_ps(high, b)));
        return _mm256_adds_epi16(words, zero_point);
    }

    // Two sites, one in each half.
    inline __attribute__((always_inline)) __m256i bytes(__m256i first, __m256i second) const {
        return _mm256_max_epu8(low, _mm256_permutevar8x32_epi32(_mm256_packus_epi16(first, second), order));
    }
};

static inline __attribute__((always_inline)) void store_low(uint8_t* to, __m256i bytes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_castsi256_si128(bytes));
}

static inline __attribute__((always_inline)) void store_high(uint8_t* to, __m256i bytes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_extracti128_si256(bytes, 1));
}

static inline __attribute__((always_inline)) void store_clamped(float* to, __m256 value, const Epilogue& bounds) {
    _mm256_storeu_ps(to, _mm256_min_ps(_mm256_set1_ps(bounds.high), _mm256_max_ps(_mm256_set1_ps(bounds.low), value)));
}

// Sums of a tile, to which the bias of the first branch was added -> results. [0]: channels 0..7, [1]: 8..15.
template <int Sites, class Out>
static inline __attribute__((always_inline)) void finish_tile(Sums (&sums)[Sites], const Epilogue& to) {
    const Rounding rounding(to, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    for (int index = 0; index < to.branch_count; index++) {
        const Branch& branch = to.branches[index];
        auto* bias = static_cast<const int32_t*>(branch.bias);
        auto* added = static_cast<const int32_t*>(to.branches[0].bias);
        for (int half = 0; index && half < 2; half++) {
            const __m256i more = _mm256_sub_epi32(load_bytes(bias + 8 * half), load_bytes(added + 8 * half));
#pragma GCC unroll 16
            for (int i = 0; i < Sites; i++) sums[i][half] = _mm256_add_epi32(sums[i][half], more);
        }
        const __m256 scale0 = _mm256_loadu_ps(branch.multipliers), scale1 = _mm256_loadu_ps(branch.multipliers + 8);
        auto* output = static_cast<Out*>(branch.output);
        auto* residuals = static_cast<const Out*>(branch.residual);
        const int32_t *positions = to.positions, *residual_positions = to.residual_positions;
        const auto value = [&](int i, int half) __attribute__((always_inline)) {
            const __m256 product = _mm256_mul_ps(_mm256_cvtepi32_ps(sums[i][half]), half ? scale1 : scale0);
            if (!residuals) return product;
            const ptrdiff_t place = residual_positions ? residual_positions[i] : i;
            const Out* residual = residuals + place * kBlock + 8 * half;
            if constexpr (sizeof(Out) == 1) {
                const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(residual));
                const __m256i other =
                    _mm256_sub_epi32(_mm256_cvtepu8_epi32(bytes), _mm256_set1_epi32(to.residual_zero_point));
                return _mm256_add_ps(product,
                                     _mm256_mul_ps(_mm256_cvtepi32_ps(other), _mm256_set1_ps(to.residual_scale)));
            } else {
                return _mm256_add_ps(product, _mm256_loadu_ps(residual));
            }
        };
        const auto row = [&](int i) __attribute__((always_inline)) {
            return output + static_cast<ptrdiff_t>(positions ? positions[i] : i) * kBlock;
        };
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i += 2) {
            const int j = i + 1 < Sites ? i + 1 : i;
            if constexpr (sizeof(Out) == 1) {
                const __m256i first = rounding.words(value(i, 0), value(i, 1));
                const __m256i bytes = rounding.bytes(first, j > i ? rounding.words(value(j, 0), value(j, 1)) : first);
                store_low(row(i), bytes);
                if (j > i) store_high(row(j), bytes);
            } else {
                for (int k = i; k <= j; k++)
                    for (int half = 0; half < 2; half++) store_clamped(row(k) + 8 * half, value(k, half), to);
            }
        }
    }
}

static inline __attribute__((always_inline)) __m256i load_wide(const uint8_t* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// Depthwise convolutions take three taps at a time, a *column*: of 3x3 those below each other, else i, i + columns and
// i + 2 * columns. Interleaving them within 128-bit lanes leaves channels 0..3 and 8..11 in one register, 4..7 and
// 12..15 in the other; packing bytes puts them back in order. Weights are [columns][Column::kBytes].
static int columns_of(int taps) { return (taps + 2) / 3; }

template <class Column>
static size_t pack_columns(const int8_t* weights, int taps, int channels, int first, void* to) {
    const int columns = columns_of(taps);
    for (int column = 0; to && column < columns; column++)
        for (int half = 0; half < 2; half++) {
            int w[8][3] = {};
            for (int c = 0; c < 8; c++)
                for (int row = 0; row < 3; row++) {
                    const int tap = column + row * columns, channel = first + half * 4 + c % 4 + c / 4 * 8;
                    if (tap >= taps || channel >= channels) continue;
                    w[c][row] = weights[static_cast<size_t>(tap) * channels + channel];
                }
            Column::pack(w, half, static_cast<uint8_t*>(to) + column * Column::kBytes);
        }
    return static_cast<size_t>(columns) * Column::kBytes;
}

// Channels 0..3, 8..11 and 4..7, 12..15 of 16 floats or int32.
template <class T>
static inline __attribute__((always_inline)) __m256i load_part(const T* from, int half) {
    const auto* quads = reinterpret_cast<const __m128i*>(from) + half;
    return _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(quads)), _mm_loadu_si128(quads + 2), 1);
}

// Results of sites one after another, the sums of each of which `next` gives.
template <class Next, class Out>
static inline __attribute__((always_inline)) void finish_run(Next next, int length, const Epilogue& to, Out* output) {
    const float* multipliers = to.branches[0].multipliers;
    const __m256 scale0 = _mm256_castsi256_ps(load_part(multipliers, 0));
    const __m256 scale1 = _mm256_castsi256_ps(load_part(multipliers, 1));
    const auto scaled = [](__m256i sums, __m256 scale)
                            __attribute__((always_inline)) { return _mm256_mul_ps(_mm256_cvtepi32_ps(sums), scale); };
    if constexpr (sizeof(Out) == 1) {
        const Rounding rounding(to, _mm256_setr_epi32(0, 1, 4, 5, 2, 3, 6, 7));
        const auto words = [&]() __attribute__((always_inline)) {
            Sums sums;
            next(sums);
            return rounding.words(scaled(sums[0], scale0), scaled(sums[1], scale1));
        };
        for (; length >= 2; length -= 2, output += 2 * kBlock) {
            const __m256i first = words(), second = words();
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(output), rounding.bytes(first, second));
        }
        if (length) {
            const __m256i last = words();
            store_low(output, rounding.bytes(last, last));
        }
    } else {
        for (; length > 0; length--, output += kBlock) {
            Sums sums;
            next(sums);
            const __m256 a = scaled(sums[0], scale0), b = scaled(sums[1], scale1);
            store_clamped(output, _mm256_permute2f128_ps(a, b, 0x20), to);
            store_clamped(output + 8, _mm256_permute2f128_ps(a, b, 0x31), to);
        }
    }
}

// 3x3: the three rows of a column are brought together once, for all the windows that it is in.
template <class Column, int Stride, class Out>
static void depthwise3x3_columns(const DepthwiseRunU8& run) {
    auto* bias = static_cast<const int32_t*>(run.to.branches[0].bias);
    auto* weights = static_cast<const uint8_t*>(run.weights);
    const __m256i bias0 = load_part(bias, 0), bias1 = load_part(bias, 1);
    const uint8_t *top = run.rows[0], *middle = run.rows[1], *bottom = run.rows[2];
    const auto next_column = [&]() __attribute__((always_inline)) {
        const Column column(top, middle, bottom);
        top += kBlock;
        middle += kBlock;
        bottom += kBlock;
        return column;
    };
    // Of the next site and, at stride 1, of the one after it, as far as their columns have been seen.
    Sums first = {bias0, bias1}, second = {bias0, bias1};
    next_column().add_to(first, weights);
    if (Stride == 1) {
        const Column column = next_column();
        column.add_to(first, weights + Column::kBytes);
        column.add_to(second, weights);
    }
    const auto next = [&](Sums& sums) __attribute__((always_inline)) {
        if (Stride == 2) next_column().add_to(first, weights + Column::kBytes);
        const Column column = next_column();
        column.add_to(first, weights + 2 * Column::kBytes);
        sums[0] = first[0];
        sums[1] = first[1];
        if (Stride == 1) column.add_to(second, weights + Column::kBytes);
        first[0] = Stride == 1 ? second[0] : bias0;
        first[1] = Stride == 1 ? second[1] : bias1;
        second[0] = bias0;
        second[1] = bias1;
        column.add_to(Stride == 1 ? second : first, weights);
    };
    finish_run(next, run.length, run.to, static_cast<Out*>(run.to.branches[0].output));
}

template <class Column, class Out>
static void depthwise_columns(const DepthwiseRunU8& run) {
    if (run.kernel_rows == 3 && run.kernel_columns == 3) {
        if (run.stride == 1) return depthwise3x3_columns<Column, 1, Out>(run);
        if (run.stride == 2) return depthwise3x3_columns<Column, 2, Out>(run);
    }
    auto* bias = static_cast<const int32_t*>(run.to.branches[0].bias);
    const int taps = run.kernel_rows * run.kernel_columns, columns = columns_of(taps);
    const uint8_t* places[225];  // 15x15 at most
    for (int i = 0; i < 3 * columns; i++) {
        const int tap = i < taps ? i : 0;  // beyond the last one weights are 0
        places[i] = run.rows[tap / run.kernel_columns] + tap % run.kernel_columns * kBlock;
    }
    size_t at = 0;
    const auto next = [&](Sums& sums) __attribute__((always_inline)) {
        sums[0] = load_part(bias, 0);
        sums[1] = load_part(bias, 1);
        auto* weights = static_cast<const uint8_t*>(run.weights);
        for (int i = 0; i < columns; i++, weights += Column::kBytes)
            Column(places[i] + at, places[i + columns] + at, places[i + 2 * columns] + at).add_to(sums, weights);
        at += run.stride * kBlock;
    };
    finish_run(next, run.length, run.to, static_cast<Out*>(run.to.branches[0].output));
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
