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
    auto* bias = static_cast<const int32_t*>(tile.to.branches[0].bias);
    const __m256i bias0 = load_bytes(bias), bias1 = load_bytes(bias + 8);
    Sums sums[Sites];
#pragma GCC unroll 8
    for (int i = 0; i < Sites; i++) {
        sums[i][0] = bias0;
        sums[i][1] = bias1;
    }
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
    finish_tile<Sites, Out>(sums, tile.to);
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

// Three taps of a depthwise convolution and a zero.
struct QuadColumn {
    __m256i quads[2];

    static constexpr int kBytes = 4 * kBlock;

    inline __attribute__((always_inline)) QuadColumn(const uint8_t* a, const uint8_t* b, const uint8_t* c) {
        const __m256i pairs = _mm256_or_si256(load_wide(a), _mm256_slli_epi16(load_wide(b), 8)), last = load_wide(c);
        quads[0] = _mm256_unpacklo_epi16(pairs, last);
        quads[1] = _mm256_unpackhi_epi16(pairs, last);
    }

    inline __attribute__((always_inline)) void add_to(Sums& sums, const uint8_t* weights) const {
        sums[0] = _mm256_dpbusd_avx_epi32(sums[0], quads[0], load_bytes(weights));
        sums[1] = _mm256_dpbusd_avx_epi32(sums[1], quads[1], load_bytes(weights + 32));
    }

    static void pack(const int (&w)[8][3], int half, uint8_t* to) {
        for (int c = 0; c < 8; c++)
            for (int i = 0; i < 4; i++) to[half * 32 + c * 4 + i] = static_cast<uint8_t>(i < 3 ? w[c][i] : 0);
    }
};

}  // namespace avx2_vnni

const Kernels& avx2_vnni_kernels() {
    using namespace avx2_vnni;
    static const Kernels kernels = [] {
        Kernels table = avx2_kernels();  // floats are AVX2's
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
        table.depthwise_u8 = depthwise_columns<QuadColumn, uint8_t>;
        table.depthwise_u8_f32 = depthwise_columns<QuadColumn, float>;
        table.pack_depthwise_u8 = pack_columns<QuadColumn>;
        table.pack_conv_u8 = pack_conv_groups<int8_t, 4>;
        return table;
    }();
    return kernels;
}

}  // namespace edgekit
