// Convolutions of an Engine: tiles of sites handed to the kernels, and what their windows need.
#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>

#include "engine.h"

namespace edgekit {
namespace {

constexpr int kNearCache = 24 << 10, kFarCache = 512 << 10;  // bytes for the input of a block of sites
constexpr size_t kCachedWeights = 1 << 20;                   // bytes of a convolution that the second level keeps
constexpr int kSlice = 512;                                  // channels

}  // namespace

void Engine::convolve(const Operation& op, const WeightPlan& weights, const Map& input, const Map& output, int from,
                      int to, int first_panel, int last_panel, uint8_t* gather) const {
    if (from >= to || first_panel >= last_panel) return;
    if (plan_.layouts[op.input].element == 4)
        convolve_as<float>(op, weights, input, output, from, to, first_panel, last_panel, gather);
    else
        convolve_as<uint8_t>(op, weights, input, output, from, to, first_panel, last_panel, gather);
}

// Sites from..to - 1 of a convolution, as numbered among the active sites of its output.
template <class T>
void Engine::convolve_as(const Operation& op, const WeightPlan& weights, const Map& input, const Map& output, int from,
                         int to, int first_panel, int last_panel, uint8_t* scratch) const {
    constexpr bool integer = sizeof(T) == 1;
    using Tile = std::conditional_t<integer, ConvTileU8, ConvTileF32>;
    const bool float_result = plan_.layouts[op.output].element == 4;
    const int* tiles = integer ? kernels_.tile_u8 : kernels_.tile_f32;
    const bool pointwise =
        op.kernel_rows == 1 && op.kernel_columns == 1 && op.stride == 1 && !plan_.layouts[op.input].packed;
    const Map residual = op.second >= 0 ? map_of(op.second) : Map{};
    const size_t out_element = plan_.layouts[op.output].element;

    const T* taps[256];
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

    // A block of sites whose input stays in the first level of cache while all panels pass by; in the second one where
    // the weights are too many to stay there themselves, so that each is fetched once for many sites.
    int most = kMaxTile;
    for (int index = first_panel; index < last_panel; index++)
        most = std::min(most, tiles[weights.panels[index].blocks]);
    const int cache = weights.weights.bytes() > kCachedWeights ? kFarCache : kNearCache;
    // Deep float convolutions take a slice of the channels at a time: it adds to what those before it left in the output.
    const bool sliced = !integer && pointwise && !input.positions && weights.branches == 1 &&
                        weights.multipliers[0].empty() && weights.channels > 2 * kSlice;
    const int slice = sliced ? kSlice : weights.channels;
    const int depth = weights.taps * slice * static_cast<int>(sizeof(T));
    const int block = pointwise ? std::max(most, cache / depth / most * most) : most;
    for (int channel = 0; channel < weights.channels; channel += slice) {
        const bool first_slice = channel == 0, last_slice = channel + slice >= weights.channels;
        tile.channels = std::min(slice, weights.channels - channel);
        result.low = last_slice ? op.low : -std::numeric_limits<float>::infinity();
        result.high = last_slice ? op.high : std::numeric_limits<float>::infinity();
        result.residual_plane = first_slice ? residual.plane : output.plane;
        for (int start = from; start < to; start += block) {
            const int stop = std::min(to, start + block);
            if (!pointwise) {
                gather<T>(op, weights, input, start, stop - start, reinterpret_cast<T*>(scratch));
                const size_t step = static_cast<size_t>(ceil_div(weights.channels, kBlock)) * (stop - start) * kBlock;
                for (int tap = 0; tap < weights.taps; tap++) taps[tap] = reinterpret_cast<T*>(scratch) + tap * step;
                tile.plane = static_cast<size_t>(stop - start) * kBlock;
            }
            for (int index = first_panel; index < last_panel; index++) {
                const Panel& panel = weights.panels[index];
                const int limit = tiles[panel.blocks];
                if constexpr (integer)
                    tile.weights = weights.weights.data() + panel.weights;
                else
                    tile.weights = reinterpret_cast<const float*>(weights.weights.data() + panel.weights) +
                                   static_cast<size_t>(channel) * kBlock * panel.blocks;
                const int pieces = ceil_div(stop - start, limit);  // 1 where a tile was gathered
                for (int piece = 0; piece < pieces; piece++) {
                    // Tiles of nearly equal size: the last would else be too small to keep the processor busy.
                    const Span span = share(stop - start, piece, pieces);
                    const int first = start + span.from, count = span.to - span.from;
                    if (pointwise) {
                        const int32_t* places = input.positions ? input.positions + first : nullptr;
                        if (!places || places[count - 1] - places[0] == count - 1) {
                            taps[0] = reinterpret_cast<const T*>(input.base) +
                                      static_cast<ptrdiff_t>(places ? places[0] : first - input.first) * kBlock +
                                      channel / kBlock * input.plane;
                            tile.plane = input.plane;
                        } else {
                            gather<T>(op, weights, input, first, count, reinterpret_cast<T*>(scratch));
                            taps[0] = reinterpret_cast<const T*>(scratch);
                            tile.plane = static_cast<size_t>(count) * kBlock;
                        }
                    }
                    for (int branch = 0; branch < weights.branches; branch++) {
                        Branch& b = result.branches[branch];
                        const int channel = panel.first_block * kBlock;
                        b.bias = integer ? static_cast<const void*>(&weights.integer_bias[branch][channel])
                                         : static_cast<const void*>(&weights.bias[branch][channel]);
                        b.multipliers =
                            weights.multipliers[branch].empty() ? nullptr : &weights.multipliers[branch][channel];
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
                    if constexpr (integer)
                        (float_result ? kernels_.conv_u8_f32 : kernels_.conv_u8)[panel.blocks][count](tile);
                    else
                        kernels_.conv_f32[panel.blocks][count](tile);
                }
            }
        }
    }
}

// Copy what `count` output sites read: [taps][blocks][count][16].
template <class T>
void Engine::gather(const Operation& op, const WeightPlan& weights, const Map& input, int first, int count,
                    T* to) const {
    const Layout& layout = plan_.layouts[op.input];
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const int blocks = ceil_div(weights.channels, kBlock);
    const int site = layout.packed ? plan_.program.tensors[op.input].channels : kBlock;  // elements to a site
    ptrdiff_t starts[kMaxTile];  // of each site's window
    for (int i = 0, row = 0, column = 0; i < count; i++) {
        const int place = out.framed[first + i];
        if (i && place == out.framed[first + i - 1] + 1 && column + 1 < out.columns) {
            column++;
        } else {
            row = place / out.frame_columns() - out.border;
            column = place % out.frame_columns() - out.border;
        }
        const ptrdiff_t y = row * op.stride - op.pad_top + in.border, x = column * op.stride - op.pad_left + in.border;
        starts[i] = (y * in.frame_columns() + x) * site;
    }
    const size_t plane = layout.packed ? kBlock : input.plane;
    for (int tap = 0; tap < weights.taps; tap++) {
        const int y = layout.packed ? tap : tap / op.kernel_columns, x = layout.packed ? 0 : tap % op.kernel_columns;
        const T* from =
            reinterpret_cast<const T*>(input.base) + (static_cast<ptrdiff_t>(y) * in.frame_columns() + x) * site;
        for (int block = 0; block < blocks; block++, from += plane)
            for (int i = 0; i < count; i++, to += kBlock) std::memcpy(to, from + starts[i], kBlock * sizeof(T));
    }
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
