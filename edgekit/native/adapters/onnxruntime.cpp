// edgekit.SparseRegion for ONNX Runtime: SessionOptions.register_custom_ops_library(".../edgekit_onnxruntime.so").
//
// The node: inputs `image` (float32 [1, C, H, W], normalised, or uint8 [1, H, W, C], pixels) and, if the program takes
// one, `mask` (float32 [1, 1, G, G]); outputs those of the program, each float32 [1, rows, columns]; attribute
// `program`, the bytes of a .sparse file. The session's configuration entry "edgekit.threads", set before the library
// is registered, says how many threads a region uses; it is 1 without.
//
// No header of ONNX Runtime is needed, so one build serves every release from 1.17 on. What is declared here again
// comes from onnxruntime_c_api.h (MIT licence), which promises it: OrtApi is a table of functions that only ever grows
// at its end (onnxruntime_c_api.cc asserts the place of the last function of each version), and an OrtCustomOp says
// which version of itself it is, so that later fields are not looked at.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../c_api.h"

namespace {

struct Status;
struct Value;
struct ShapeInfo;
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct Domain;

struct Table {
    void* functions[1];  // as many as the version has
};

struct TableBase {
    const Table* (*get_table)(uint32_t version);
    const char* (*version)();  // e.g. "1.20.1"
};

constexpr uint32_t kVersion = 16;  // of OrtApi and OrtCustomOp, which count alike: the first with errors from kernels
constexpr long kOldest = 17;  // onnxruntime 1.16 itself still calls the functions without errors
constexpr int kFail = 1;  // OrtErrorCode
constexpr int kAny = 0, kFloat = 1, kUint8 = 2;  // ONNXTensorElementDataType
constexpr int kRequired = 0, kOptional = 1, kVariadic = 2;  // OrtCustomOpInputOutputCharacteristic
constexpr int kDefaultMemory = 0;  // OrtMemType

// A function of OrtApi by its place in the table.
template <int place, class Result, class... Arguments>
struct Function {
    Result operator()(const Table* table, Arguments... arguments) const {
        return reinterpret_cast<Result (*)(Arguments...)>(table->functions[place])(arguments...);
    }
};

constexpr Function<0, Status*, int, const char*> create_status;
constexpr Function<26, Status*, const char*, Domain**> create_domain;
constexpr Function<27, Status*, Domain*, const struct CustomOp*> add_operator;
constexpr Function<28, Status*, SessionOptions*, Domain*> add_domain;
constexpr Function<51, Status*, const Value*, void**> get_data;
constexpr Function<60, Status*, const ShapeInfo*, int*> get_type;
constexpr Function<61, Status*, const ShapeInfo*, size_t*> get_rank;
constexpr Function<62, Status*, const ShapeInfo*, int64_t*, size_t> get_dimensions;
constexpr Function<65, Status*, const Value*, ShapeInfo**> get_shape;
constexpr Function<87, Status*, const KernelInfo*, const char*, char*, size_t*> get_string;
constexpr Function<90, Status*, const KernelContext*, size_t, const Value**> get_input;
constexpr Function<91, Status*, KernelContext*, size_t, const int64_t*, size_t, Value**> get_output;
constexpr Function<99, void, ShapeInfo*> release_shape;
constexpr Function<230, Status*, const KernelInfo*, size_t*> count_inputs;
constexpr Function<231, Status*, const KernelInfo*, size_t*> count_outputs;
constexpr Function<237, Status*, const SessionOptions*, const char*, int*> has_entry;
constexpr Function<238, Status*, const SessionOptions*, const char*, char*, size_t*> get_entry;

// OrtCustomOp as of version 16. ONNX Runtime calls every function up to there, so none may be null.
struct CustomOp {
    uint32_t version;
    void* (*create_kernel)(const CustomOp*, const Table*, const KernelInfo*);  // replaced by create_kernel_v2
    const char* (*name)(const CustomOp*);
    const char* (*execution_provider)(const CustomOp*);  // null: the CPU
    int (*input_type)(const CustomOp*, size_t);
    size_t (*input_count)(const CustomOp*);
    int (*output_type)(const CustomOp*, size_t);
    size_t (*output_count)(const CustomOp*);
    void (*compute)(void*, KernelContext*);  // replaced by compute_v2
    void (*destroy_kernel)(void*);
    int (*input_characteristic)(const CustomOp*, size_t);
    int (*output_characteristic)(const CustomOp*, size_t);
    int (*input_memory)(const CustomOp*, size_t);
    int (*variadic_input_least)(const CustomOp*);
    int (*variadic_input_homogeneous)(const CustomOp*);
    int (*variadic_output_least)(const CustomOp*);
    int (*variadic_output_homogeneous)(const CustomOp*);
    Status* (*create_kernel_v2)(const CustomOp*, const Table*, const KernelInfo*, void**);
    Status* (*compute_v2)(void*, KernelContext*);
};

Status* failure(const Table* table, const std::string& what) {
    return create_status(table, kFail, ("edgekit.SparseRegion: " + what).c_str());
}

// One node of a session.
struct Region {
    const Table* table;
    edgekit_engine* engine = nullptr;
    bool masked = false;
    std::vector<std::vector<int64_t>> shapes;  // of the outputs

