// Of the Python module edgekit.sparse._native: proposals, RoI pooling and what becomes of a RoI head's outputs.
#include <nanobind/stl/array.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <stdexcept>

#include "binding.h"
#include "isa.h"
#include "proposals.h"
#include "rois.h"

namespace edgekit {
namespace {

constexpr size_t kMost = 1 << 24;  // of anything that is counted: its indices fit into an int

void check_sides(const std::array<float, 2>& size) {
    for (const float side : size)
        if (!(side >= 1 && side <= kMaxRoiSide)) throw std::invalid_argument("expected sides of 1 to 2^24 pixels");
}

nb::object propose_rois(const Rows& logits, const Rows& deltas, const nb::object& mask, const Rows& anchors,
                        std::array<int, 2> grid, const std::array<float, 2>& size, const std::array<float, 2>& smallest,
                        float stride, float most_log_size, float iou, int before, int after) {
    const size_t count = anchors.shape(0), cells = logits.shape(0);
    if (grid[0] < 0 || grid[1] < 0 || static_cast<size_t>(grid[0]) * grid[1] != cells || deltas.shape(0) != cells ||
        count > kMost || logits.shape(1) != 2 * count || deltas.shape(1) != 4 * count || anchors.shape(1) != 4 ||
        cells > kMost || cells * count > kMost)
        throw std::invalid_argument(
            "expected logits [rows * columns, 2A], deltas [rows * columns, 4A], anchors [A, 4]");
    if (before < 0 || after < 0 || static_cast<size_t>(after) > kMost)
        throw std::invalid_argument("expected before >= 0 and after of 0 to 2^24");
    check_sides(size);
    Flags active;
    if (!mask.is_none()) {
        active = nb::cast<Flags>(mask);
        if (active.shape(0) != cells) throw std::invalid_argument("expected a flag for each cell");
    }
    const AnchorGrid layout{anchors.data(), static_cast<int>(count), grid[0], grid[1], stride};
    const ProposalRules rules{size[0], size[1], smallest[0], smallest[1], most_log_size, iou, before, after};
    Proposals found;
    {
        nb::gil_scoped_release release;
        found = propose(logits.data(), deltas.data(), mask.is_none() ? nullptr : active.data(), layout, rules);
    }
    const size_t left = found.scores.size();
    return nb::make_tuple(array_of(std::move(found.boxes), {left, 4}), array_of(std::move(found.scores), {left}));
}

void check_pooling(const Rows& features, std::array<int, 2> grid, const Rows& rois, int places) {
    const size_t channels = features.shape(1), count = rois.shape(0);
    if (grid[0] < 1 || grid[1] < 1 || static_cast<size_t>(grid[0]) * grid[1] != features.shape(0) ||
        features.shape(0) > kMost || channels < 1 || channels > kMost)
        throw std::invalid_argument("expected features [rows * columns, C]");
    if (rois.shape(1) != 4 || places < 0 || count > static_cast<size_t>(places))
        throw std::invalid_argument("expected rois [R, 4], and places for as many");
    if (!std::all_of(rois.data(), rois.data() + count * 4, [](float side) { return std::abs(side) <= kMaxRoiSide; }))
        throw std::invalid_argument("expected corners of rois within 2^24 pixels of 0");
}

nb::object pool(const Rows& features, std::array<int, 2> grid, const Rows& rois, int places) {
    check_pooling(features, grid, rois, places);
    const size_t channels = features.shape(1), count = rois.shape(0), width = channels * kRoiBins * kRoiBins;
    std::unique_ptr<float[]> pooled(new float[places * width]);
    {
        nb::gil_scoped_release release;
        static const Kernels& best = *usable_kernels().back();  // EDGEKIT_ISA is for the engine
        pool_rois(best, features.data(), grid[0], grid[1], static_cast<int>(channels), rois.data(),
                  static_cast<int>(count), pooled.get());
        std::fill(pooled.get() + count * width, pooled.get() + places * width, 0.0f);
    }
    float* values = pooled.get();
    nb::capsule owner(pooled.release(), [](void* memory) noexcept { delete[] static_cast<float*>(memory); });
    return nb::cast(nb::ndarray<nb::numpy, float, nb::ndim<2>>(values, {static_cast<size_t>(places), width}, owner));
}

nb::object pool_gradient(const Rows& features, std::array<int, 2> grid, const Rows& rois, const Rows& gradient) {
    check_pooling(features, grid, rois, static_cast<int>(std::min(rois.shape(0), kMost)));
    const size_t sites = features.shape(0), channels = features.shape(1), count = rois.shape(0);
    if (gradient.shape(0) != count || gradient.shape(1) != channels * kRoiBins * kRoiBins)
        throw std::invalid_argument("expected gradients [R, C * 36]");
    std::vector<float> sum(sites * channels);
    {
        nb::gil_scoped_release release;
        pool_rois_gradient(features.data(), grid[0], grid[1], static_cast<int>(channels), rois.data(),
                           static_cast<int>(count), gradient.data(), sum.data());
    }
    return array_of(std::move(sum), {sites, channels});
}

nb::object find_region_objects(const Rows& rois, const Rows& logits, const Rows& deltas,
                               const std::array<float, 2>& size, const std::array<float, 3>& letterbox,
                               const std::array<float, 2>& source, float most_log_size, float candidate_score,
                               float score, float nms_iou, int most, bool votes, float vote_iou) {
    const size_t count = rois.shape(0), width = logits.shape(1);
    if (rois.shape(1) != 4 || logits.shape(0) != count || deltas.shape(0) != count || width < 1 || width > kMost ||
        deltas.shape(1) != 4 * width || count > kMost || count * width > kMost)
        throw std::invalid_argument("expected rois [R, 4], logits [R, K + 1] and deltas [R, 4 (K + 1)]");
    if (most < 0) throw std::invalid_argument("expected most >= 0");
    check_sides(size);
    check_sides(source);
    if (!(letterbox[2] > 0)) throw std::invalid_argument("expected a letterbox of a positive scale");
    const RegionReading reading{size[0],   size[1],   letterbox[0],  letterbox[1],   letterbox[2],
                                source[0], source[1], most_log_size, candidate_score};
    Suppression suppression{score, nms_iou, most, votes, vote_iou, candidate_score, 1, 1.0f};
    suppression.by_score = true;
    Candidates objects;
    {
        nb::gil_scoped_release release;
        objects = choose_objects(read_regions(rois.data(), logits.data(), deltas.data(), static_cast<int>(count),
                                              static_cast<int>(width) - 1, reading),
                                 suppression);
    }
    return arrays_of(std::move(objects));
}

}  // namespace

void bind_two_stage(nb::module_& m) {
    m.def("propose", &propose_rois, nb::arg("logits"), nb::arg("deltas"), nb::arg("mask").none(), nb::arg("anchors"),
          nb::kw_only(), nb::arg("grid"), nb::arg("size"), nb::arg("smallest"), nb::arg("stride"),
          nb::arg("most_log_size"), nb::arg("iou"), nb::arg("before"), nb::arg("after"),
          "Boxes [R, 4] and scores [R] of the RoIs in what a region proposal network puts out;\n"
          "edgekit.two_stage.propose_rows says how. `grid` is (rows, columns), `size` and `smallest` (width, height).");
    m.def("pool_rois", &pool, nb::arg("features"), nb::kw_only(), nb::arg("grid"), nb::arg("rois"), nb::arg("places"),
          "Maxima [places, C * 36] of features [rows * columns, C] in the bins of rois [R, 4]; zeros behind the R-th.");
    m.def("pool_rois_gradient", &pool_gradient, nb::arg("features"), nb::kw_only(), nb::arg("grid"), nb::arg("rois"),
          nb::arg("gradient"),
          "Gradient [rows * columns, C] of `features` where that of their pooled maxima is `gradient` [R, C * 36].");
    m.def("find_region_objects", &find_region_objects, nb::arg("rois"), nb::arg("logits"), nb::arg("deltas"),
          nb::kw_only(), nb::arg("size"), nb::arg("letterbox"), nb::arg("source"), nb::arg("most_log_size"),
          nb::arg("candidate_score"), nb::arg("score"), nb::arg("nms_iou"), nb::arg("most"), nb::arg("votes"),
          nb::arg("vote_iou"),
          "Boxes [N, 4], scores [N] and class ids [N] of the objects in what a RoI head puts out, the best first;\n"
          "edgekit.two_stage.find_objects says how. `size` and `source` are (width, height), `letterbox` (left, top, "
          "scale).");
}

}  // namespace edgekit
