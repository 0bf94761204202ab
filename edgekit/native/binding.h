// What the files of the Python module share: arrays in, arrays out.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>
#include <initializer_list>
#include <utility>
#include <vector>

#include "objects.h"

namespace edgekit {

namespace nb = nanobind;

using Rows = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Flags = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

// A numpy array that owns what was in `values`.
template <class T>
nb::object array_of(std::vector<T>&& values, std::initializer_list<size_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* memory) noexcept { delete static_cast<std::vector<T>*>(memory); });
    return nb::cast(nb::ndarray<nb::numpy, T>(kept->data(), shape.size(), shape.begin(), owner));
}

// Boxes [N, 4], scores [N] and class ids [N].
inline nb::object arrays_of(Candidates&& objects) {
    const size_t found = objects.scores.size();
    return nb::make_tuple(array_of(std::move(objects.boxes), {found, 4}), array_of(std::move(objects.scores), {found}),
                          array_of(std::move(objects.class_ids), {found}));
}

// Adds the steps of Faster R-CNN between and behind its graphs.
void bind_two_stage(nb::module_& m);

}  // namespace edgekit
