// Weighted sums of rows and of columns of a picture (resize.cpp). Compiler vectors: nothing here needs more.

#include <cstring>

namespace edgekit::EDGEKIT_NAMESPACE {

static void weigh_rows(const uint8_t* const* rows, const float* weights, int row_count, int count, float* sums) {
    const uint8_t* __restrict first = rows[0];
    float* __restrict to = sums;
    for (int i = 0; i < count; i++) to[i] = static_cast<float>(first[i]) * weights[0];
    for (int k = 1; k < row_count; k++) {
        const uint8_t* __restrict row = rows[k];
        for (int i = 0; i < count; i++) to[i] += static_cast<float>(row[i]) * weights[k];
    }
}

// A constant `Taps` (0: any) is a third quicker.
template <int Taps>
static inline __attribute__((always_inline)) void weigh_pixels(const float* sums, const int32_t* firsts,
                                                               const float* weights, int taps, int count, uint8_t* to) {
    using Four = float __attribute__((vector_size(16)));
    using FourWhole = int32_t __attribute__((vector_size(16)));
    using FourBytes = uint8_t __attribute__((vector_size(4)));
    const auto load = [](const float* from) {
        Four value;
        std::memcpy(&value, from, sizeof value);
        return value;
    };
    const int most = Taps ? Taps : taps;
    for (int i = 0; i < count; i++, to += 3, weights += most) {
        const float* from = sums + firsts[i];
        Four sum = load(from) * weights[0];  // three channels, and one of the next pixel
        for (int k = 1; k < most; k++) sum += load(from + k * 3) * weights[k];
        const FourWhole whole = __builtin_convertvector(sum + 0.5f, FourWhole);
        const FourBytes bytes = __builtin_convertvector(whole, FourBytes);
        std::memcpy(to, &bytes, sizeof bytes);  // the fourth byte is the next pixel's, or slack
    }
}

static void weigh_columns(const float* sums, const int32_t* firsts, const float* weights, int taps, int count,
                          uint8_t* to) {
    if (taps == 2) return weigh_pixels<2>(sums, firsts, weights, taps, count, to);
    if (taps == 3) return weigh_pixels<3>(sums, firsts, weights, taps, count, to);
    weigh_pixels<0>(sums, firsts, weights, taps, count, to);
}

static void halve(const uint8_t* rows, int count, uint16_t* sums, uint8_t* to) {
    using FourSums = uint16_t __attribute__((vector_size(8)));
    using FourBytes = uint8_t __attribute__((vector_size(4)));
    const uint8_t* __restrict upper = rows;
    const uint8_t* __restrict lower = rows + count;
    for (int i = 0; i < count; i++) sums[i] = static_cast<uint16_t>(upper[i] + lower[i]);
    for (int i = 0; i < count; i += 6, to += 3) {
        FourSums left, right;  // three channels, and one of the next pixel
        std::memcpy(&left, sums + i, sizeof left);
        std::memcpy(&right, sums + i + 3, sizeof right);
        const FourBytes bytes = __builtin_convertvector((left + right + 2) >> 2, FourBytes);
        std::memcpy(to, &bytes, sizeof bytes);  // the fourth byte is the next pixel's, or slack
    }
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
