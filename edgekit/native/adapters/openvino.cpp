// edgekit.SparseRegion for OpenVINO: an extension, Core.add_extension(".../edgekit_openvino.so").
//
// The operator: inputs `image` (float32 [1, C, H, W], normalised, or uint8 [1, H, W, C], pixels), `mask` (float32
// [1, 1, G, G]) if the program takes one, and the bytes of a .sparse file, a constant uint8 [N]; outputs those of the
// program, each float32 [1, rows, columns].
//
// OpenVINO's interface is C++ and belongs to one release (its libraries carry the release in their names), so this is
// compiled where it runs, with the headers that every openvino package brings: see edgekit/backends/openvino_build.py.
// Where there is no compiler, an operator in Python does the same, slower.
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include <openvino/core/extension.hpp>
#include <openvino/core/op_extension.hpp>
#include <openvino/op/constant.hpp>
#include <openvino/op/op.hpp>

#include "../c_api.h"

namespace {

thread_local int threads_of_new_regions = 1;

class SparseRegion : public ov::op::Op {
  public:
    OPENVINO_OP("SparseRegion", "extension");

    SparseRegion() = default;
    SparseRegion(const ov::OutputVector& inputs, std::shared_ptr<edgekit_engine> engine)
        : Op(inputs), engine_(std::move(engine)) {
        constructor_validate_and_infer_types();
    }

    void validate_and_infer_types() override {
        if (!engine_) load();
        check_inputs();
        const int count = edgekit_output_count(engine_.get());
        set_output_size(count);
        for (int i = 0; i < count; i++) {
            const edgekit_output output = edgekit_output_at(engine_.get(), i);
            set_output_type(i, ov::element::f32,
                            ov::Shape{1, static_cast<size_t>(output.rows), static_cast<size_t>(output.columns)});
        }
    }

    // OpenVINO copies operators; the copies share the loaded program.
    std::shared_ptr<ov::Node> clone_with_new_inputs(const ov::OutputVector& inputs) const override {
        return std::make_shared<SparseRegion>(inputs, engine_);
    }

    bool visit_attributes(ov::AttributeVisitor&) override { return true; }
    bool has_evaluate() const override { return true; }

    bool evaluate(ov::TensorVector& outputs, const ov::TensorVector& inputs) const override {
        std::vector<float*> results;
        for (ov::Tensor& output : outputs) results.push_back(output.data<float>());
        const bool pixels = inputs[0].get_element_type() == ov::element::u8;
        const bool masked = edgekit_mask(engine_.get()).rows > 0;
        const char* problem = edgekit_run(engine_.get(), pixels ? EDGEKIT_PIXELS : EDGEKIT_PLANES, inputs[0].data(),
                                          masked ? inputs[1].data<const float>() : nullptr, results.data());
        if (problem) OPENVINO_THROW("edgekit.SparseRegion: ", problem);
        return true;
    }

  private:
    void load() {
        const auto source = input_value(get_input_size() - 1).get_node_shared_ptr();
        const auto program = ov::as_type_ptr<ov::op::v0::Constant>(source);
        if (!program) OPENVINO_THROW("edgekit.SparseRegion: the last input must be a constant with the program");
        edgekit_engine* engine = nullptr;
        const char* problem =
            edgekit_load(program->get_data_ptr(), program->get_byte_size(), threads_of_new_regions, nullptr, &engine);
        if (problem) OPENVINO_THROW("edgekit.SparseRegion: ", problem);
        engine_.reset(engine, edgekit_free);
    }

    void check_inputs() const {
        const edgekit_image_shape image = edgekit_image(engine_.get());
        const edgekit_mask_shape mask = edgekit_mask(engine_.get());
        const size_t expected = mask.rows ? 3 : 2;
        if (get_input_size() != expected)
            OPENVINO_THROW("edgekit.SparseRegion: expected ", expected, " inputs, got ", get_input_size());
        const auto is = [&](size_t index, ov::element::Type type, const ov::PartialShape& shape) {
            return get_input_element_type(index) == type && get_input_partial_shape(index) == shape;
        };
        if (!is(0, ov::element::f32, {1, image.channels, image.rows, image.columns}) &&
            !is(0, ov::element::u8, {1, image.rows, image.columns, image.channels}))
            OPENVINO_THROW("edgekit.SparseRegion: the image must be f32 [1, C, H, W] or u8 [1, H, W, C] with ",
                           image.channels, " x ", image.rows, " x ", image.columns, ", got ", get_input_element_type(0),
                           " ", get_input_partial_shape(0));
        if (mask.rows && !is(1, ov::element::f32, {1, 1, mask.rows, mask.columns}))
            OPENVINO_THROW("edgekit.SparseRegion: the mask must be f32 [1, 1, ", mask.rows, ", ", mask.columns,
                           "], got ", get_input_element_type(1), " ", get_input_partial_shape(1));
    }

    std::shared_ptr<edgekit_engine> engine_;
};

}  // namespace

// Threads of the regions in graphs that this thread reads from now on.
extern "C" EDGEKIT_API void edgekit_openvino_set_threads(int threads) { threads_of_new_regions = threads; }

OPENVINO_CREATE_EXTENSIONS(std::vector<ov::Extension::Ptr>({std::make_shared<ov::OpExtension<SparseRegion>>()}));