    explicit Region(const Table* with) : table(with) {}
    ~Region() { edgekit_free(engine); }
    Region(const Region&) = delete;
    Region& operator=(const Region&) = delete;
};

std::string text(const std::vector<int64_t>& shape) {
    std::string result = "[";
    for (size_t i = 0; i < shape.size(); i++) result += (i ? ", " : "") + std::to_string(shape[i]);
    return result + "]";
}

Status* load(Region& region, const KernelInfo* info, int threads) {
    const Table* table = region.table;
    size_t length = 0;  // with the NUL that is put behind the bytes
    if (Status* status = get_string(table, info, "program", nullptr, &length)) return status;
    std::string program(length, '\0');
    if (Status* status = get_string(table, info, "program", program.data(), &length)) return status;
    if (const char* problem = edgekit_load(program.data(), length - 1, threads, nullptr, &region.engine))
        return failure(table, problem);
    region.masked = edgekit_mask(region.engine).rows > 0;
    for (int i = 0; i < edgekit_output_count(region.engine); i++) {
        const edgekit_output output = edgekit_output_at(region.engine, i);
        region.shapes.push_back({1, output.rows, output.columns});
    }
    size_t inputs = 0, outputs = 0;
    if (Status* status = count_inputs(table, info, &inputs)) return status;
    if (Status* status = count_outputs(table, info, &outputs)) return status;
    const size_t expected = region.masked ? 2 : 1;
    if (inputs != expected || outputs != region.shapes.size())
        return failure(table, "the program has " + std::to_string(expected) + " inputs and " +
                                  std::to_string(region.shapes.size()) + " outputs, the node " +
                                  std::to_string(inputs) + " and " + std::to_string(outputs));
    return nullptr;
}

Status* create(const CustomOp* op, const Table* table, const KernelInfo* info, void** kernel);

// The data of input `index`, which must have one of two types and the shape that belongs to it.
Status* read(const Region& region, const KernelContext* context, size_t index, int* type,
             const std::vector<int64_t>& of_floats, const std::vector<int64_t>& of_bytes, void** data) {
    const Value* value = nullptr;
    ShapeInfo* info = nullptr;
    if (Status* status = get_input(region.table, context, index, &value)) return status;
    if (Status* status = get_shape(region.table, value, &info)) return status;
    size_t rank = 0;
    get_type(region.table, info, type);
    get_rank(region.table, info, &rank);
    std::vector<int64_t> shape(rank);
    get_dimensions(region.table, info, shape.data(), rank);
    release_shape(region.table, info);
    const auto& expected = *type == kUint8 ? of_bytes : of_floats;
    if ((*type != kFloat && *type != kUint8) || shape != expected)
        return failure(region.table, std::string(index ? "the mask" : "the image") + " must be float32 " +
                                         text(of_floats) + (of_bytes.empty() ? "" : " or uint8 " + text(of_bytes)) +
                                         ", got type " + std::to_string(*type) + " " + text(shape));
    return get_data(region.table, value, data);
}

Status* run(const Region& region, KernelContext* context) {
    const edgekit_image_shape image = edgekit_image(region.engine);
    const edgekit_mask_shape cells = edgekit_mask(region.engine);
    void *pixels = nullptr, *mask = nullptr;
    int type = 0, mask_type = 0;
    if (Status* status = read(region, context, 0, &type, {1, image.channels, image.rows, image.columns},
                              {1, image.rows, image.columns, image.channels}, &pixels))
        return status;
    if (region.masked)
        if (Status* status = read(region, context, 1, &mask_type, {1, 1, cells.rows, cells.columns}, {}, &mask))
            return status;
    std::vector<float*> outputs;
    for (size_t i = 0; i < region.shapes.size(); i++) {
        Value* value = nullptr;
        void* data = nullptr;
        const auto& shape = region.shapes[i];
        if (Status* status = get_output(region.table, context, i, shape.data(), shape.size(), &value)) return status;
        if (Status* status = get_data(region.table, value, &data)) return status;
        outputs.push_back(static_cast<float*>(data));
    }
    const edgekit_layout layout = type == kUint8 ? EDGEKIT_PIXELS : EDGEKIT_PLANES;
    const char* problem = edgekit_run(region.engine, layout, pixels, static_cast<const float*>(mask), outputs.data());
    return problem ? failure(region.table, problem) : nullptr;
}

// What ONNX Runtime knows of the operator; one for each number of threads, because a kernel is told nothing of its
// session. They live as long as the library, because nobody says when the last session has gone.
struct Operator : CustomOp {
    explicit Operator(int with_threads) : CustomOp{}, threads(with_threads) {
        version = kVersion;
        name = [](const CustomOp*) { return "SparseRegion"; };
        execution_provider = [](const CustomOp*) -> const char* { return nullptr; };
        input_type = [](const CustomOp*, size_t index) { return index ? kFloat : kAny; };
        input_count = [](const CustomOp*) -> size_t { return 2; };
        output_type = [](const CustomOp*, size_t) { return kFloat; };
        output_count = [](const CustomOp*) -> size_t { return 1; };
        destroy_kernel = [](void* kernel) { delete static_cast<Region*>(kernel); };
        input_characteristic = [](const CustomOp*, size_t index) { return index ? kOptional : kRequired; };
        output_characteristic = [](const CustomOp*, size_t) { return kVariadic; };
        input_memory = [](const CustomOp*, size_t) { return kDefaultMemory; };
        variadic_input_least = variadic_output_least = [](const CustomOp*) { return 1; };
        variadic_input_homogeneous = variadic_output_homogeneous = [](const CustomOp*) { return 1; };
        create_kernel = [](const CustomOp*, const Table*, const KernelInfo*) -> void* { return nullptr; };
        compute = [](void*, KernelContext*) {};
        create_kernel_v2 = create;
        compute_v2 = [](void* kernel, KernelContext* context) -> Status* {
            const Region& region = *static_cast<Region*>(kernel);
            try {
                return run(region, context);
            } catch (const std::exception& error) {
                return failure(region.table, error.what());
            }
        };
    }

