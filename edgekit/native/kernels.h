// The table of kernels: one entry an operation, filled once for each instruction set.
//
// Feature maps are [channels / 16][sites][16], so a tile of sites reads its 16 channels at constant offsets from one
// pointer. Dispatch, the tests and the benchmarks all go through `Kernels`.
#pragma once

#include <cstddef>
#include <cstdint>

namespace edgekit {

constexpr int kBlock = 16;      // channels that lie side by side
constexpr int kMaxPanel = 4;    // blocks of output channels that a tile can compute at once
constexpr int kMaxTile = 16;    // sites that a tile can have
constexpr int kHalvedBlock = kBlock + kBlock / 2;  // filters of a panel of a block and a half

// What turns accumulators into results: (sum + bias) * multiplier, once, or twice for a C.ReLU.
struct Branch {
    const void* bias;           // [16 * blocks] float or int32
    const float* multipliers;   // [16 * blocks]; null: 1 (float only)
    void* output;               // first block of channels; float or uint8
    const void* residual;       // to be added, of the output's type, or null
};

// Where the results of a tile or run go, and what happens to them on their way.
struct Epilogue {
    Branch branches[2];
    int branch_count;
    size_t output_plane;        // elements between blocks of channels
    const int32_t* positions;   // place of each site from `output` on, in sites; null: one after another
    size_t residual_plane;
    const int32_t* residual_positions;
    float low, high;            // float: of the result. uint8: of the quantised result
    int zero_point;             // uint8 results
    float residual_scale;       // uint8: of the residual in units of the result
    int residual_zero_point;
    bool bounded;               // uint8: whatever the input, no result is beyond 2^30 before it is rounded
};

// A dense convolution of a few sites: the sum over `taps` and channels of input times weights.
template <class In, class Weight>
struct ConvTile {
    const In* const* taps;      // first site, first block of channels under each tap
    size_t plane;               // elements between blocks of channels
    size_t site;                // elements between sites, if the kernel is a strided one; for others they are 16
    int tap_count, channels;    // channels: a multiple of 4 for uint8
    const Weight* weights;      // one panel: [taps][channels][16 * blocks] float, or what pack_conv_u8 makes
    const uint8_t* ahead;  // what is read soon after this tile: float kernels may have so many cache lines of it
    int ahead_lines;  // fetched for every 16 channels, one behind the other
    Epilogue to;
};
using ConvTileF32 = ConvTile<float, float>;
using ConvTileU8 = ConvTile<uint8_t, void>;

// One block of channels of a depthwise convolution along a run of output sites.
template <class In, class Weight>
struct DepthwiseRun {
    const In* const* rows;  // [kernel_rows] under the leftmost tap of the first site
    int length;  // output sites
    int kernel_rows, kernel_columns, stride;
    const Weight* weights;  // [taps][16] float; packed by `pack_depthwise_u8` for uint8
    Epilogue to;  // sites one after another, no residual
};
using DepthwiseRunF32 = DepthwiseRun<float, float>;
using DepthwiseRunU8 = DepthwiseRun<uint8_t, void>;

// One axis of a RoI: first cell and the cell behind the last of each bin, both within the map.
constexpr int kRoiBins = 6;  // a side
struct RoiAxis {
    int begin[kRoiBins], end[kRoiBins];
};
constexpr int kPooledChannels = 32;  // at once: their maxima stay in registers

struct Kernels {
    const char* name;  // e.g. "avx512-vnni"
    int panel_f32, panel_u8;  // blocks of output channels to a panel, at most
    int tile_f32[kMaxPanel + 1], tile_u8[kMaxPanel + 1];  // sites of a tile by the blocks of its panel

    // [blocks][sites]
    void (*conv_f32[kMaxPanel + 1][kMaxTile + 1])(const ConvTileF32&);
    void (*conv_f32_strided[kMaxPanel + 1][kMaxTile + 1])(const ConvTileF32&);
    // [sites] of a block and a half of filters; null: there are none. Weights [taps][channels / half_channels][24]
    // [half_channels]; channels are a multiple of `half_channels`. The half blocks of two branches lie in one block of the
    // output: the second half of the block behind the first one is the second branch's.
    void (*conv_f32_half[kMaxTile + 1])(const ConvTileF32&);
    void (*conv_f32_half_strided[kMaxTile + 1])(const ConvTileF32&);
    int half_channels, tile_f32_half;
    void (*conv_u8[kMaxPanel + 1][kMaxTile + 1])(const ConvTileU8&);  // uint8 result
    void (*conv_u8_strided[kMaxPanel + 1][kMaxTile + 1])(const ConvTileU8&);  // uint8 result; null: there are none
    void (*conv_u8_f32[kMaxPanel + 1][kMaxTile + 1])(const ConvTileU8&);  // float result
    void (*depthwise_f32)(const DepthwiseRunF32&);
    void (*depthwise_u8)(const DepthwiseRunU8&);
    void (*depthwise_u8_f32)(const DepthwiseRunU8&);

    // For `resize`. sums[0..count - 1] = the weighted sum of `row_count` rows, at least one.
    void (*weigh_rows)(const uint8_t* const* rows, const float* weights, int row_count, int count, float* sums);
    // Pixels of three channels: result i is the sum of `taps` pixels from sums + firsts[i] on times weights[i * taps..],
    // rounded half up. Reads one number behind the sums, and writes one byte behind the results.
    void (*weigh_columns)(const float* sums, const int32_t* firsts, const float* weights, int taps, int count,
                          uint8_t* to);

    // Two rows of `count` numbers, one below the other, as one row of half as many pixels of three channels: means of four
    // pixels, rounded half up. Uses count + 1 sums, and writes one byte behind the results.
    void (*halve)(const uint8_t* rows, int count, uint16_t* sums, uint8_t* to);

    // Maxima [32][6][6] of the bins of a RoI in `cells` [rows][columns][32]; a bin without cells is 0. `line` is room for a
    // row of cells.
    void (*pool_roi)(const float* cells, int columns, const RoiAxis& down, const RoiAxis& across, float* line,
                     float* to);

    // One panel of uint8 weights, from `weights` [filters][taps][channels] to the layout of conv_u8: filters
    // first..first + 16 * blocks - 1, zeros where there is none. Returns bytes; `to` null only counts.
    size_t (*pack_conv_u8)(const int8_t* weights, int filters, int taps, int channels, int first, int blocks, void* to);
    // One block of depthwise weights from `weights` [taps][channels].
    size_t (*pack_depthwise_u8)(const int8_t* weights, int taps, int channels, int first, void* to);
};

// The kernels for this processor; `wanted` (or the environment variable EDGEKIT_ISA) picks one by name.
// Throws std::invalid_argument, which lists the names that this processor can run.
const Kernels& choose_kernels(const char* wanted = nullptr);

}  // namespace edgekit
