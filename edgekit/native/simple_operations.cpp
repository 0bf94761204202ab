// Everything of an Engine that is not a convolution, a pool or the image: upsampling, sums, conversions, outputs. Together
// they take a few per cent of a frame.
#include <cstring>

#include "engine.h"
#include "requantise.h"
#include "vectors.h"

namespace edgekit {

void Engine::upsample(const Operation& op, int thread) {
    const Layout &from = plan_.layouts[op.input], &to = plan_.layouts[op.output];
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output);
    surround_with_zeros(op.output, output, thread);
    const int shift = to.physical[op.channel_offset] / kBlock;
    const Span rows = rows_of(out, thread);
    for (int block = 0; block < from.blocks; block++)
        for (int r = out.row_runs[rows.from]; r < out.row_runs[rows.to]; r++) {
            const Run& run = out.runs[r];
            for (int i = 0; i < run.length; i++) {
                const size_t source = static_cast<size_t>(run.row / op.stride + in.border) * in.frame_columns() +
                                      (run.column + i) / op.stride + in.border;
                const size_t place = output.place(run.first + i);
                uint8_t* result = output.base + ((shift + block) * output.plane + place * kBlock) * to.element;
                const uint8_t* values = input.base + (block * input.plane + source * kBlock) * from.element;
                if (from.element == 4)  // a constant size becomes a few instructions
                    std::memcpy(result, values, kBlock * 4);
                else
                    std::memcpy(result, values, kBlock);
            }
        }
}

// One site of a block of channels: four taps of `weights` [4][4][16] and the input under them, `line` elements to a row.
static void deconvolve_site(const float* from, ptrdiff_t line, const float* weights, const float* bias, float low,
                            float high, float* to) {
    for (int part = 0; part < kBlock; part += 4) {
        Sixteen<float> sum = {};
#pragma GCC unroll 2
        for (int y = 0; y < 2; y++)
#pragma GCC unroll 2
            for (int x = 0; x < 2; x++)
                sum += load(from + part - y * line - x * kBlock) * load(weights + part + (y * 8 + x * 2) * kBlock);
        sum += load(bias + part);
        const Sixteen<float> lowest = low - Sixteen<float>{}, highest = high - Sixteen<float>{};
        sum = sum < lowest ? lowest : sum > highest ? highest : sum;
        std::memcpy(to + part, &sum, sizeof sum);
    }
}

// The same of bytes, whose weights are [4][4][width]: the sums alone. A product is within 16 bits.
static void sum_taps(const uint8_t* from, ptrdiff_t line, int zero_point, const int8_t* weights, int width,
                     int (&sums)[kBlock]) {
    using Bytes = uint8_t __attribute__((vector_size(8)));
    using Signed = int8_t __attribute__((vector_size(8)));
    using Products = int16_t __attribute__((vector_size(16)));
    using Sums = int32_t __attribute__((vector_size(32)));
    for (int part = 0; part < kBlock; part += 8) {
        Sums sum = {};
        for (int y = 0; y < 2; y++)
            for (int x = 0; x < 2; x++) {
                Bytes values;
                Signed factors;
                std::memcpy(&values, from + part - y * line - x * kBlock, sizeof values);
                std::memcpy(&factors, weights + part + (y * 8 + x * 2) * width, sizeof factors);
                const Products centred = __builtin_convertvector(values, Products) - static_cast<int16_t>(zero_point);
                sum += __builtin_convertvector(centred * __builtin_convertvector(factors, Products), Sums);
            }
        std::memcpy(&sums[part], &sum, sizeof sum);
    }
}

// Transposed 4x4 with stride 2 and padding 1: each output site has two rows and two columns of taps.
void Engine::deconvolve(const Operation& op, const WeightPlan& weights, int thread) {
    const Layout &from = plan_.layouts[op.input], &to = plan_.layouts[op.output];
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output);
    surround_with_zeros(op.output, output, thread);
    const int shift = to.physical[op.channel_offset] / kBlock, width = from.blocks * kBlock;
    const TensorShape &source = plan_.program.tensors[op.input], &target = plan_.program.tensors[op.output];
    const Span rows = rows_of(out, thread);
    const ptrdiff_t line = static_cast<ptrdiff_t>(in.frame_columns()) * kBlock;
    const float low = op.low, high = op.high;
    const int zero_point = target.zero_point;
    for (int block = 0; block < from.blocks; block++)
        for (int r = out.row_runs[rows.from]; r < out.row_runs[rows.to]; r++) {
            const Run& run = out.runs[r];
            for (int i = 0; i < run.length; i++) {
                const int row = run.row + 1, column = run.column + i + 1;
                // The first of two rows and columns of taps, and the input under it; the others lie two taps further on,
                // and one site of the input before it, which may be in the frame.
                const int tap = row % 2 * 4 + column % 2, first = block * kBlock;
                const size_t from_at = block * input.plane + (row / 2 + in.border) * line +
                                       static_cast<size_t>(column / 2 + in.border) * kBlock;
                const size_t at = (shift + block) * output.plane + output.place(run.first + i) * kBlock;
                if (from.element == 4) {
                    const auto* factors = reinterpret_cast<const float*>(weights.weights.data());
                    deconvolve_site(reinterpret_cast<const float*>(input.base) + from_at, line,
                                    factors + (block * 16 + tap) * kBlock, &weights.bias[0][first], op.low, op.high,
                                    reinterpret_cast<float*>(output.base) + at);
                    continue;
                }
                int sums[kBlock];
                const auto* factors = reinterpret_cast<const int8_t*>(weights.weights.data());
                sum_taps(input.base + from_at, line, source.zero_point, factors + tap * width + first, width, sums);
                float values[kBlock];
                for (int c = 0; c < kBlock; c++)
                    values[c] = static_cast<float>(sums[c] + weights.integer_bias[0][first + c]) *
                                weights.multipliers[0][first + c];
                if (to.element == 4)
                    for (int c = 0; c < kBlock; c++)
                        reinterpret_cast<float*>(output.base)[at + c] = clamped(values[c], low, high);
                else
                    for (int c = 0; c < kBlock; c++) output.base[at + c] = rounded(values[c], low, high, zero_point);
            }
        }
}

