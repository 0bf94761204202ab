// The table of NEON kernels, for isa_neon.cpp and isa_neon_dotprod.cpp, which define its names and its tile of bytes.
#include <arm_neon.h>

#include <cstring>
#include <utility>

#include "isa.h"
#include "requantise.h"

namespace edgekit::EDGEKIT_NAMESPACE {

constexpr int kLanes = 4;
using Vector = float32x4_t;

static inline Vector load(const float* from) { return vld1q_f32(from); }
static inline void store(float* to, Vector value) { vst1q_f32(to, value); }
static inline Vector splat(float value) { return vdupq_n_f32(value); }
static inline Vector multiply_add(Vector x, Vector w, Vector sum) { return vfmaq_f32(sum, x, w); }
static inline Vector clamp(Vector value, Vector low, Vector high) { return vminq_f32(high, vmaxq_f32(low, value)); }

struct Half {
    static constexpr int kChannels = 1, kVectors = 2;
    static Vector input(const float* from) { return vld1q_dup_f32(from); }
    static void take_apart(const Vector (&sums)[6], Vector (&whole)[4], Vector (&half)[2]) {
        for (int n = 0; n < 4; n++) whole[n] = sums[n];
        for (int n = 0; n < 2; n++) half[n] = sums[4 + n];
    }
    static Vector load(const float* from) { return vld1q_f32(from); }
    static void store(float* to, Vector value) { vst1q_f32(to, value); }
};

}  // namespace edgekit::EDGEKIT_NAMESPACE

#include "kernels_f32.inl"
#include "kernels_f32_half.inl"
#include "kernels_f32_neon.inl"
#include "kernels_u8_neon.inl"
#include "kernels_resize.inl"
#include "kernels_rois.inl"
#include "kernel_table.inl"

namespace edgekit {

const Kernels& EDGEKIT_NEON_TABLE() {
    using namespace EDGEKIT_NAMESPACE;
    static const Kernels kernels = [] {
        constexpr int kTileF32 = 6, kTileU8 = EDGEKIT_NEON_TILE_U8;
        Kernels table{};
        table.name = EDGEKIT_NEON_NAME;
        table.panel_f32 = table.panel_u8 = 1;
        table.tile_f32[1] = kTileF32;
        table.tile_u8[1] = kTileU8;
        fill<ConvF32Neon, 1, kTileF32>(table.conv_f32);
        fill<ConvF32NeonStrided, 1, kTileF32>(table.conv_f32_strided);
        table.half_channels = Half::kChannels;
        table.tile_f32_half = 4;  // 24 sums, six weights and an input of 32 registers
        fill_half<ConvF32Half, 4>(table.conv_f32_half);
        fill_half<ConvF32HalfStrided, 4>(table.conv_f32_half_strided);
        fill<ConvU8Neon, 1, kTileU8>(table.conv_u8);
        fill<ConvU8F32Neon, 1, kTileU8>(table.conv_u8_f32);
        table.depthwise_f32 = depthwise_f32;
        table.depthwise_u8 = depthwise_u8_neon<uint8_t>;
        table.depthwise_u8_f32 = depthwise_u8_neon<float>;
        table.weigh_rows = weigh_rows;
        table.weigh_columns = weigh_columns;
        table.halve = halve;
        table.pool_roi = pool_roi;
        table.pack_conv_u8 = pack_conv_u8_neon;
        table.pack_depthwise_u8 = pack_depthwise_u8_neon;
        return table;
    }();
    return kernels;
}

}  // namespace edgekit
