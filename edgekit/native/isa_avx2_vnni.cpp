// AVX2 with AVX-VNNI: what client processors have that know dot products of bytes but no AVX-512 (Intel's from Alder
// Lake on). Compiled with -mavx2 -mfma -mavxvnni.
#define EDGEKIT_NAMESPACE avx2_vnni
#include <immintrin.h>

#include <cstring>
#include <utility>

#include "isa.h"
#include "packing.h"
#include "requantise.h"

#include "kernels_u8_avx2.inl"
#include "kernel_table.inl"

namespace edgekit {
namespace avx2_vnni {

template <int Sites>
static inline __attribute__((always_inline)) void multiply_quad(__m256i (&sums)[Sites][2], const uint8_t* input,
                                                                const int8_t* weights) {
    const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights));
    const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + 32));
#pragma GCC unroll 8
    for (int i = 0; i < Sites; i++) {
        int32_t four;
        std::memcpy(&four, input + i * kBlock, 4);
        const __m256i x = _mm256_set1_epi32(four);
        sums[i][0] = _mm256_dpbusd_avx_epi32(sums[i][0], x, w0);
        sums[i][1] = _mm256_dpbusd_avx_epi32(sums[i][1], x, w1);
    }
}

template <int Sites, class Out>
static void conv(const ConvTileU8& tile) {
    __m256i sums[Sites][2];
#pragma GCC unroll 8
    for (int i = 0; i < Sites; i++) sums[i][0] = sums[i][1] = _mm256_setzero_si256();
    auto* weights = static_cast<const int8_t*>(tile.weights);
    for (int tap = 0; tap < tile.tap_count; tap++) {
        const uint8_t* input = tile.taps[tap];
        int left = tile.channels;
        for (; left >= kBlock; left -= kBlock, input += tile.plane, weights += kBlock * kBlock) {
            multiply_quad(sums, input, weights);
            multiply_quad(sums, input + 4, weights + 64);
            multiply_quad(sums, input + 8, weights + 128);
            multiply_quad(sums, input + 12, weights + 192);
        }
        for (int c = 0; c < left; c += 4, weights += 64) multiply_quad(sums, input + c, weights);
    }
    const Epilogue& to = tile.to;
    for (int index = 0; index < to.branch_count; index++) {
        const Branch& branch = to.branches[index];
        auto* bias = static_cast<const __m256i_u*>(branch.bias);
        const __m256i bias0 = _mm256_loadu_si256(bias), bias1 = _mm256_loadu_si256(bias + 1);
        const __m256 scale0 = _mm256_loadu_ps(branch.multipliers), scale1 = _mm256_loadu_ps(branch.multipliers + 8);
#pragma GCC unroll 8
        for (int i = 0; i < Sites; i++) {
            Out* row =
                static_cast<Out*>(branch.output) + static_cast<ptrdiff_t>(to.positions ? to.positions[i] : i) * kBlock;
            auto* residual = static_cast<const Out*>(branch.residual);
            if (residual)
                residual += static_cast<ptrdiff_t>(to.residual_positions ? to.residual_positions[i] : i) * kBlock;
            const __m256 a = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sums[i][0], bias0)), scale0);
            const __m256 b = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_add_epi32(sums[i][1], bias1)), scale1);
            finish_block<Out>(a, b, residual, to, row);
        }
    }
}

template <int Sites, int Blocks>
struct ConvU8 {
    static_assert(Blocks == 1, "two registers of sums to a site, six sites: more would not fit");
    static void run(const ConvTileU8& tile) { conv<Sites, uint8_t>(tile); }
};
template <int Sites, int Blocks>
struct ConvU8F32 {
    static void run(const ConvTileU8& tile) { conv<Sites, float>(tile); }
};

}  // namespace avx2_vnni

const Kernels& avx2_vnni_kernels() {
    using namespace avx2_vnni;
    static const Kernels kernels = [] {
        // Floats are AVX2's. So are depthwise convolutions: they are bound by the shuffles that bring taps together, of
        // which a dot product of four needs as many.
        Kernels table = avx2_kernels();
        table.name = "avx2-vnni";
        table.panel_u8 = 1;
        for (int blocks = 0; blocks <= kMaxPanel; blocks++) {
            table.tile_u8[blocks] = 0;
            for (int sites = 0; sites <= kMaxTile; sites++)
                table.conv_u8[blocks][sites] = table.conv_u8_f32[blocks][sites] = nullptr;
        }
        table.tile_u8[1] = 6;  // 12 sums, two weights and an input: 15 of 16 registers
        fill<ConvU8, 1, 6>(table.conv_u8);
        fill<ConvU8F32, 1, 6>(table.conv_u8_f32);
        table.pack_conv_u8 = pack_conv_groups<int8_t, 4>;
        return table;
    }();
    return kernels;
}

}  // namespace edgekit
