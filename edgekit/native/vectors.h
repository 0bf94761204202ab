// Compiler vectors of 16 bytes, which every processor has, for what needs no kernels of its own.
#pragma once

#include <cstring>

namespace edgekit {

// A quarter of a block's floats, or all its bytes.
template <class T>
using Sixteen __attribute__((vector_size(16))) = T;

template <class T>
inline Sixteen<T> load(const T* from) {
    Sixteen<T> value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

}  // namespace edgekit
