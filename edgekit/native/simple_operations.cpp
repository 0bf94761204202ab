// Everything of an Engine that is not a convolution: image, pools, upsampling, sums, conversions, outputs. Together they
// take a few per cent of a frame.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "engine.h"
#include "requantise.h"

namespace edgekit {

void Engine::read_image(const Operation& op, int thread) {
    const Layout& layout = plan_.layouts[op.output];
    const TensorShape& image = plan_.program.tensors[op.output];
    const Sites& sites = sites_of(op.output);
    const Map map = map_of(op.output);
    surround_with_zeros(op.output, map, thread);
    const int channels = image.channels;
    const Span rows = rows_of(sites, thread);
    for (int r = sites.row_runs[rows.from]; r < sites.row_runs[rows.to]; r++) {
        const Run& run = sites.runs[r];
        const size_t first = (static_cast<size_t>(run.row) * sites.columns + run.column) * channels;
        const size_t place = map.place(run.first);
        const uint8_t* pixels = job_.pixels ? job_.pixels + first : nullptr;
        const float* normalised = job_.normalised ? job_.normalised + first : nullptr;
        if (layout.packed) {
            read_pixels(pixels, normalised, run.length, channels, map.base + place * channels * layout.element,
                        layout.element);
            continue;
        }
        for (int i = 0; i < run.length; i++)
            for (int block = 0; block < layout.blocks; block++) {
                const int from = block * kBlock, count = std::min(kBlock, channels - from);
                uint8_t* to = map.base + (block * map.plane + (place + i) * kBlock) * layout.element;
                std::memset(to, 0, kBlock * layout.element);
                for (int c = 0; c < count; c++) {
                    const int at = i * channels + from + c;
                    read_value(pixels ? pixels + at : nullptr, normalised ? normalised + at : nullptr, from + c,
                               to + c * layout.element, layout.element);
                }
            }
    }
}

// One number of the image, normalised, and quantised where the map holds bytes.
inline void Engine::read_value(const uint8_t* pixel, const float* normalised, int channel, uint8_t* to,
                               size_t element) const {
    if (element == 4) {
        const float value = pixel ? lookup_[channel * 256 + *pixel] : *normalised;
        std::memcpy(to, &value, 4);
    } else {
        *to = pixel ? integer_lookup_[channel * 256 + *pixel] : quantise_image(*normalised);
    }
}

// Values of `count` pixels from a table [channels][256].
template <class T>
static void look_up(const uint8_t* pixels, int count, int channels, const T* table, T* to) {
    if (channels == 3) {
        const T *first = table, *second = table + 256, *third = table + 512;
        for (int i = 0; i < count; i++, pixels += 3, to += 3) {
            to[0] = first[pixels[0]];
            to[1] = second[pixels[1]];
            to[2] = third[pixels[2]];
        }
        return;
    }
    for (int i = 0; i < count; i++)
        for (int channel = 0; channel < channels; channel++) *to++ = table[channel * 256 + *pixels++];
}

void Engine::read_pixels(const uint8_t* pixels, const float* normalised, int count, int channels, uint8_t* to,
                         size_t element) const {
    if (normalised && element == 4) {
        std::memcpy(to, normalised, static_cast<size_t>(count) * channels * 4);
    } else if (normalised) {
        for (int i = 0; i < count * channels; i++) to[i] = quantise_image(normalised[i]);
    } else if (element == 4) {
        look_up(pixels, count, channels, lookup_.data(), reinterpret_cast<float*>(to));
    } else if (pixels_as_they_are_) {
        std::memcpy(to, pixels, static_cast<size_t>(count) * channels);
    } else {
        look_up(pixels, count, channels, integer_lookup_.data(), to);
    }
}

uint8_t Engine::quantise_image(float value) const {
    const TensorShape& image = plan_.program.tensors[plan_.program.operations[0].output];
    return quantised(value, image.scale, image.zero_point);
}

void Engine::pool(const Operation& op, int thread) {
    const Layout &from = plan_.layouts[op.input], &to = plan_.layouts[op.output];
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output);
    const TensorShape &source = plan_.program.tensors[op.input], &target = plan_.program.tensors[op.output];
    surround_with_zeros(op.output, output, thread);
    const bool largest = op.kind == Kind::max_pool;
    const int width = from.packed ? source.channels : kBlock, blocks = from.packed ? 1 : from.blocks;
    const int shift = to.packed ? 0 : to.physical[op.channel_offset] / kBlock;
    const int taps = op.kernel_rows * op.kernel_columns;
    const Span rows = rows_of(out, thread);
    if (from.packed && to.packed && source.channels == 3 && taps == 4 && op.kernel_rows == 2 && op.stride == 2)
        return halve_image(op, rows);
    for (int block = 0; block < blocks; block++)
        for (int r = out.row_runs[rows.from]; r < out.row_runs[rows.to]; r++) {
            const Run& run = out.runs[r];
            for (int i = 0; i < run.length; i++) {
                const int row = run.row * op.stride - op.pad_top, column = (run.column + i) * op.stride - op.pad_left;
                float best[kBlock];
                int sums[kBlock] = {};
                for (int c = 0; c < width; c++) best[c] = largest ? -INFINITY : 0.0f;
                for (int y = row; y < row + op.kernel_rows; y++)
                    for (int x = column; x < column + op.kernel_columns; x++) {
                        if (largest && (y < 0 || x < 0 || y >= in.rows || x >= in.columns)) continue;
                        const size_t at =
                            block * input.plane +
                            (static_cast<size_t>(y + in.border) * in.frame_columns() + x + in.border) * width;
                        for (int c = 0; c < width; c++) {
                            if (from.element == 1) {
                                const int value = input.base[at + c];
                                sums[c] += value;
                                best[c] = std::max(best[c], static_cast<float>(value));
                            } else {
                                const float value = reinterpret_cast<const float*>(input.base)[at + c];
                                best[c] = largest ? (value < best[c] ? best[c] : value) : best[c] + value;
                            }
                        }
                    }
                const size_t place = output.place(run.first + i);
                const size_t at = (shift + block) * output.plane + place * width;
                for (int c = 0; c < width; c++) {
                    if (to.element == 4) {
                        reinterpret_cast<float*>(output.base)[at + c] = largest ? best[c] : best[c] * op.first_scale;
                    } else if (largest) {
                        output.base[at + c] = static_cast<uint8_t>(best[c]);
                    } else {
                        const float mean = static_cast<float>(sums[c] - taps * source.zero_point) * op.first_scale;
                        output.base[at + c] = rounded(mean, 0.0f, 255.0f, target.zero_point);
                    }
                }
            }
        }
}

