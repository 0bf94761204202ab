// Weights as the kernels read them: panels of filters, channels where the input's layout has them.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "packing.h"
#include "plan.h"

namespace edgekit {
namespace {

constexpr int kNearCache = 24 << 10, kFarCache = 512 << 10;  // bytes for the input of a block of sites
constexpr int kSlice = 512;                                  // channels

class Packer {
  public:
    Packer(const Program& program, const std::vector<Layout>& layouts, const Kernels& kernels)
        : program_(program), layouts_(layouts), kernels_(kernels) {}

    WeightPlan pack(const Operation& op) {
        WeightPlan plan;
        if (op.kind == Kind::conv) plan = pack_conv(op);
        if (op.kind == Kind::depthwise || op.kind == Kind::deconv) plan = pack_depthwise(op);
        plan.bounded = bounded(op, plan);
        return plan;
    }

  private:
    // A sum is less than 2^31, so a quarter of it and what may be added are less than 2^30. Real multipliers are far smaller.
    static bool bounded(const Operation& op, const WeightPlan& plan) {
        const auto small = [](float multiplier) { return std::abs(multiplier) <= 0.25f; };
        for (const auto& multipliers : plan.multipliers)
            if (!std::all_of(multipliers.begin(), multipliers.end(), small)) return false;
        return op.second < 0 || std::abs(op.second_scale) <= 1048576.0f;
    }

    const TensorShape& tensor(int index) { return program_.tensors[index]; }

    WeightPlan pack_conv(const Operation& op) {
        WeightPlan plan;
        const Layout& input = layouts_[op.input];
        const bool quantised = tensor(op.input).type == Type::uint8;
        const int channels = tensor(op.input).channels, taps = op.kernel_rows * op.kernel_columns;
        // A packed image's row of taps is one tap with all its channels side by side.
        plan.taps = input.packed ? op.kernel_rows : taps;
        const int used = input.packed ? op.kernel_columns * channels
                                      : *std::max_element(input.physical.begin(), input.physical.end()) + 1;
        plan.channels = quantised ? ceil_div(used, 4) * 4 : used;
        plan.branches = op.crelu ? 2 : 1;
        const auto& place = layouts_[op.output].physical;
        // Not a loop: GCC 12 at -O3 makes one that reads in front of the vector.
        plan.first_blocks[0] = place[op.channel_offset] / kBlock;
        if (op.crelu) plan.first_blocks[1] = place[op.channel_offset + op.filters] / kBlock;
        split(plan, ceil_div(op.filters, kBlock), quantised ? kernels_.panel_u8 : kernels_.panel_f32,
              ends_in_half_block(program_, layouts_, op, kernels_));
        if (quantised)
            pack_integers(op, plan, channels, input);
        else
            pack_floats(op, plan, channels, input);
        divide(op, plan, input);
        return plan;
    }

    // How many sites pass by together. Their input should stay in the first level of cache while all panels pass; in the
    // second one where the weights are too many to stay there themselves, so that each is fetched once for many sites.
    void divide(const Operation& op, WeightPlan& plan, const Layout& input) {
        const bool quantised = input.element == 1;
        plan.tile = kMaxTile;
        for (const Panel& panel : plan.panels)
            plan.tile = std::min(plan.tile, panel.halved ? kernels_.tile_f32_half
                                                         : (quantised ? kernels_.tile_u8 : kernels_.tile_f32)[panel.blocks]);
        const bool pointwise = is_pointwise(op) && !input.packed;
        // Deep float convolutions take a slice of the channels at a time.
        const bool sliced = !quantised && pointwise && !input.framed && plan.branches == 1 &&
                            plan.multipliers[0].empty() && plan.channels > 2 * kSlice;
        plan.slice = sliced ? kSlice : plan.channels;
        const int cache = plan.weights.bytes() > kCachedWeights ? kFarCache : kNearCache;
        const int depth = plan.taps * plan.slice * static_cast<int>(input.element);
        plan.block = std::clamp(cache / depth / plan.tile, 1, kMaxTiles) * plan.tile;
    }

    // Panels of equal width, or nearly, and one of a block and a half at the end.
    static void split(WeightPlan& plan, int blocks, int most, bool halved) {
        const int whole = halved ? blocks - 2 : blocks, panels = ceil_div(whole, most);
        for (int i = 0, first = 0; i < panels; i++) {
            const int width = (whole - first) / (panels - i);
            plan.panels.push_back({first, width, 0});
            first += width;
        }
        if (halved) plan.panels.push_back({whole, 2, 0, true});
    }

