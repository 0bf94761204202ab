// From an int32 sum to a result, one channel at a time: what every vector version must equal, bit for bit.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace edgekit {

// All of them are static: this header is compiled once for each instruction set, and the linker must not let a processor
// without AVX-512 run the copy that was made for it.

// (sum + bias) * multiplier + residual; the products are rounded before they are added, so no fused multiply-add.
static inline float scaled(int32_t sum, const Epilogue& to, const Branch& branch, int channel,
                           const uint8_t* residual) {
    const float value =
        static_cast<float>(sum + static_cast<const int32_t*>(branch.bias)[channel]) * branch.multipliers[channel];
    if (!residual) return value;
    return value + static_cast<float>(*residual - to.residual_zero_point) * to.residual_scale;
}

// The nearest integer to a number of less than 2^22, ties to even: those of such a sum's last bit. Unlike a call of the
// library, it is done for several numbers at once.
static inline int nearest(float value) {
    constexpr float kUnitsAreLast = 12582912.0f;  // 1.5 * 2^23
    return static_cast<int>((value + kUnitsAreLast) - kUnitsAreLast);
}

// Clamping comes first, so that nothing is out of an integer's range; its bounds are integers, so the result is the same.
static inline uint8_t rounded(float value, float low, float high, int zero_point) {
    low -= static_cast<float>(zero_point);
    high -= static_cast<float>(zero_point);
    value = value > low ? value : low;  // of a NaN, low
    value = value < high ? value : high;
    return static_cast<uint8_t>(nearest(value) + zero_point);
}

static inline uint8_t rounded(float value, const Epilogue& to) {
    return rounded(value, to.low, to.high, to.zero_point);
}

// A real number as uint8; a NaN, which no integer stands for, becomes 0.
static inline uint8_t quantised(float value, float scale, int zero_point) {
    return rounded(value * (1.0f / scale), 0.0f, 255.0f, zero_point);
}

static inline float clamped(float value, float low, float high) {
    value = value < low ? low : value;
    return value > high ? high : value;
}

static inline float clamped(float value, const Epilogue& to) { return clamped(value, to.low, to.high); }

}  // namespace edgekit