    int threads;
    Domain* domain = nullptr;
};

Status* create(const CustomOp* op, const Table* table, const KernelInfo* info, void** kernel) {
    *kernel = nullptr;
    try {
        auto region = std::make_unique<Region>(table);
        if (Status* status = load(*region, info, static_cast<const Operator*>(op)->threads)) return status;
        *kernel = region.release();
        return nullptr;
    } catch (const std::exception& error) {
        return failure(table, error.what());
    }
}

Status* read_threads(const Table* table, const SessionOptions* options, int* threads) {
    constexpr char kEntry[] = "edgekit.threads";
    int present = 0;
    if (Status* status = has_entry(table, options, kEntry, &present)) return status;
    if (!present) return nullptr;
    char value[16] = {};
    size_t length = sizeof value;
    if (Status* status = get_entry(table, options, kEntry, value, &length)) return status;
    char* end = nullptr;
    const long number = std::strtol(value, &end, 10);
    if (*end || number < 1 || number > 256)
        return failure(table, std::string("expected 1 to 256 for edgekit.threads, got ") + value);
    *threads = static_cast<int>(number);
    return nullptr;
}

Status* register_operator(const Table* table, SessionOptions* options) {
    int threads = 1;
    if (Status* status = read_threads(table, options, &threads)) return status;
    static std::mutex mutex;
    static std::map<int, Operator> operators;
    const std::lock_guard<std::mutex> lock(mutex);
    Operator& op = operators.try_emplace(threads, threads).first->second;
    if (!op.domain) {
        Domain* domain = nullptr;
        if (Status* status = create_domain(table, "edgekit", &domain)) return status;
        if (Status* status = add_operator(table, domain, &op)) return status;
        op.domain = domain;
    }
    return add_domain(table, options, op.domain);
}

}  // namespace

extern "C" EDGEKIT_API Status* RegisterCustomOps(SessionOptions* options, const TableBase* base) {
    const Table* first = base->get_table(1);  // every release has it, for saying what is wrong
    const std::string version = base->version();
    char* rest = nullptr;
    const long major = std::strtol(version.c_str(), &rest, 10);
    const long minor = *rest == '.' ? std::strtol(rest + 1, nullptr, 10) : 0;
    if (major == 1 && minor < kOldest)
        return failure(first, "needs onnxruntime 1." + std::to_string(kOldest) + " or newer, this is " + version);
    const Table* table = base->get_table(kVersion);
    if (!table) return failure(first, "does not know the interface of onnxruntime " + version);
    try {
        return register_operator(table, options);
    } catch (const std::exception& error) {
        return failure(first, error.what());
    }
}
