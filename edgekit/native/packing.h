// Convolution weights in the order in which the kernels of most instruction sets read them.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace edgekit {

// `pack_conv_u8` of Kernels: [taps][channels / Group][16 * blocks][Group], zeros where there is no channel or filter.
// Static, as what is in requantise.h.
template <class Weight, int Group>
static size_t pack_conv_groups(const int8_t* weights, int filters, int taps, int channels, int first, int blocks,
                               void* to) {
    const int width = blocks * kBlock, padded = (channels + Group - 1) / Group * Group;
    if (to) {
        auto* packed = static_cast<Weight*>(to);
        for (int tap = 0; tap < taps; tap++)
            for (int start = 0; start < padded; start += Group)
                for (int n = 0; n < width; n++)
                    for (int c = start; c < start + Group; c++)
                        *packed++ = first + n < filters && c < channels
                                        ? weights[(static_cast<size_t>(first + n) * taps + tap) * channels + c]
                                        : 0;
    }
    return static_cast<size_t>(taps) * padded * width * sizeof(Weight);
}

// The panel of conv_f32_half, from `weights` [filters][depth]: filters first..first + 23, zeros where there is none. A
// depth that is no multiple of `channels` (Kernels::half_channels) ends in zeros.
static inline void pack_conv_half(const float* weights, int filters, size_t depth, int first, int channels, float* to) {
    const auto weight = [&](int filter, size_t i) {
        return filter < filters && i < depth ? weights[filter * depth + i] : 0.0f;
    };
    for (size_t i = 0; i < depth; i += channels)
        for (int n = first; n < first + kHalvedBlock; n++)
            for (int more = 0; more < channels; more++) *to++ = weight(n, i + more);
}

}  // namespace edgekit
