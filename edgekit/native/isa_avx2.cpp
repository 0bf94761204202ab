// AVX2 and FMA. Compiled with -mavx2 -mfma.
#define EDGEKIT_NAMESPACE avx2
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "isa.h"
#include "packing.h"
#include "requantise.h"

namespace edgekit::avx2 {

constexpr int kLanes = 8;
using Vector = __m256;

static inline Vector load(const float* from) { return _mm256_loadu_ps(from); }
static inline void store(float* to, Vector value) { _mm256_storeu_ps(to, value); }
static inline Vector splat(float value) { return _mm256_set1_ps(value); }
static inline Vector multiply_add(Vector x, Vector w, Vector sum) { return _mm256_fmadd_ps(x, w, sum); }
static inline Vector clamp(Vector value, Vector low, Vector high) {
    return _mm256_min_ps(high, _mm256_max_ps(low, value));
}

struct Half {
    static constexpr int kChannels = 1, kVectors = 1;
    static Vector input(const float* from) { return _mm256_set1_ps(*from); }
    static void take_apart(const Vector (&sums)[3], Vector (&whole)[2], Vector (&half)[1]) {
        whole[0] = sums[0];
        whole[1] = sums[1];
        half[0] = sums[2];
    }
    static Vector load(const float* from) { return _mm256_loadu_ps(from); }
    static void store(float* to, Vector value) { _mm256_storeu_ps(to, value); }
};

}  // namespace edgekit::avx2

#include "kernels_f32.inl"
#include "kernels_f32_half.inl"
#include "kernels_u8_avx2.inl"
#include "kernels_u8_pairs.inl"
#include "kernels_resize.inl"
#include "kernels_rois.inl"
#include "kernel_table.inl"

namespace edgekit {

const Kernels& avx2_kernels() {
    using namespace avx2;
    static const Kernels kernels = [] {
        Kernels table{};
        table.name = "avx2";
        table.panel_f32 = table.panel_u8 = 1;
        table.tile_f32[1] = 6;  // 12 sums, two weights and an input: 15 of 16 registers
        table.tile_u8[1] = 12;  // 12 sums, the weights of a quad, ones and a product: 15 of 16
        fill<ConvF32, 1, 6>(table.conv_f32);
        fill<ConvF32Strided, 1, 6>(table.conv_f32_strided);
        table.half_channels = Half::kChannels;
        table.tile_f32_half = 4;  // 12 sums, three weights and an input
        fill_half<ConvF32Half, 4>(table.conv_f32_half);
        fill_half<ConvF32HalfStrided, 4>(table.conv_f32_half_strided);
        fill<ConvU8, 1, 12>(table.conv_u8);
        fill<ConvU8F32, 1, 12>(table.conv_u8_f32);
        table.depthwise_f32 = depthwise_f32;
        table.depthwise_u8 = depthwise_columns<WideColumn, uint8_t>;
        table.depthwise_u8_f32 = depthwise_columns<WideColumn, float>;
        table.weigh_rows = weigh_rows;
        table.weigh_columns = weigh_columns;
        table.halve = halve;
        table.pool_roi = pool_roi;
        table.pack_conv_u8 = pack_conv_u8_pairs;
        table.pack_depthwise_u8 = pack_columns<WideColumn>;
        return table;
    }();
    return kernels;
}

}  // namespace edgekit