// The mean of 2x2 pixels of three channels, which every objectness network starts with: worth its own loop.
void Engine::halve_image(const Operation& op, Span rows) {
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output);
    const TensorShape &source = plan_.program.tensors[op.input], &target = plan_.program.tensors[op.output];
    const auto halve = [&](auto* base, auto* to, auto&& mean) {
        for (int r = out.row_runs[rows.from]; r < out.row_runs[rows.to]; r++) {
            const Run& run = out.runs[r];
            const size_t row =
                static_cast<size_t>(2 * run.row + in.border) * in.frame_columns() + 2 * run.column + in.border;
            const auto* upper = base + row * 3;
            const auto* lower = upper + static_cast<size_t>(in.frame_columns()) * 3;
            auto* result = to + static_cast<size_t>(output.positions[run.first]) * 3;
            for (int i = 0; i < run.length; i++, upper += 6, lower += 6, result += 3)
                for (int c = 0; c < 3; c++) result[c] = mean(upper[c] + upper[c + 3] + lower[c] + lower[c + 3]);
        }
    };
    if (plan_.layouts[op.input].element == 4) {
        halve(reinterpret_cast<const float*>(input.base), reinterpret_cast<float*>(output.base),
              [scale = op.first_scale](float sum) { return sum * scale; });
        return;
    }
    // Every sum there is, once.
    std::array<uint8_t, 1021> means;
    for (int sum = 0; sum < 1021; sum++) {
        const float mean = static_cast<float>(sum - 4 * source.zero_point) * op.first_scale;
        means[sum] = rounded(mean, 0.0f, 255.0f, target.zero_point);
    }
    halve(input.base, output.base, [&](int sum) { return means[sum]; });
}