    // Where weight [tap][channel] of the file belongs in [plan.taps][plan.channels].
    static size_t place_of(const WeightPlan& plan, const Layout& input, const Operation& op, int tap, int channel,
                           int channels) {
        if (!input.packed) return static_cast<size_t>(tap) * plan.channels + input.physical[channel];
        return static_cast<size_t>(tap / op.kernel_columns) * plan.channels + tap % op.kernel_columns * channels +
               channel;
    }

    template <class T>
    std::vector<T> placed(const Operation& op, const WeightPlan& plan, int channels, const Layout& input) {
        const int taps = op.kernel_rows * op.kernel_columns;
        const size_t width = static_cast<size_t>(plan.taps) * plan.channels;
        const auto from = program_.constant<T>(op.weights, static_cast<size_t>(op.filters) * taps * channels);
        std::vector<T> weights(op.filters * width, T{0});
        for (int k = 0; k < op.filters; k++)
            for (int tap = 0; tap < taps; tap++)
                for (int c = 0; c < channels; c++)
                    weights[k * width + place_of(plan, input, op, tap, c, channels)] =
                        from[(static_cast<size_t>(k) * taps + tap) * channels + c];
        return weights;
    }

    void pack_floats(const Operation& op, WeightPlan& plan, int channels, const Layout& input) {
        auto weights = placed<float>(op, plan, channels, input);
        const size_t depth = static_cast<size_t>(plan.taps) * plan.channels;
        const int padded = ceil_div(op.filters, kBlock) * kBlock;
        for (int branch = 0; branch < plan.branches; branch++) {
            plan.bias[branch].assign(padded, 0.0f);
            const auto bias = program_.constant<float>(op.bias, op.written);
            std::copy_n(bias.begin() + branch * op.filters, op.filters, plan.bias[branch].begin());
            if (!program_.has(op.multipliers)) continue;
            const auto multipliers = program_.constant<float>(op.multipliers, op.written);
            if (op.crelu) {
                plan.multipliers[branch].assign(padded, 0.0f);
                std::copy_n(multipliers.begin() + branch * op.filters, op.filters, plan.multipliers[branch].begin());
            } else {
                for (int k = 0; k < op.filters; k++) {
                    plan.bias[0][k] *= multipliers[k];
                    for (size_t i = 0; i < depth; i++) weights[k * depth + i] *= multipliers[k];
                }
            }
        }
        size_t bytes = 0;
        for (Panel& panel : plan.panels) {
            panel.weights = bytes;
            bytes += depth * panel.filters() * sizeof(float);
        }
        plan.weights = Buffer(bytes);
        for (const Panel& panel : plan.panels) {
            auto* to = reinterpret_cast<float*>(plan.weights.data() + panel.weights);
            const int first = panel.first_block * kBlock;
            if (panel.halved) {
                pack_conv_half(weights.data(), op.filters, depth, first, kernels_.half_channels, to);
                continue;
            }
            for (size_t i = 0; i < depth; i++)
                for (int k = first; k < first + panel.filters(); k++)
                    *to++ = k < op.filters ? weights[k * depth + i] : 0.0f;
        }
    }

    void pack_integers(const Operation& op, WeightPlan& plan, int channels, const Layout& input) {
        const auto weights = placed<int8_t>(op, plan, channels, input);
        const size_t depth = static_cast<size_t>(plan.taps) * plan.channels;
        integer_epilogue(op, plan, op.filters, [&](int k) {
            int sum = 0;
            for (size_t i = 0; i < depth; i++) sum += weights[k * depth + i];
            return sum;
        });
        const auto pack = [&](const Panel& panel, void* to) {
            return kernels_.pack_conv_u8(weights.data(), op.filters, plan.taps, plan.channels,
                                         panel.first_block * kBlock, panel.blocks, to);
        };
        size_t bytes = 0;
        for (Panel& panel : plan.panels) {
            panel.weights = bytes;
            bytes += (pack(panel, nullptr) + 63) / 64 * 64;
        }
        plan.weights = Buffer(bytes);
        for (const Panel& panel : plan.panels) pack(panel, plan.weights.data() + panel.weights);
    }

    // sum((q - zero) w) = sum(q w) - zero sum(w): the second part joins the bias.
    template <class Sum>
    void integer_epilogue(const Operation& op, WeightPlan& plan, int filters, Sum sum_of_weights) {
        const auto bias = program_.constant<int32_t>(op.bias, op.written);
        const auto multipliers = program_.constant<float>(op.multipliers, op.written);
        const int zero = tensor(op.input).zero_point, padded = ceil_div(filters, kBlock) * kBlock;
        for (int branch = 0; branch < plan.branches; branch++) {
            plan.integer_bias[branch].assign(padded, 0);
            plan.multipliers[branch].assign(padded, 0.0f);
            for (int k = 0; k < filters; k++) {
                plan.integer_bias[branch][k] = bias[branch * filters + k] - zero * sum_of_weights(k);
                plan.multipliers[branch][k] = multipliers[branch * filters + k];
            }
        }
    }

