// The Python module edgekit.sparse._native: programs in, outputs out.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <cstring>
#include <stdexcept>
#include <utility>

#include "binding.h"
#include "engine.h"
#include "isa.h"
#include "objects.h"
#include "peak.h"
#include "resize.h"

namespace nb = nanobind;
using namespace edgekit;

namespace {

using Pixels = nb::ndarray<const uint8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Normalised = nb::ndarray<const float, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using Place = nb::ndarray<uint8_t, nb::ndim<3>, nb::device::cpu>;
using Mask = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

template <class Array>
void check_image(const Program& program, const Array& image) {
    const TensorShape& tensor = program.tensors[program.operations[0].output];
    const LevelShape& level = program.levels[tensor.level];
    if (image.shape(0) != static_cast<size_t>(level.rows) || image.shape(1) != static_cast<size_t>(level.columns) ||
        image.shape(2) != static_cast<size_t>(tensor.channels))
        throw std::invalid_argument("expected an image [" + std::to_string(level.rows) + ", " +
                                    std::to_string(level.columns) + ", " + std::to_string(tensor.channels) +
                                    "], got [" + std::to_string(image.shape(0)) + ", " +
                                    std::to_string(image.shape(1)) + ", " + std::to_string(image.shape(2)) + "]");
}

nb::dict run(Engine& engine, const uint8_t* pixels, const float* normalised, const Mask* mask) {
    const Program& program = engine.program();
    const uint8_t* cells = nullptr;
    if (program.mask_rows) {
        if (!mask || mask->shape(0) != static_cast<size_t>(program.mask_rows) ||
            mask->shape(1) != static_cast<size_t>(program.mask_columns))
            throw std::invalid_argument("expected a mask [" + std::to_string(program.mask_rows) + ", " +
                                        std::to_string(program.mask_columns) + "]");
        cells = mask->data();
        for (size_t i = 0; i < mask->size(); i++)
            if (cells[i] > 1) throw std::invalid_argument("expected a mask of zeros and ones");
    } else if (mask) {
        throw std::invalid_argument("this program takes no mask");
    }
    nb::dict result;
    std::vector<float*> outputs;
    for (const OutputShape& shape : program.outputs) {
        const size_t count = static_cast<size_t>(shape.rows) * shape.columns;
        auto* values = new float[count];
        nb::capsule owner(values, [](void* memory) noexcept { delete[] static_cast<float*>(memory); });
        outputs.push_back(values);
        result[shape.name.c_str()] = nb::ndarray<nb::numpy, float, nb::ndim<2>>(
            values, {static_cast<size_t>(shape.rows), static_cast<size_t>(shape.columns)}, owner);
    }
    nb::gil_scoped_release release;
    engine.run(pixels, normalised, cells, outputs.data());
    return result;
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "The native sparse engine. edgekit.backends.native is its public face.";
    nb::exception<ProgramError>(m, "ProgramError", PyExc_ValueError);

    nb::class_<Engine>(m, "Engine", "One loaded program; not to be run by two threads at once.")
        .def(
            "__init__",
            [](Engine* self, nb::bytes data, int threads, const std::string& isa) {
                if (threads < 1 || threads > 256) throw std::invalid_argument("expected 1 to 256 threads");
                new (self) Engine(parse_program(static_cast<const uint8_t*>(data.data()), data.size()),
                                  choose_kernels(isa.c_str()), threads);
            },
            nb::arg("program"), nb::arg("threads") = 1, nb::arg("isa") = "",
            "Load a program from its bytes. Raises ProgramError (a ValueError) if it is damaged, ValueError for an\n"
            "unknown instruction set, MemoryError.")
        .def(
            "run",
            [](Engine& self, const Pixels& image, nb::object mask) {
                check_image(self.program(), image);
                if (mask.is_none()) return run(self, image.data(), nullptr, nullptr);
                const auto cells = nb::cast<Mask>(mask);
                return run(self, image.data(), nullptr, &cells);
            },
            nb::arg("image"), nb::arg("mask").none() = nb::none(),
            "Pixels [H, W, C] uint8 and a mask [G, G] uint8 of zeros and ones -> {output name: float32 [A, K]}.")
        .def(
            "run",
            [](Engine& self, const Normalised& image, nb::object mask) {
                check_image(self.program(), image);
                if (mask.is_none()) return run(self, nullptr, image.data(), nullptr);
                const auto cells = nb::cast<Mask>(mask);
                return run(self, nullptr, image.data(), &cells);
            },
            nb::arg("image"), nb::arg("mask").none() = nb::none(), "The same for a normalised float32 image.")
        .def("start_clock", &Engine::start_clock, "Add up the seconds of each step from now on.")
        .def("seconds", &Engine::seconds, "Seconds of each step since start_clock().")
        .def(
            "steps",
            [](const Engine& self) {
                std::vector<std::vector<int>> steps;
                for (const Step& step : self.steps()) {
                    steps.emplace_back();
                    for (int operation : {step.expand, step.main, step.project})
                        if (operation >= 0) steps.back().push_back(operation);
                }
                return steps;
            },
            "The operations that each step runs together.")
        .def_prop_ro(
            "image_shape",
            [](const Engine& self) {
                const TensorShape& image = self.program().tensors[self.program().operations[0].output];
                const LevelShape& level = self.program().levels[image.level];
                return nb::make_tuple(level.rows, level.columns, image.channels);
            },
            "(rows, columns, channels) of the image.")
        .def_prop_ro(
            "mask_shape",
            [](const Engine& self) -> nb::object {
                if (!self.program().mask_rows) return nb::none();
                return nb::make_tuple(self.program().mask_rows, self.program().mask_columns);
            },
            "(rows, columns) of the mask, or None.")
        .def_prop_ro("isa", [](const Engine& self) { return std::string(self.kernels().name); })
        .def_prop_ro("threads", &Engine::threads);

    m.def(
        "resize",
        [](const Pixels& image, const Place& place, const std::string& isa) {
            const auto rows = place.shape(0), columns = place.shape(1);
            if (image.shape(2) != 3 || place.shape(2) != 3) throw std::invalid_argument("expected three channels");
            if (place.stride(2) != 1 || place.stride(1) != 3 || place.stride(0) < static_cast<int64_t>(columns) * 3)
                throw std::invalid_argument("expected pixels that lie side by side, in rows one below another");
            constexpr size_t most = 1 << 16;
            for (const size_t side : {rows, columns, image.shape(0), image.shape(1)})
                if (side < 1 || side > most) throw std::invalid_argument("expected sides of 1 to 65536 pixels");
            // EDGEKIT_ISA is for the engine: a wrong one must not keep the other engines from their pictures.
            static const Kernels& best = *usable_kernels().back();
            const Kernels& kernels = isa.empty() ? best : choose_kernels(isa.c_str());
            nb::gil_scoped_release release;
            resize(kernels, image.data(), static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1)),
                   place.data(), static_cast<int>(rows), static_cast<int>(columns), place.stride(0));
        },
        nb::arg("image"), nb::arg("place"), nb::arg("isa") = "",
        "Fill `place` [H, W, 3] uint8, which may be part of a larger image, with `image` [h, w, 3] in its size: means "
        "of\n"
        "areas, or interpolated where it becomes larger. ValueError where a shape does not fit.");

    m.def(
        "find_objects",
        [](const Rows& logits, const Rows& offsets, const Rows& anchors, const Flags& active,
           const std::array<float, 3>& coding, const std::array<float, 3>& letterbox,
           const std::array<float, 2>& source, const std::array<float, 2>& logit_limits, float score, float nms_iou,
           int most, bool votes, float vote_iou, float vote_score, int supporters, float own_weight) {
            const size_t count = logits.shape(0);
            if (offsets.shape(0) != count || anchors.shape(0) != count || active.shape(0) != count ||
                offsets.shape(1) != 4 || anchors.shape(1) != 4 || count > 1 << 24 || logits.shape(1) > 1 << 16)
                throw std::invalid_argument("expected logits [A, C], offsets [A, 4], anchors [A, 4] and flags [A]");
            if (most < 0 || supporters < 1) throw std::invalid_argument("expected most >= 0 and supporters >= 1");
            const HeadReading reading{coding[0],    coding[1], coding[2], letterbox[0],    letterbox[1],
                                      letterbox[2], source[0], source[1], logit_limits[0], logit_limits[1]};
            const Suppression suppression{score, nms_iou, most, votes, vote_iou, vote_score, supporters, own_weight};
            Candidates objects;
            {
                nb::gil_scoped_release release;
                objects = choose_objects(read_head(logits.data(), offsets.data(), anchors.data(), active.data(),
                                                   static_cast<int>(count), static_cast<int>(logits.shape(1)), reading),
                                         suppression);
            }
            return arrays_of(std::move(objects));
        },
        nb::arg("logits"), nb::arg("offsets"), nb::arg("anchors"), nb::arg("active"), nb::kw_only(), nb::arg("coding"),
        nb::arg("letterbox"), nb::arg("source"), nb::arg("logit_limits"), nb::arg("score"), nb::arg("nms_iou"),
        nb::arg("most"), nb::arg("votes"), nb::arg("vote_iou"), nb::arg("vote_score"), nb::arg("supporters"),
        nb::arg("own_weight"),
        "Boxes [N, 4], scores [N] and class ids [N] of the objects in what a detector's head puts out, the best "
        "first;\n"
        "edgekit.decoding.one_stage says how. `coding` is (centre variance, size variance, largest log size), "
        "`letterbox`\n"
        "(left, top, scale), `source` (width, height), `logit_limits` (of a candidate, of one in each class).");

    bind_two_stage(m);

    m.def(
        "peak_gmacs",
        [](double seconds, const std::string& isa) {
            const Kernels& kernels = choose_kernels(isa.c_str());
            nb::gil_scoped_release release;
            const Peak peak = measure_peak(kernels, seconds);
            return std::vector<double>{peak.float32 / 1e9, peak.uint8 / 1e9};
        },
        nb::arg("seconds") = 0.5, nb::arg("isa") = "",
        "[float32, uint8] 10^9 multiply-accumulates a second that one thread of the kernels reaches in the cache.");
    m.def(
        "instruction_sets",
        [] {
            std::vector<std::string> names;
            for (const Kernels* kernels : usable_kernels()) names.emplace_back(kernels->name);
            return names;
        },
        "Names of the instruction sets that this processor and build have kernels for, slowest first.");
}
