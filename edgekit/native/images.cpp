// How an image gets into an Engine: pixels or floats, normalised, quantised where its map holds bytes.
#include <algorithm>
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
    if (layout.given && job_.normalised) return;
    if (layout.packed || layout.given) {
        for (int r = sites.row_runs[rows.from]; r < sites.row_runs[rows.to]; r++) {
            const Run& run = sites.runs[r];
            const size_t first = (static_cast<size_t>(run.row) * sites.columns + run.column) * channels;
            read_pixels(job_.pixels ? job_.pixels + first : nullptr,
                        job_.normalised ? job_.normalised + first : nullptr, run.length, channels,
                        map.base + (layout.given ? first : map.place(run.first) * channels) * layout.element,
                        layout.element);
        }
        return;
    }
    // A few blocks of all sites at a time: of thousands of planes, few are written to in turn.
    constexpr int kTogether = 8 * kBlock;
    for (int start = 0; start < channels; start += kTogether) {
        const int count = std::min(kTogether, channels - start), blocks = ceil_div(count, kBlock);
        uint8_t values[kTogether * 4] = {};
        uint8_t* planes = map.base + start / kBlock * map.plane * layout.element;
        for (int r = sites.row_runs[rows.from]; r < sites.row_runs[rows.to]; r++) {
            const Run& run = sites.runs[r];
            const size_t first = (static_cast<size_t>(run.row) * sites.columns + run.column) * channels + start;
            for (int i = 0; i < run.length; i++) {
                const size_t at = first + static_cast<size_t>(i) * channels;
                if (job_.normalised)
                    read_floats(job_.normalised + at, count, values, layout.element);
                else
                    for (int c = 0; c < count; c++)
                        read_pixel(job_.pixels[at + c], start + c, values + c * layout.element, layout.element);
                const size_t place = (map.place(run.first) + i) * kBlock;
                for (int block = 0; block < blocks; block++) {  // constant sizes are a few instructions
                    uint8_t* to = planes + (block * map.plane + place) * layout.element;
                    if (layout.element == 4)
                        std::memcpy(to, values + block * kBlock * 4, kBlock * 4);
                    else
                        std::memcpy(to, values + block * kBlock, kBlock);
                }
            }
        }
    }
}

// One number of the image, normalised, and quantised where the map holds bytes.
inline void Engine::read_pixel(uint8_t pixel, int channel, uint8_t* to, size_t element) const {
    if (element == 4)
        std::memcpy(to, &lookup_[channel * 256 + pixel], 4);
    else
        *to = integer_lookup_[channel * 256 + pixel];
}

// Numbers that are normalised.
inline void Engine::read_floats(const float* normalised, int count, uint8_t* to, size_t element) const {
    const TensorShape& image = plan_.program.tensors[plan_.program.operations[0].output];
    const float scale = image.scale;
    const int zero_point = image.zero_point;
    if (element == 4)
        std::memcpy(to, normalised, static_cast<size_t>(count) * 4);
    else
        for (int i = 0; i < count; i++) to[i] = quantised(normalised[i], scale, zero_point);
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
    if (normalised) {
        read_floats(normalised, count * channels, to, element);
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

}  // namespace edgekit
