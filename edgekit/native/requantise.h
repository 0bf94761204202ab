// From an int32 sum to a result, one channel at a time: what every vector version must equal, bit for bit.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels.h"

namespace edgekit {

// (sum + bias) * multiplier + residual; the products are rounded before they are added, so no fused multiply-add.
inline float scaled(int32_t sum, const Epilogue& to, const Branch& branch, int channel, const uint8_t* residual) {
    const float value =
        static_cast<float>(sum + static_cast<const int32_t*>(branch.bias)[channel]) * branch.multipliers[channel];
    if (!residual) return value;
    return value + static_cast<float>(*residual - to.residual_zero_point) * to.residual_scale;
}

// Clamping comes first, so that nothing is out of an integer's range; its bounds are integers, so the result is the same.
inline uint8_t rounded(float value, const Epilogue& to) {
    const float low = to.low - static_cast<float>(to.zero_point), high = to.high - static_cast<float>(to.zero_point);
    value = value < low ? low : value > high ? high : value;
    return static_cast<uint8_t>(static_cast<int>(std::nearbyintf(value)) + to.zero_point);
}

inline float clamped(float value, const Epilogue& to) { return value < to.low ? to.low : value > to.high ? to.high : value; }

}  // namespace edgekit
