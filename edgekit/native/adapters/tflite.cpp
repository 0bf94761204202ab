// edgekit.SparseRegion for TFLite: an external delegate, load_delegate(".../edgekit_tflite.so"), that takes every
// custom operator `SparseRegion` of a graph.
//
// The operator: inputs `image` (float32, normalised, or uint8, pixels; [1, H, W, C]) and, if the program takes one,
// `mask` (float32 [1, G, G, 1]); outputs those of the program, float32, in any shape of that many numbers; custom
// options, the bytes of a .sparse file. A region uses the interpreter's number of threads, or the delegate's option
// `threads`.
//
// No header and no symbol of TFLite is needed, so one build serves tflite-runtime, ai-edge-litert and TensorFlow. What
// is declared here again comes from tensorflow/lite/core/c/common.h (Apache licence 2.0). It promises no layout, but
// what releases add they add at the end: tflite-runtime 2.14, TensorFlow 2.21 and ai-edge-litert 2.3 run the same file.
// Before anything relies on the layout, `layout_is_known` looks at a graph's tensors.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "../c_api.h"

namespace {

using Status = int;
constexpr Status kOk = 0, kError = 1;
constexpr int kFloat32 = 1, kUint8 = 3, kLastType = 64;  // TfLiteType, of which there were 20 in 2026
constexpr int kArena = 2, kLastAllocation = 8;  // TfLiteAllocationType
constexpr int kLastQuantisation = 8;  // TfLiteQuantizationType
constexpr int kCustom = 32;  // BuiltinOperator of the schema
constexpr int64_t kAllowDynamicTensors = 1;  // without it the graph is prepared first, with an operator it lacks

struct IntArray {
    int size;
    int data[];
};

struct Tensor {
    int type;
    void* data;
    IntArray* dimensions;
    struct {
        float scale;
        int32_t zero_point;
    } quantisation;
    int allocation_type;
    size_t bytes;
    const void* allocation;
    const char* name;
    struct Delegate* delegate;
    int buffer_handle;
    bool data_is_stale, is_variable;
    struct {
        int type;
        void* parameters;
    } quantisation_parameters;
    void* sparsity;
    const IntArray* dimensions_signature;
};
static_assert(sizeof(void*) != 8 || sizeof(Tensor) == 112, "TfLiteTensor has another size");

struct Node {
    IntArray *inputs, *outputs, *intermediates, *temporaries;
    void* user_data;
    void* builtin_data;
    const void* custom_options;
    int custom_options_size;
    struct Delegate* delegate;
    // More follows, which nothing here looks at.
};

struct Context;

struct Registration {
    void* (*init)(Context*, const char*, size_t);
    void (*free)(Context*, void*);
    Status (*prepare)(Context*, Node*);
    Status (*invoke)(Context*, Node*);
    const char* (*profiling_string)(const Context*, const Node*);
    int32_t builtin_code;
    const char* custom_name;
    int version;
    // It is handed over by value: room, all zeros, for what releases have added and will.
    void* added[13];
};

struct Context {
    size_t tensor_count;
    Status (*get_execution_plan)(Context*, IntArray**);
    Tensor* tensors;
    void* implementation;
    Status (*resize_tensor)(Context*, Tensor*, IntArray*);
    void (*report_error)(Context*, const char*, ...);
    Status (*add_tensors)(Context*, int, int*);
    Status (*get_node)(Context*, int, Node**, Registration**);
    Status (*replace_nodes)(Context*, Registration, const IntArray*, struct Delegate*);
    int threads;  // -1: not said
    // More follows. Its GetTensor is null in this runtime, so tensors are taken from the array.
};

struct Delegate {
    void* data;
    Status (*prepare)(Context*, Delegate*);
    void* copy_from_buffer;
    void* copy_to_buffer;
    void (*free_buffer)(Context*, Delegate*, int*);
    int64_t flags;
    void* added[8];  // as in Registration
    int threads = 0;  // ours; 0: the interpreter's
};

struct DelegateParameters {
    Delegate* delegate;
    IntArray* nodes;
    // More follows.
};

// One operator of a graph.
struct Region {
    edgekit_engine* engine = nullptr;
    std::string problem;  // why it cannot run
    std::vector<int> inputs, outputs;
    edgekit_layout layout = EDGEKIT_FLOATS;

