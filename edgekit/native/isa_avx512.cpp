// AVX-512 with VNNI. Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma.
#define EDGEKIT_NAMESPACE avx512
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "isa.h"
#include "packing.h"
#include "requantise.h"

namespace edgekit::avx512 {

constexpr int kLanes = 16;
using Vector = __m512;

static inline Vector load(const float* from) { return _mm512_loadu_ps(from); }
static inline void store(float* to, Vector value) { _mm512_storeu_ps(to, value); }
static inline Vector splat(float value) { return _mm512_set1_ps(value); }
static inline Vector multiply_add(Vector x, Vector w, Vector sum) { return _mm512_fmadd_ps(x, w, sum); }
static inline Vector clamp(Vector value, Vector low, Vector high) {
    return _mm512_min_ps(high, _mm512_max_ps(low, value));
}

struct Half {
    static constexpr int kChannels = 2, kVectors = 1;
    static Vector input(const float* from) {
        double pair;
        std::memcpy(&pair, from, sizeof pair);
        return _mm512_castpd_ps(_mm512_set1_pd(pair));
    }
    static void take_apart(const Vector (&sums)[3], Vector (&whole)[1], Vector (&half)[1]) {
        const __m512i even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        whole[0] = _mm512_permutex2var_ps(sums[0], even, sums[1]) + _mm512_permutex2var_ps(sums[0], odd, sums[1]);
        half[0] = _mm512_permutexvar_ps(even, sums[2]) + _mm512_permutexvar_ps(odd, sums[2]);
    }
    static Vector load(const float* from) { return _mm512_castps256_ps512(_mm256_loadu_ps(from)); }
    static void store(float* to, Vector value) { _mm256_storeu_ps(to, _mm512_castps512_ps256(value)); }
};

}  // namespace edgekit::avx512

#include "kernels_f32.inl"
#include "kernels_f32_half.inl"
#include "kernels_u8_vnni.inl"
#include "kernels_resize.inl"
#include "kernels_rois.inl"
#include "kernel_table.inl"

namespace edgekit {

const Kernels& avx512_kernels() {
    using namespace avx512;
    static const Kernels kernels = [] {
        Kernels table{};
        table.name = "avx512-vnni";
        table.panel_f32 = table.panel_u8 = 3;
        // 24 sums, up to three weights and an input of 32 registers; a narrow panel needs no more sites than keep busy.
        for (int* tile : {table.tile_f32, table.tile_u8}) {
            tile[1] = 14;
            tile[2] = 12;
            tile[3] = 8;
        }
        fill<ConvF32, 1, 14>(table.conv_f32);
        fill<ConvF32, 2, 12>(table.conv_f32);
        fill<ConvF32, 3, 8>(table.conv_f32);
        fill<ConvF32Strided, 1, 14>(table.conv_f32_strided);
        fill<ConvF32Strided, 2, 12>(table.conv_f32_strided);
        fill<ConvF32Strided, 3, 8>(table.conv_f32_strided);
        table.half_channels = Half::kChannels;
        table.tile_f32_half = 8;
        fill_half<ConvF32Half, 8>(table.conv_f32_half);
        fill_half<ConvF32HalfStrided, 8>(table.conv_f32_half_strided);
        fill<ConvU8Vnni, 1, 14>(table.conv_u8);
        fill<ConvU8Vnni, 2, 12>(table.conv_u8);
        fill<ConvU8Vnni, 3, 8>(table.conv_u8);
        fill<ConvU8VnniStrided, 1, 14>(table.conv_u8_strided);
        fill<ConvU8VnniStrided, 2, 12>(table.conv_u8_strided);
        fill<ConvU8VnniStrided, 3, 8>(table.conv_u8_strided);
        fill<ConvU8F32Vnni, 1, 14>(table.conv_u8_f32);
        fill<ConvU8F32Vnni, 2, 12>(table.conv_u8_f32);
        fill<ConvU8F32Vnni, 3, 8>(table.conv_u8_f32);
        table.depthwise_f32 = depthwise_f32;
        table.depthwise_u8 = depthwise_u8_vnni<uint8_t>;
        table.depthwise_u8_f32 = depthwise_u8_vnni<float>;
        table.weigh_rows = weigh_rows;
        table.weigh_columns = weigh_columns;
        table.halve = halve;
        table.pool_roi = pool_roi;
        table.pack_conv_u8 = pack_conv_groups<int8_t, 4>;
        table.pack_depthwise_u8 = pack_depthwise_u8_vnni;
        return table;
    }();
    return kernels;
}

}  // namespace edgekit
