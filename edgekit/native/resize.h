// Gives a picture another size: what a camera's frame goes through before anything else does.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace edgekit {

// `from` [rows][columns][3] -> `to`, of `to_rows` x `to_columns` pixels whose rows are `to_stride` bytes apart. If it
// becomes larger along neither side, each result is the mean of what lies under it, pixels at the rim counting by the
// share that does; otherwise it is interpolated between the nearest pixels, whose centres lie half a pixel from the
// picture's edges. Rounded half up. Expects all sides >= 1. Throws std::bad_alloc.
void resize(const Kernels& kernels, const uint8_t* from, int rows, int columns, uint8_t* to, int to_rows,
            int to_columns, int64_t to_stride);

}  // namespace edgekit
