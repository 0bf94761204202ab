// Makes a picture smaller by averaging areas: what a camera's frame goes through before anything else does.
#pragma once

#include <cstdint>

#include "kernels.h"

namespace edgekit {

// `from` [rows][columns][3] -> `to`, of `to_rows` x `to_columns` pixels whose rows are `to_stride` bytes apart. Each
// result is the mean of what lies under it, pixels at the rim counting by the share that does, rounded half up.
// Expects 1 <= to_rows <= rows and 1 <= to_columns <= columns. Throws std::bad_alloc.
void shrink(const Kernels& kernels, const uint8_t* from, int rows, int columns, uint8_t* to, int to_rows, int to_columns,
            int64_t to_stride);

}  // namespace edgekit
