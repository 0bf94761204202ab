// Convolutions of an Engine: tiles of sites handed to the kernels, and what their windows need.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "engine.h"

namespace edgekit {
namespace {

// A panel's weights from `channel` on, which is 0 for integers.
const uint8_t* slice_of(const WeightPlan& weights, const Panel& panel, int channel, bool integer) {
    const size_t at = integer ? 0 : sizeof(float) * channel * panel.filters();
    return weights.weights.data() + panel.weights + at;
}

}  // namespace

void Engine::convolve(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows,
                      const Map& output, Span sites, Span panels, uint8_t* scratch) const {
    if (sites.from >= sites.to || panels.from >= panels.to) return;
    if (plan_.layouts[op.input].element == 4)
        convolve_as<float>(op, weights, input, ring_rows, output, sites, panels, scratch);
    else
        convolve_as<uint8_t>(op, weights, input, ring_rows, output, sites, panels, scratch);
}

// Some sites of a convolution, as numbered among the active sites of its output. Of a block of sites at a time, first the
// input of every tile is found, or gathered; then one panel of weights after another passes by all of its tiles.
template <class T>
void Engine::convolve_as(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows,
                         const Map& output, Span sites, Span panels, uint8_t* scratch) const {
    constexpr bool integer = sizeof(T) == 1;
    using Tile = std::conditional_t<integer, ConvTileU8, ConvTileF32>;
    const bool float_result = plan_.layouts[op.output].element == 4;
    const Map residual = op.second >= 0 ? map_of(op.second) : Map{};
    const size_t out_element = plan_.layouts[op.output].element;

    const T* taps[256];
    TileInput<T> inputs[kMaxTiles];
    int starts[kMaxTiles + 1];
    Tile tile{};
    tile.taps = taps;
    tile.tap_count = weights.taps;
    Epilogue& result = tile.to;
    result.branch_count = weights.branches;
    result.output_plane = output.plane;
    result.zero_point = plan_.program.tensors[op.output].zero_point;
    result.bounded = weights.bounded;
    result.residual_scale = op.second_scale;
    result.residual_zero_point = op.second >= 0 ? plan_.program.tensors[op.second].zero_point : 0;

    const bool fetches_ahead = !integer && weights.weights.bytes() > kCachedWeights;
    for (int channel = 0; channel < weights.channels; channel += weights.slice) {
        // A slice of the channels adds to what those before it left in the output.
        const bool first_slice = channel == 0, last_slice = channel + weights.slice >= weights.channels;
        tile.channels = std::min(weights.slice, weights.channels - channel);
        result.low = last_slice ? op.low : -std::numeric_limits<float>::infinity();
        result.high = last_slice ? op.high : std::numeric_limits<float>::infinity();
        result.residual_plane = first_slice ? residual.plane : output.plane;
        for (int start = sites.from; start < sites.to; start += weights.block) {
            const int length = std::min(sites.to - start, weights.block);
            // Tiles of nearly equal size: the last would else be too small to keep the processor busy.
            const int tiles = ceil_div(length, weights.tile);
            T* free = reinterpret_cast<T*>(scratch);
            starts[0] = start;
            for (int i = 0; i < tiles; i++) {
                starts[i + 1] = start + share(length, i, tiles).to;
                inputs[i] =
                    find_input<T>(op, weights, channel, input, ring_rows, starts[i], starts[i + 1] - starts[i], free);
            }
            for (int index = panels.from; index < panels.to; index++) {
                const Panel& panel = weights.panels[index];
                const uint8_t* slice = slice_of(weights, panel, channel, integer);
                tile.weights = reinterpret_cast<decltype(tile.weights)>(slice);
                // Weights that no cache keeps are fetched a panel ahead, a part of them by each tile.
                const uint8_t* ahead = nullptr;
                if (fetches_ahead) {
                    const bool last = index + 1 == panels.to;
                    const int next = last && start + length == sites.to ? channel + weights.slice : channel;
                    if (next < weights.channels)
                        ahead = slice_of(weights, weights.panels[last ? panels.from : index + 1], next, integer);
                }
                const int lines = weights.taps * tile.channels * panel.filters() / 16;
                const int steps = weights.taps * ceil_div(tile.channels, kBlock);
                tile.ahead_lines = ahead ? ceil_div(lines, tiles * steps) : 0;
                for (int i = 0; i < tiles; i++) {
                    tile.ahead = ahead ? ahead + int64_t{lines} * i / tiles * 64 : nullptr;
                    const int first = starts[i], count = starts[i + 1] - first;
                    tile.plane = inputs[i].plane;
                    tile.site = inputs[i].site;
                    taps[0] = inputs[i].first;
                    if (weights.taps > 1) inputs[i].point(taps, weights.taps);
                    for (int branch = 0; branch < weights.branches; branch++) {
                        Branch& b = result.branches[branch];
                        const int filter = panel.first_block * kBlock;
                        b.bias = integer ? static_cast<const void*>(&weights.integer_bias[branch][filter])
                                         : static_cast<const void*>(&weights.bias[branch][filter]);
                        b.multipliers =
                            weights.multipliers[branch].empty() ? nullptr : &weights.multipliers[branch][filter];
                        const size_t plane = weights.first_blocks[branch] + panel.first_block;
                        b.output =
                            output.base + (plane * output.plane +
                                           static_cast<size_t>(output.positions ? 0 : first - output.first) * kBlock) *
                                              out_element;
                        // A residual lies like the part of the output it is added to, but from its own first block on.
                        const size_t other = plane - weights.first_blocks[0];
                        b.residual =
                            op.second < 0
                                ? nullptr
                                : residual.base + (other * residual.plane +
                                                   static_cast<size_t>(residual.positions ? 0 : first) * kBlock) *
                                                      out_element;
                    }
                    result.positions = output.positions ? output.positions + first : nullptr;
                    result.residual_positions = residual.positions ? residual.positions + first : nullptr;
                    if (!first_slice) {
                        static constexpr float kNoBias[kMaxPanel * kBlock] = {};
                        result.branches[0].bias = kNoBias;
                        result.branches[0].residual = result.branches[0].output;
                        result.residual_positions = result.positions;
                    }
                    const bool strided = tile.site != kBlock;
                    if constexpr (integer)
                        (float_result ? kernels_.conv_u8_f32
                         : strided    ? kernels_.conv_u8_strided
                                      : kernels_.conv_u8)[panel.blocks][count](tile);
                    else if (panel.halved)
                        (strided ? kernels_.conv_f32_half_strided : kernels_.conv_f32_half)[count](tile);
                    else
                        (strided ? kernels_.conv_f32_strided : kernels_.conv_f32)[panel.blocks][count](tile);
                }
            }
        }
    }
}

// What a tile of sites reads: where it lies, if the sites lie side by side under every tap, else a copy of it in `free`,
// which moves on: [taps][blocks][count][16].
template <class T>
Engine::TileInput<T> Engine::find_input(const Operation& op, const WeightPlan& weights, int channel, const Map& input,
                                        int ring_rows, int first, int count, T*& free) const {
    const Layout& layout = plan_.layouts[op.input];
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const bool side_by_side = layout.packed || layout.given;  // are the channels of a site
    const size_t plane = side_by_side ? kBlock : input.plane;
    const T* base = reinterpret_cast<const T*>(input.base) + channel / kBlock * plane;
    if (is_pointwise(op) && !side_by_side && !input.positions)
        return {base + static_cast<ptrdiff_t>(first - input.first) * kBlock, plane, kBlock, 0, 0, 1};

    const int site = side_by_side ? plan_.program.tensors[op.input].channels : kBlock;  // elements to a site
    const int border = layout.given ? 0 : in.border;
    const ptrdiff_t line = static_cast<ptrdiff_t>(in.columns + 2 * border) * site;
    const auto line_at = [&](int row) { return (ring_rows ? row % ring_rows : row) * line; };
    const auto row_of = [&](int y) { return y * op.stride - op.pad_top + border; };  // of the first tap
    const auto column_of = [&](int x) { return ptrdiff_t{x * op.stride - op.pad_left + border} * site; };

    const int32_t* places = &out.framed[first];
    int y = places[0] / out.frame_columns() - out.border, x = places[0] % out.frame_columns() - out.border;
    const int step = site * op.stride;
    const bool together = places[count - 1] - places[0] == count - 1 && x + count <= out.columns;
    // Not everything has strided kernels; and what the caller gives may be too far apart for a cache to keep.
    const bool strided = sizeof(T) == 4 || (kernels_.conv_u8_strided[1][1] && plan_.layouts[op.output].element == 1);
    if (together && !layout.given && (strided || step == kBlock)) {
        TileInput<T> there{base + line_at(row_of(y)) + column_of(x), plane, static_cast<size_t>(step), line, site,
                           layout.packed ? 1 : op.kernel_columns};
        if (ring_rows) {
            there.wrap = ring_rows - row_of(y) % ring_rows;
            there.ring = ring_rows * line;
        }
        return there;
    }

    int rows[kMaxTile];         // of each site's first tap
    ptrdiff_t sites[kMaxTile];  // where it lies
    for (int i = 0; i < count; i++, x++) {
        if (i && (places[i] != places[i - 1] + 1 || x == out.columns)) {
            y = places[i] / out.frame_columns() - out.border;
            x = places[i] % out.frame_columns() - out.border;
        }
        rows[i] = row_of(y);
        sites[i] = line_at(rows[i]) + column_of(x);
    }

    const int blocks = ceil_div(std::min(weights.slice, weights.channels - channel), kBlock);
    const TileInput<T> copy{
        free,        static_cast<size_t>(count) * kBlock, kBlock, 0, static_cast<ptrdiff_t>(blocks) * count * kBlock,
        weights.taps};
    T* to = free;
    for (int row = 0; row < op.kernel_rows; row++) {
        if (row && ring_rows)
            for (int i = 0; i < count; i++) sites[i] += line_at(rows[i] + row) - line_at(rows[i] + row - 1);
        const T* taps = base + (ring_rows ? 0 : row * line);
        for (int tap = 0; tap < (layout.packed ? 1 : op.kernel_columns); tap++, taps += site) {
            const T* from = taps;
            for (int block = 0; block < blocks; block++, from += plane)
                for (int i = 0; i < count; i++, to += kBlock) std::memcpy(to, from + sites[i], kBlock * sizeof(T));
        }
    }
    free = to;
    return copy;
}

void Engine::filter(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows, const Map& output,
                    Span rows, Span blocks) const {
    if (plan_.layouts[op.input].element == 4)
        filter_rows<float>(op, weights, input, ring_rows, output, rows, blocks);
    else
        filter_rows<uint8_t>(op, weights, input, ring_rows, output, rows, blocks);
}

// Some output rows and blocks of channels of a depthwise convolution whose input is framed, or a ring of framed rows.
template <class T>
void Engine::filter_rows(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows,
                         const Map& output, Span out_rows, Span blocks) const {
    constexpr bool integer = sizeof(T) == 1;
    using Kernel = std::conditional_t<integer, DepthwiseRunU8, DepthwiseRunF32>;
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const size_t out_element = plan_.layouts[op.output].element;
    const T* rows[16];
    Kernel kernel{};
    kernel.rows = rows;
    kernel.kernel_rows = op.kernel_rows;
    kernel.kernel_columns = op.kernel_columns;
    kernel.stride = op.stride;
    kernel.to.branch_count = 1;
    kernel.to.low = op.low;
    kernel.to.high = op.high;
    kernel.to.zero_point = plan_.program.tensors[op.output].zero_point;
    kernel.to.bounded = weights.bounded;
    for (int index = blocks.from; index < blocks.to; index++) {
        const Panel& panel = weights.panels[index];
        const T* plane = reinterpret_cast<const T*>(input.base) + panel.first_block * input.plane;
        Branch& branch = kernel.to.branches[0];
        const int channel = panel.first_block * kBlock;
        if constexpr (integer) {
            kernel.weights = weights.weights.data() + panel.weights;
            branch.bias = &weights.integer_bias[0][channel];
            branch.multipliers = &weights.multipliers[0][channel];
        } else {
            kernel.weights = reinterpret_cast<const float*>(weights.weights.data() + panel.weights);
            branch.bias = &weights.bias[0][channel];
        }
        uint8_t* result = output.base + (weights.first_blocks[0] + panel.first_block) * output.plane * out_element;
        for (int r = out.row_runs[out_rows.from]; r < out.row_runs[out_rows.to]; r++) {
            const Run& run = out.runs[r];
            for (int y = 0; y < op.kernel_rows; y++) {
                const int row = run.row * op.stride - op.pad_top + y + in.border;
                const ptrdiff_t at = static_cast<ptrdiff_t>(ring_rows ? row % ring_rows : row) * in.frame_columns() +
                                     run.column * op.stride - op.pad_left + in.border;
                rows[y] = plane + at * kBlock;
            }
            branch.output = result + output.place(run.first) * kBlock * out_element;
            kernel.length = run.length;
            if constexpr (integer)
                (out_element == 4 ? kernels_.depthwise_u8_f32 : kernels_.depthwise_u8)(kernel);
            else
                kernels_.depthwise_f32(kernel);
        }
    }
}

// A thread's share of the zeros around the active sites of a whole map.
void Engine::surround_with_zeros(int tensor, const Map& map, int thread) const {
    const Sites& sites = sites_of(tensor);
    const Span rows = share(sites.rows + 2 * sites.border, thread, team_.size());
    zero_halo(tensor, map, rows, 0, all_blocks(tensor));
}

// Zeros around the active sites, where windows will look, in some framed rows and blocks of channels.
void Engine::zero_halo(int tensor, const Map& map, Span rows, int ring_rows, Span blocks) const {
    const Layout& layout = plan_.layouts[tensor];
    if (!layout.framed) return;
    const Sites& sites = sites_of(tensor);
    const uint8_t zero = layout.element == 1 ? zero_of(tensor) : 0;
    const size_t packed_bytes = plan_.program.tensors[tensor].channels * layout.element;
    const auto clear = [&](uint8_t* at, auto bytes) {
        at += blocks.from * map.plane * layout.element;
        for (int block = blocks.from; block < blocks.to; block++, at += map.plane * layout.element)
            std::memset(at, zero, bytes);
    };
    for (int row = rows.from; row < rows.to; row++) {
        const size_t line = static_cast<size_t>(ring_rows ? row % ring_rows : row) * sites.frame_columns();
        for (int i = sites.halo_first[row]; i < sites.halo_first[row + 1]; i++) {
            const size_t site = line + sites.halo_columns[i];
            // Constant sizes become one or two instructions each, of which there are thousands a frame.
            if (layout.packed)
                std::memset(map.base + site * packed_bytes, zero, packed_bytes);
            else if (layout.element == 1)
                clear(map.base + site * kBlock, std::integral_constant<size_t, kBlock>{});
            else
                clear(map.base + site * kBlock * 4, std::integral_constant<size_t, kBlock * 4>{});
        }
    }
}

}  // namespace edgekit