void Engine::upsample(const Operation& op, int thread) {
    const Layout &from = plan_.layouts[op.input], &to = plan_.layouts[op.output];
    const Sites &in = sites_of(op.input), &out = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output);
    surround_with_zeros(op.output, output, thread);
    const int shift = to.physical[op.channel_offset] / kBlock;
    const size_t bytes = kBlock * from.element;
    const Span rows = rows_of(out, thread);
    for (int block = 0; block < from.blocks; block++)
        for (int r = out.row_runs[rows.from]; r < out.row_runs[rows.to]; r++) {
            const Run& run = out.runs[r];
            for (int i = 0; i < run.length; i++) {
                const size_t source = static_cast<size_t>(run.row / op.stride + in.border) * in.frame_columns() +
                                      (run.column + i) / op.stride + in.border;
                const size_t place = output.place(run.first + i);
                std::memcpy(output.base + ((shift + block) * output.plane + place * kBlock) * to.element,
                            input.base + (block * input.plane + source * kBlock) * from.element, bytes);
            }
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
    for (int block = 0; block < from.blocks; block++)
        for (int r = out.row_runs[rows.from]; r < out.row_runs[rows.to]; r++) {
            const Run& run = out.runs[r];
            for (int i = 0; i < run.length; i++) {
                const int row = run.row, column = run.column + i;
                float real[kBlock] = {};
                int whole[kBlock] = {};
                for (int y = (row + 1) % 2; y < 4; y += 2)
                    for (int x = (column + 1) % 2; x < 4; x += 2) {
                        const int above = (row + 1 - y) / 2, beside = (column + 1 - x) / 2;  // -1 is in the frame
                        const size_t at =
                            block * input.plane +
                            (static_cast<size_t>((row + 1 - y < 0 ? -1 : above) + in.border) * in.frame_columns() +
                             (column + 1 - x < 0 ? -1 : beside) + in.border) *
                                kBlock;
                        const int tap = y * 4 + x;
                        for (int c = 0; c < kBlock; c++)
                            if (from.element == 4)
                                real[c] += reinterpret_cast<const float*>(input.base)[at + c] *
                                           reinterpret_cast<const float*>(
                                               weights.weights.data())[(block * 16 + tap) * kBlock + c];
                            else
                                whole[c] += (input.base[at + c] - source.zero_point) *
                                            reinterpret_cast<const int8_t*>(
                                                weights.weights.data())[tap * width + block * kBlock + c];
                    }
                const size_t place = output.place(run.first + i);
                const size_t at = (shift + block) * output.plane + place * kBlock;
                for (int c = 0; c < kBlock; c++) {
                    const int k = block * kBlock + c;
                    const float value = from.element == 4 ? real[c] + weights.bias[0][k]
                                                          : static_cast<float>(whole[c] + weights.integer_bias[0][k]) *
                                                                weights.multipliers[0][k];
                    if (to.element == 4)
                        reinterpret_cast<float*>(output.base)[at + c] = clamped(value, op.low, op.high);
                    else
                        output.base[at + c] = rounded(value, op.low, op.high, target.zero_point);
                }
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
    float* output =
        job_.outputs[op.output] + static_cast<size_t>(op.row_offset) * plan_.program.outputs[op.output].columns;
    const Span rows = rows_of(sites, thread);
    for (int r = sites.row_runs[rows.from]; r < sites.row_runs[rows.to]; r++) {
        const Run& run = sites.runs[r];
        for (int i = 0; i < run.length; i++) {
            float* to = output + (static_cast<size_t>(run.row) * sites.columns + run.column + i) * tensor.channels;
            const size_t place = input.place(run.first + i) * kBlock;
            for (int c = 0; c < tensor.channels; c++) {
                const size_t at = layout.packed
                                      ? place / kBlock * tensor.channels + c
                                      : layout.physical[c] / kBlock * input.plane + place + layout.physical[c] % kBlock;
                to[c] = layout.element == 4 ? reinterpret_cast<const float*>(input.base)[at]
                                            : static_cast<float>(input.base[at] - tensor.zero_point) * tensor.scale;
            }
        }
    }
}

}  // namespace edgekit
