// AVX-512 with VNNI. Compiled with -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mfma.
#define EDGEKIT_NAMESPACE avx512
#include <immintrin.h>

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

}  // namespace edgekit::avx512

#include "kernels_f32.inl"
#include "kernels_u8_vnni.inl"
#include "kernels_resize.inl"
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
        fill<ConvU8Vnni, 1, 14>(table.conv_u8);
        fill<ConvU8Vnni, 2, 12>(table.conv_u8);
        fill<ConvU8Vnni, 3, 8>(table.conv_u8);
        fill<ConvU8F32Vnni, 1, 14>(table.conv_u8_f32);
        fill<ConvU8F32Vnni, 2, 12>(table.conv_u8_f32);
        fill<ConvU8F32Vnni, 3, 8>(table.conv_u8_f32);
        table.depthwise_f32 = depthwise_f32;
        table.depthwise_u8 = depthwise_u8_vnni<uint8_t>;
        table.depthwise_u8_f32 = depthwise_u8_vnni<float>;
        table.weigh_rows = weigh_rows;
        table.weigh_columns = weigh_columns;
        table.halve = halve;
        table.pack_conv_u8 = pack_conv_groups<int8_t, 4>;
        table.pack_depthwise_u8 = pack_depthwise_u8_vnni;
        return table;
    }();
    return kernels;
}

}  // namespace edgekit