    WeightPlan pack_depthwise(const Operation& op) {
        WeightPlan plan;
        const Layout& input = layouts_[op.input];
        const int channels = tensor(op.input).channels, taps = op.kernel_rows * op.kernel_columns;
        const int width = input.blocks * kBlock;
        plan.taps = taps;
        plan.channels = width;
        plan.first_blocks[0] = layouts_[op.output].physical[op.channel_offset] / kBlock;
        for (int block = 0; block < input.blocks; block++) plan.panels.push_back({block, 1, 0});
        if (tensor(op.input).type == Type::float32) {
            auto weights = spread<float>(op.weights, taps, channels, input);
            plan.bias[0] = spread<float>(op.bias, 1, channels, input);
            if (program_.has(op.multipliers)) {
                const auto multipliers = spread<float>(op.multipliers, 1, channels, input);
                for (int c = 0; c < width; c++) plan.bias[0][c] *= multipliers[c];
                for (int i = 0; i < taps * width; i++) weights[i] *= multipliers[i % width];
            }
            plan.weights = Buffer(weights.size() * sizeof(float));
            auto* to = reinterpret_cast<float*>(plan.weights.data());
            for (Panel& panel : plan.panels) {
                panel.weights = static_cast<size_t>(panel.first_block) * taps * kBlock * sizeof(float);
                for (int tap = 0; tap < taps; tap++)
                    for (int c = 0; c < kBlock; c++) *to++ = weights[tap * width + panel.first_block * kBlock + c];
            }
            return plan;
        }
        const auto weights = spread<int8_t>(op.weights, taps, channels, input);
        plan.integer_bias[0] = spread<int32_t>(op.bias, 1, channels, input);
        plan.multipliers[0] = spread<float>(op.multipliers, 1, channels, input);
        if (op.kind == Kind::deconv) {  // it has no kernel of its own: [taps][channels]
            plan.weights = Buffer(weights.size());
            std::memcpy(plan.weights.data(), weights.data(), weights.size());
            return plan;
        }
        for (int c = 0; c < width; c++)
            for (int tap = 0; tap < taps; tap++)
                plan.integer_bias[0][c] -= tensor(op.input).zero_point * weights[tap * width + c];
        size_t bytes = 0;
        for (Panel& panel : plan.panels) {
            panel.weights = bytes;
            bytes += kernels_.pack_depthwise_u8(weights.data(), taps, width, panel.first_block * kBlock, nullptr);
        }
        plan.weights = Buffer(bytes);
        for (const Panel& panel : plan.panels)
            kernels_.pack_depthwise_u8(weights.data(), taps, width, panel.first_block * kBlock,
                                       plan.weights.data() + panel.weights);
        return plan;
    }

    // [rows][channels] of the file -> [rows][blocks * 16] as the input map lies, zeros in the gaps.
    template <class T>
    std::vector<T> spread(size_t offset, int rows, int channels, const Layout& input) {
        const auto from = program_.constant<T>(offset, static_cast<size_t>(rows) * channels);
        const int width = input.blocks * kBlock;
        std::vector<T> to(static_cast<size_t>(rows) * width, T{0});
        for (int row = 0; row < rows; row++)
            for (int c = 0; c < channels; c++) to[row * width + input.physical[c]] = from[row * channels + c];
        return to;
    }

    const Program& program_;
    const std::vector<Layout>& layouts_;
    const Kernels& kernels_;
};

}  // namespace

bool ends_in_half_block(const Program& program, const std::vector<Layout>& layouts, const Operation& op,
                        const Kernels& kernels) {
    if (!kernels.conv_f32_half[1] || op.filters <= kBlock || (op.filters - 1) % kBlock >= kBlock / 2) return false;
    const TensorShape& input = program.tensors[op.input];
    if (input.type != Type::float32 || program.tensors[op.output].type != Type::float32) return false;
    if (input.channels <= 4) return false;  // perhaps an image, whose rows of taps are read as one
    const auto& place = layouts[op.input].physical;
    return (*std::max_element(place.begin(), place.end()) + 1) % kernels.half_channels == 0;
}

WeightPlan pack_weights(const Program& program, const std::vector<Layout>& layouts, const Operation& operation,
                        const Kernels& kernels) {
    return Packer(program, layouts, kernels).pack(operation);
}

}  // namespace edgekit
