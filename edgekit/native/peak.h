// What the kernels reach with everything in the first level of cache: the ceiling that a network is held against.
#pragma once

#include "kernels.h"

namespace edgekit {

struct Peak {
    double float32, uint8;  // multiply-accumulates a second, one thread
};

Peak measure_peak(const Kernels& kernels, double seconds);

}  // namespace edgekit