    Region() = default;
    ~Region() { edgekit_free(engine); }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;
};

Status fail(Context* context, const std::string& what) {
    context->report_error(context, "edgekit.SparseRegion: %s\n", what.c_str());
    return kError;
}

// Whether the tensors of the graph can be what `Tensor` says. Were they of another size, the second would already hold
// a part of a pointer where a small number belongs, or the other way round.
bool layout_is_known(const Context* context) {
    for (size_t i = 0; i < context->tensor_count; i++) {
        const Tensor& tensor = context->tensors[i];
        const auto address = reinterpret_cast<uintptr_t>(tensor.dimensions);
        if (tensor.type < 0 || tensor.type > kLastType || tensor.allocation_type < 0 ||
            tensor.allocation_type > kLastAllocation || tensor.quantisation_parameters.type < 0 ||
            tensor.quantisation_parameters.type > kLastQuantisation || address < 4096 || address % sizeof(int))
            return false;
    }
    return true;
}

bool is_region(Context* context, int index) {
    Node* node = nullptr;
    Registration* registration = nullptr;
    return context->get_node(context, index, &node, &registration) == kOk && registration->builtin_code == kCustom &&
           registration->custom_name && !std::strcmp(registration->custom_name, "SparseRegion");
}

std::string text(const IntArray* shape) {
    std::string result = "[";
    for (int i = 0; i < shape->size; i++) result += (i ? ", " : "") + std::to_string(shape->data[i]);
    return result + "]";
}

bool has_shape(const Tensor& tensor, const std::vector<int>& shape) {
    return tensor.dimensions->size == static_cast<int>(shape.size()) &&
           !std::memcmp(tensor.dimensions->data, shape.data(), shape.size() * sizeof(int));
}

// What is wrong with the tensors of a region, or nothing. Chooses its layout.
std::string check(const Context* context, Region& region) {
    const edgekit_image_shape image = edgekit_image(region.engine);
    const edgekit_mask_shape cells = edgekit_mask(region.engine);
    const size_t inputs = cells.rows ? 2 : 1;
    const auto outputs = static_cast<size_t>(edgekit_output_count(region.engine));
    if (region.inputs.size() != inputs || region.outputs.size() != outputs)
        return "the program has " + std::to_string(inputs) + " inputs and " + std::to_string(outputs) +
               " outputs, the operator " + std::to_string(region.inputs.size()) + " and " +
               std::to_string(region.outputs.size());
    const Tensor& pixels = context->tensors[region.inputs[0]];
    if (!has_shape(pixels, {1, image.rows, image.columns, image.channels}) ||
        (pixels.type != kFloat32 && pixels.type != kUint8))
        return "the image must be float32 or uint8 [1, " + std::to_string(image.rows) + ", " +
               std::to_string(image.columns) + ", " + std::to_string(image.channels) + "], got type " +
               std::to_string(pixels.type) + " " + text(pixels.dimensions);
    region.layout = pixels.type == kUint8 ? EDGEKIT_PIXELS : EDGEKIT_FLOATS;
    if (cells.rows) {
        const Tensor& mask = context->tensors[region.inputs[1]];
        if (!has_shape(mask, {1, cells.rows, cells.columns, 1}) || mask.type != kFloat32)
            return "the mask must be float32 [1, " + std::to_string(cells.rows) + ", " + std::to_string(cells.columns) +
                   ", 1], got type " + std::to_string(mask.type) + " " + text(mask.dimensions);
    }
    for (size_t i = 0; i < outputs; i++) {
        const edgekit_output output = edgekit_output_at(region.engine, static_cast<int>(i));
        const Tensor& tensor = context->tensors[region.outputs[i]];
        if (tensor.type != kFloat32 || tensor.bytes != sizeof(float) * output.rows * output.columns)
            return std::string("the output ") + output.name + " must be float32 of " + std::to_string(output.rows) +
                   "x" + std::to_string(output.columns) + " numbers, got type " + std::to_string(tensor.type) + " " +
                   text(tensor.dimensions);
    }
    return "";
}

std::vector<int> copy(const IntArray* array) { return {array->data, array->data + array->size}; }

void* init_region(Context* context, const char* buffer, size_t) {
    auto* region = new (std::nothrow) Region;
    if (!region) return nullptr;
    try {
        const auto* parameters = reinterpret_cast<const DelegateParameters*>(buffer);
        Node* node = nullptr;
        Registration* registration = nullptr;
        context->get_node(context, parameters->nodes->data[0], &node, &registration);
        region->inputs = copy(node->inputs);
        region->outputs = copy(node->outputs);
        const int asked = parameters->delegate->threads ? parameters->delegate->threads : context->threads;
        const char* problem = edgekit_load(node->custom_options, static_cast<size_t>(node->custom_options_size),
                                           asked < 1 ? 1 : asked, nullptr, &region->engine);
        region->problem = problem ? problem : check(context, *region);
    } catch (const std::exception& error) {
        region->problem = error.what();
    }
    return region;
}

Status prepare_region(Context* context, Node* node) {
    if (!node->user_data) return fail(context, "out of memory");
    const Region& region = *static_cast<Region*>(node->user_data);
    if (!region.problem.empty()) return fail(context, region.problem);
    for (int output : region.outputs) context->tensors[output].allocation_type = kArena;
    return kOk;
}

Status invoke_region(Context* context, Node* node) {
    const Region& region = *static_cast<Region*>(node->user_data);
    float* outputs[16];  // MAX_OUTPUTS of edgekit/sparse/limits.py
    for (size_t i = 0; i < region.outputs.size(); i++)
        outputs[i] = static_cast<float*>(context->tensors[region.outputs[i]].data);
    const auto* mask =
        region.inputs.size() > 1 ? static_cast<const float*>(context->tensors[region.inputs[1]].data) : nullptr;
    const char* problem =
        edgekit_run(region.engine, region.layout, context->tensors[region.inputs[0]].data, mask, outputs);
    return problem ? fail(context, problem) : kOk;
}

Status replace_regions(Context* context, Delegate* delegate) {
    IntArray* plan = nullptr;
    if (context->get_execution_plan(context, &plan) != kOk) return kError;
    std::vector<int> regions;  // apart from the plan, which changes with every replacement
    for (int i = 0; i < plan->size; i++)
        if (is_region(context, plan->data[i])) regions.push_back(plan->data[i]);
    if (regions.empty()) return kOk;
    if (!layout_is_known(context))
        return fail(context,
                    "this TFLite lays its tensors out in a way that edgekit_tflite.so does not know. "
                    "Update edgekit, or run the dense graph");
    Registration registration{};
    registration.init = init_region;
    registration.free = [](Context*, void* region) { delete static_cast<Region*>(region); };
    registration.prepare = prepare_region;
    registration.invoke = invoke_region;
    registration.custom_name = "SparseRegion";
    registration.version = 1;
    // One by one: nodes that are replaced together become one, whose inner tensors nobody allocates.
    for (int node : regions) {
        int one[2] = {1, node};
        if (context->replace_nodes(context, registration, reinterpret_cast<IntArray*>(one), delegate) != kOk)
            return kError;
    }
    return kOk;
}

Status prepare_delegate(Context* context, Delegate* delegate) {
    try {
        return replace_regions(context, delegate);
    } catch (const std::exception& error) {
        return fail(context, error.what());
    }
}

}  // namespace

extern "C" EDGEKIT_API Delegate* tflite_plugin_create_delegate(char** keys, char** values, size_t count,
                                                               void (*report_error)(const char*)) {
    int threads = 0;
    for (size_t i = 0; i < count; i++) {
        char* end = nullptr;
        const long number = std::strtol(values[i], &end, 10);
        if (std::strcmp(keys[i], "threads") || *end || number < 1 || number > 256) {
            if (report_error) report_error("edgekit_tflite.so: the only option is threads, 1 to 256");
            return nullptr;
        }
        threads = static_cast<int>(number);
    }
    auto* delegate = new (std::nothrow) Delegate{};
    if (!delegate) return nullptr;
    delegate->prepare = prepare_delegate;
    delegate->flags = kAllowDynamicTensors;
    delegate->threads = threads;
    return delegate;
}

extern "C" EDGEKIT_API void tflite_plugin_destroy_delegate(Delegate* delegate) { delete delegate; }