void Engine::pointwise(const Operation& op, int thread) {
    const Layout &from = plan_.layouts[op.input], &to = plan_.layouts[op.output];
    const Sites& sites = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output),
              other = map_of(op.second >= 0 ? op.second : op.input);
    surround_with_zeros(op.output, output, thread);
    const TensorShape &a = plan_.program.tensors[op.input], &o = plan_.program.tensors[op.output];
    const int zero_b = op.second >= 0 ? plan_.program.tensors[op.second].zero_point : 0;
    const int shift = to.physical[op.channel_offset] / kBlock;
    const Span part = share(sites.count(), thread, team_.size());
    for (int block = 0; block < from.blocks; block++)
        for (int p = part.from; p < part.to; p++) {
            const auto at = [&](const Map& map, int plane) { return plane * map.plane + map.place(p) * kBlock; };
            const size_t x = at(input, block), y = at(other, block), z = at(output, shift + block);
            const auto* real = reinterpret_cast<const float*>(input.base) + x;
            auto* result = reinterpret_cast<float*>(output.base) + z;
            for (int c = 0; c < kBlock; c++) {
                if (op.kind == Kind::quantise) {
                    output.base[z + c] = quantised(real[c], o.scale, o.zero_point);
                } else if (op.kind == Kind::dequantise) {
                    result[c] = static_cast<float>(input.base[x + c] - a.zero_point) * a.scale;
                } else if (from.element == 4) {
                    result[c] = clamped(real[c] + reinterpret_cast<const float*>(other.base)[y + c], op.low, op.high);
                } else {
                    const float sum = static_cast<float>(input.base[x + c] - a.zero_point) * op.first_scale +
                                      static_cast<float>(other.base[y + c] - zero_b) * op.second_scale;
                    output.base[z + c] = rounded(sum, op.low, op.high, o.zero_point);
                }
            }
        }
}

void Engine::repack(const Operation& op, int thread) {
    const Layout &from = plan_.layouts[op.input], &to = plan_.layouts[op.output];
    const Map input = map_of(op.input), output = map_of(op.output);
    surround_with_zeros(op.output, output, thread);
    const Span part = share(sites_of(op.output).count(), thread, team_.size());
    for (int p = part.from; p < part.to; p++) {
        const auto at = [&](const Map& map, int channel) {
            return channel / kBlock * map.plane + map.place(p) * kBlock + channel % kBlock;
        };
        for (int block = 0; block < to.blocks; block++)
            std::memset(output.base + at(output, block * kBlock) * to.element, 0, kBlock * to.element);
        for (int c = 0; c < op.written; c++)
            std::memcpy(output.base + at(output, to.physical[c]) * to.element,
                        input.base + at(input, from.physical[c]) * to.element, to.element);
    }
}

void Engine::write_output(const Operation& op, int thread) {
    const Layout& layout = plan_.layouts[op.input];
    const Sites& sites = sites_of(op.input);
    const Map input = map_of(op.input);
    const TensorShape& tensor = plan_.program.tensors[op.input];
    const int zero_point = tensor.zero_point;
    const float scale = tensor.scale;
    float* output =
        job_.outputs[op.output] + static_cast<size_t>(op.row_offset) * plan_.program.outputs[op.output].columns;
    const Span rows = rows_of(sites, thread);
    for (int r = sites.row_runs[rows.from]; r < sites.row_runs[rows.to]; r++) {
        const Run& run = sites.runs[r];
        for (int i = 0; i < run.length; i++) {
            float* to = output + (static_cast<size_t>(run.row) * sites.columns + run.column + i) * tensor.channels;
            const size_t place = input.place(run.first + i) * kBlock;
            for (int c = 0; c < tensor.channels;) {
                const int physical = layout.packed ? c : layout.physical[c];
                const size_t at = layout.packed ? place / kBlock * tensor.channels + c
                                                : physical / kBlock * input.plane + place + physical % kBlock;
                if (!layout.packed && physical % kBlock == 0 && c + kBlock <= tensor.channels &&
                    layout.physical[c + kBlock - 1] == physical + kBlock - 1) {  // a whole block
                    if (layout.element == 4)
                        std::memcpy(to + c, reinterpret_cast<const float*>(input.base) + at, kBlock * 4);
                    else
                        for (int k = 0; k < kBlock; k++)
                            to[c + k] = static_cast<float>(input.base[at + k] - zero_point) * scale;
                    c += kBlock;
                    continue;
                }
                to[c++] = layout.element == 4 ? reinterpret_cast<const float*>(input.base)[at]
                                              : static_cast<float>(input.base[at] - zero_point) * scale;
            }
        }
    }
}

}  // namespace edgekit
