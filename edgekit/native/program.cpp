// Reading a sparse program from bytes that nobody vouches for.
#include "program.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "costs.h"

namespace edgekit {
namespace {

constexpr size_t kHeaderBytes = 64, kLevelBytes = 16, kTensorBytes = 32, kOperationBytes = 128, kOutputBytes = 64;
constexpr uint32_t kMaxLevels = 64, kMaxTensors = 4096, kMaxOperations = 4096, kMaxOutputs = 16;
constexpr uint32_t kMaxSide = 8192, kMaxChannels = 32768, kMaxMask = 256, kMaxKernel = 15, kMaxStride = 4;
constexpr uint32_t kMaxFactor = 8, kMaxOutputRows = 1u << 24, kMaxOutputColumns = 1u << 16;
constexpr float kMaxScale = 18446744073709551616.0f;  // so that no integer result is infinite, and no sum NaN
constexpr double kMaxBytes = 2147483648.0;  // of all that an engine allocates for one thread, at worst
constexpr double kMaxWork = 1e12;           // multiply-accumulates of a frame: the largest detectors have a tenth

const char* name_of(Kind kind) {
    switch (kind) {
        case Kind::input: return "INPUT";
        case Kind::conv: return "CONV";
        case Kind::depthwise: return "DEPTHWISE";
        case Kind::max_pool: return "MAXPOOL";
        case Kind::average_pool: return "AVGPOOL";
        case Kind::upsample: return "UPSAMPLE";
        case Kind::add: return "ADD";
        case Kind::quantise: return "QUANTISE";
        case Kind::dequantise: return "DEQUANTISE";
        case Kind::output: return "OUTPUT";
        case Kind::deconv: return "DECONV";
        case Kind::repack: break;
    }
    return "?";
}

[[noreturn]] void fail(const std::string& what) {
    throw ProgramError("the sparse program " + what + "; it is damaged or not ours. Export the bundle again.");
}

uint32_t crc32(const uint8_t* bytes, size_t length) {
    // Four tables: a program of some megabytes is read in milliseconds where one table takes tens.
    static const auto tables = [] {
        std::array<std::array<uint32_t, 256>, 4> made{};
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; bit++) value = (value >> 1) ^ (value & 1 ? 0xEDB88320u : 0u);
            made[0][i] = value;
        }
        for (uint32_t i = 0; i < 256; i++)
            for (int t = 1; t < 4; t++) made[t][i] = (made[t - 1][i] >> 8) ^ made[0][made[t - 1][i] & 255];
        return made;
    }();
    uint32_t crc = ~0u;
    for (; length >= 4; length -= 4, bytes += 4) {
        crc ^= bytes[0] | bytes[1] << 8 | bytes[2] << 16 | uint32_t{bytes[3]} << 24;
        crc = tables[3][crc & 255] ^ tables[2][crc >> 8 & 255] ^ tables[1][crc >> 16 & 255] ^ tables[0][crc >> 24];
    }
    for (; length; length--, bytes++) crc = (crc >> 8) ^ tables[0][(crc ^ *bytes) & 255];
    return ~crc;
}

template <class T>
T load(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

// Whether a mask of `from` cells has a level of `to`: halving (rounding up), then repeating a whole number of times.
bool reachable(int from, int to, int from_other, int to_other) {
    while (from > to || from_other > to_other) {
        from = (from + 1) / 2;
        from_other = (from_other + 1) / 2;
    }
    return to % from == 0 && to_other % from_other == 0;
}

class Reader {
  public:
    Reader(const uint8_t* bytes, size_t length) : bytes_(bytes), length_(length) {}

    Program read() {
        header();
        size_t at = kHeaderBytes;
        for (uint32_t i = 0; i < levels_; i++, at += kLevelBytes) level(bytes_ + at, i);
        for (uint32_t i = 0; i < tensors_; i++, at += kTensorBytes) tensor(bytes_ + at, i);
        const size_t operations = at;
        at += operations_ * kOperationBytes;
        for (uint32_t i = 0; i < outputs_; i++, at += kOutputBytes) output(bytes_ + at, i);
        for (; at < constants_at_; at++)
            if (bytes_[at]) fail("has data where padding should be");
        program_.constants.assign(bytes_ + constants_at_, bytes_ + length_);
        written_.assign(tensors_, {});
        ready_.assign(tensors_, 0);
        rows_.assign(outputs_, {});
        for (uint32_t i = 0; i < tensors_; i++) written_[i].assign(program_.tensors[i].channels, false);
        for (uint32_t i = 0; i < outputs_; i++) rows_[i].assign(program_.outputs[i].rows, false);
        for (index_ = 0; index_ < operations_; index_++) operation(bytes_ + operations + index_ * kOperationBytes);
        const Costs costs = costs_of(program_);
        if (costs.bytes > kMaxBytes) fail("needs more than 2 GiB of memory");
        if (costs.work > kMaxWork) fail("needs more than 10^12 multiplications a frame");
        for (uint32_t i = 0; i < tensors_; i++)
            if (ready_[i] != program_.tensors[i].channels)
                fail("writes " + std::to_string(ready_[i]) + " of the " + std::to_string(program_.tensors[i].channels) +
                     " channels of tensor " + std::to_string(i));
        return std::move(program_);
    }

  private:
    void header() {
        if (length_ < kHeaderBytes) fail("has " + std::to_string(length_) + " bytes, fewer than its header");
        if (std::memcmp(bytes_, "EKSPARSE", 8)) fail("does not start with EKSPARSE");
        if (const auto version = load<uint32_t>(bytes_ + 8); version != 1)
            throw ProgramError("the sparse program has format version " + std::to_string(version) +
                               ", and this edgekit reads version 1. Update edgekit, or export the bundle again.");
        if (load<uint64_t>(bytes_ + 16) != length_)
            fail("has " + std::to_string(length_) + " bytes where its header says " +
                 std::to_string(load<uint64_t>(bytes_ + 16)) + ": it is truncated");
        if (load<uint32_t>(bytes_ + 12) != crc32(bytes_ + 16, length_ - 16)) fail("does not match its checksum");
        const auto mask_rows = load<uint32_t>(bytes_ + 24), mask_columns = load<uint32_t>(bytes_ + 28);
        if (mask_rows > kMaxMask || mask_columns > kMaxMask || !mask_rows != !mask_columns)
            fail("has a mask of " + std::to_string(mask_rows) + "x" + std::to_string(mask_columns) + " cells");
        program_.mask_rows = static_cast<int>(mask_rows);
        program_.mask_columns = static_cast<int>(mask_columns);
        levels_ = load<uint32_t>(bytes_ + 32);
        tensors_ = load<uint32_t>(bytes_ + 36);
        operations_ = load<uint32_t>(bytes_ + 40);
        outputs_ = load<uint32_t>(bytes_ + 44);
        if (!levels_ || levels_ > kMaxLevels || !tensors_ || tensors_ > kMaxTensors || !operations_ ||
            operations_ > kMaxOperations || !outputs_ || outputs_ > kMaxOutputs)
            fail("has " + std::to_string(levels_) + " levels, " + std::to_string(tensors_) + " tensors, " +
                 std::to_string(operations_) + " operations and " + std::to_string(outputs_) + " outputs");
        const size_t tables = kHeaderBytes + levels_ * kLevelBytes + tensors_ * kTensorBytes +
                              operations_ * kOperationBytes + outputs_ * kOutputBytes;
        const auto at = load<uint64_t>(bytes_ + 48), size = load<uint64_t>(bytes_ + 56);
        if (at != (tables + 63) / 64 * 64 || at > length_ || size != length_ - at)
            fail("has its constants at " + std::to_string(at) + ", expected " +
                 std::to_string((tables + 63) / 64 * 64));
        constants_at_ = static_cast<size_t>(at);
    }

    void level(const uint8_t* at, uint32_t index) {
        const auto rows = load<uint32_t>(at), columns = load<uint32_t>(at + 4), masked = load<uint32_t>(at + 8);
        const std::string where = "has level " + std::to_string(index) + " of " + std::to_string(rows) + "x" +
                                  std::to_string(columns) + " sites";
        if (!rows || !columns || rows > kMaxSide || columns > kMaxSide || masked > 1 || load<uint32_t>(at + 12))
            fail(where);
        if (masked && (!program_.mask_rows || !reachable(program_.mask_rows, static_cast<int>(rows),
                                                         program_.mask_columns, static_cast<int>(columns))))
            fail(where + ", which a mask of " + std::to_string(program_.mask_rows) + "x" +
                 std::to_string(program_.mask_columns) + " cells does not have");
        program_.levels.push_back({static_cast<int>(rows), static_cast<int>(columns), masked == 1});
    }

    void tensor(const uint8_t* at, uint32_t index) {
        const auto level = load<uint32_t>(at), channels = load<uint32_t>(at + 4), type = load<uint32_t>(at + 8);
        const auto scale = load<float>(at + 12);
        const auto zero_point = load<int32_t>(at + 16);
        const std::string where = "has tensor " + std::to_string(index) + " with ";
        if (level >= levels_) fail(where + "level " + std::to_string(level));
        if (!channels || channels > kMaxChannels) fail(where + std::to_string(channels) + " channels");
        if (type > 1) fail(where + "type " + std::to_string(type));
        const bool quantised = type == 1;
        if (!std::isfinite(scale) || scale <= 0 || (!quantised && scale != 1)) fail(where + "a scale that is none");
        if (zero_point < 0 || zero_point > (quantised ? 255 : 0))
            fail(where + "zero point " + std::to_string(zero_point));
        for (int i = 20; i < 32; i += 4)
            if (load<uint32_t>(at + i)) fail(where + "a reserved field that is not 0");
        const LevelShape& shape = program_.levels[level];
        bytes_needed_ += double(shape.rows) * shape.columns * channels * (quantised ? 1 : 4);
        if (bytes_needed_ > kMaxBytes) fail("needs more than 2 GiB of memory");
        program_.tensors.push_back(
            {static_cast<int>(level), static_cast<int>(channels), static_cast<Type>(type), scale, zero_point});
    }

    void output(const uint8_t* at, uint32_t index) {
        const auto rows = load<uint32_t>(at + 32), columns = load<uint32_t>(at + 36);
        const std::string where = "has output " + std::to_string(index) + " with ";
        const char* text = reinterpret_cast<const char*>(at);
        size_t length = 0;
        while (length < 32 && text[length]) length++;
        for (size_t i = 0; i < 32; i++)
            if (i < length ? text[i] <= 32 || text[i] > 126 : text[i] != 0) length = 0;
        if (!length) fail(where + "a name that is none");
        for (const auto& other : program_.outputs)
            if (other.name == std::string(text, length)) fail(where + "a name that another has");
        if (!rows || rows > kMaxOutputRows || !columns || columns > kMaxOutputColumns)
            fail(where + std::to_string(rows) + "x" + std::to_string(columns) + " numbers");
        for (int i = 40; i < 64; i += 4)
            if (load<uint32_t>(at + i)) fail(where + "a reserved field that is not 0");
        bytes_needed_ += double(rows) * columns * 4;
        if (bytes_needed_ > kMaxBytes) fail("needs more than 2 GiB of memory");
        program_.outputs.push_back({std::string(text, length), static_cast<int>(rows), static_cast<int>(columns)});
    }

    [[noreturn]] void wrong(const std::string& what) const {
        fail("has operation " + std::to_string(index_) + " (" + name_of(kind_) + "), which " + what);
    }

    void operation(const uint8_t* at) {
        uint32_t field[17];
        for (int i = 0; i < 17; i++) field[i] = load<uint32_t>(at + 4 * i);
        if (field[0] < 1 || field[0] > 11)
            fail("has operation " + std::to_string(index_) + " of the unknown kind " + std::to_string(field[0]));
        kind_ = static_cast<Kind>(field[0]);
        Operation op{};
        op.kind = kind_;
        if ((kind_ == Kind::input) != (index_ == 0)) wrong("is out of place: the first, and only it, is INPUT");
        op.input = kind_ == Kind::input ? -1 : readable(field[1]);
        const bool takes_second = kind_ == Kind::add || (kind_ == Kind::conv && field[2] != kNone);
        if (!takes_second && field[2] != kNone) wrong("has a second operand");
        op.second = takes_second ? readable(field[2]) : -1;
        if (field[3] >= (kind_ == Kind::output ? outputs_ : tensors_))
            wrong("writes tensor " + std::to_string(field[3]));
        op.output = static_cast<int>(field[3]);
        if (field[4] > kMaxChannels) wrong("starts at channel " + std::to_string(field[4]));
        op.channel_offset = static_cast<int>(field[4]);
        const bool upsample = kind_ == Kind::upsample;
        if (!field[5] || field[5] > kMaxKernel || !field[6] || field[6] > kMaxKernel || !field[7] ||
            field[7] > (upsample ? kMaxFactor : kMaxStride) || field[8] >= field[5] || field[9] >= field[6])
            wrong("has a kernel of " + std::to_string(field[5]) + "x" + std::to_string(field[6]) + ", stride " +
                  std::to_string(field[7]) + ", pads " + std::to_string(field[8]) + " and " + std::to_string(field[9]));
        op.kernel_rows = static_cast<int>(field[5]);
        op.kernel_columns = static_cast<int>(field[6]);
        op.stride = static_cast<int>(field[7]);
        op.pad_top = static_cast<int>(field[8]);
        op.pad_left = static_cast<int>(field[9]);
        if (field[10] > (kind_ == Kind::conv ? 1u : 0u)) wrong("has flags " + std::to_string(field[10]));
        op.crelu = field[10] == 1;
        op.low = load<float>(at + 44);
        op.high = load<float>(at + 48);
        op.first_scale = load<float>(at + 52);
        op.second_scale = load<float>(at + 56);
        if (std::isnan(op.low) || std::isnan(op.high) || op.low > op.high) wrong("has bounds that are none");
        for (float scale : {op.first_scale, op.second_scale})
            if (!(scale > 0 && scale <= kMaxScale)) wrong("has a scale that is none");
        if (field[15] > kMaxOutputRows || field[16] > 64) wrong("has an output row or number of anchors that is none");
        op.row_offset = static_cast<int>(field[15]);
        op.anchors = static_cast<int>(field[16]);
        check_unused(op, at);
        const auto filters = load<uint32_t>(at + 96);
        if (load<uint32_t>(at + 68)) wrong("has a reserved field that is not 0");
        for (int i = 100; i < 128; i += 4)
            if (load<uint32_t>(at + i)) wrong("has a reserved field that is not 0");
        if (filters > kMaxChannels || (kind_ != Kind::conv && filters)) wrong("has a number of filters that is none");
        op.filters = static_cast<int>(filters);
        op.weights = op.bias = op.multipliers = SIZE_MAX;
        if (kind_ == Kind::output) {
            to_output(op);
        } else {
            compute(op, at);
            mark_written(op);
        }
        program_.operations.push_back(op);
    }

    // What a kind has no use for keeps its default, so that no two files mean the same.
    void check_unused(const Operation& op, const uint8_t* at) const {
        const Kind kind = op.kind;
        const bool weighted = kind == Kind::conv || kind == Kind::depthwise || kind == Kind::deconv;
        const bool strided = weighted || kind == Kind::max_pool || kind == Kind::average_pool || kind == Kind::upsample;
        const bool windowed = strided && kind != Kind::upsample, padded = windowed && kind != Kind::average_pool;
        const bool placed = kind != Kind::input && kind != Kind::output;
        const bool scaled = kind == Kind::average_pool || kind == Kind::add;
        if (kind == Kind::input && load<uint32_t>(at + 4) != kNone) wrong("has an operand");
        if (!placed && op.channel_offset) wrong("has a first channel");
        if ((!windowed && (op.kernel_rows != 1 || op.kernel_columns != 1)) || (!strided && op.stride != 1) ||
            (!padded && (op.pad_top || op.pad_left)))
            wrong("has a window");
        if (!scaled && op.first_scale != 1) wrong("has a scale of its input");
        if (kind != Kind::add && kind != Kind::conv && op.second_scale != 1) wrong("has a scale of its second operand");
        if (kind != Kind::output && (op.row_offset || op.anchors)) wrong("has output rows or anchors");
        for (int i = kind == Kind::input ? 2 : weighted ? 3 : 0; i < 3; i++)
            if (load<uint64_t>(at + 72 + 8 * i) != kNoConstant) wrong("has constants that it does not use");
    }

    int readable(uint32_t tensor) const {
        if (tensor >= tensors_) wrong("reads tensor " + std::to_string(tensor));
        if (ready_[tensor] != program_.tensors[tensor].channels)
            wrong("reads tensor " + std::to_string(tensor) + " before it is written");
        return static_cast<int>(tensor);
    }

    void compute(Operation& op, const uint8_t* at) {
        const TensorShape& out = program_.tensors[op.output];
        if (out.type == Type::uint8 &&
            (op.low != std::floor(op.low) || op.high != std::floor(op.high) || op.low < 0 || op.high > 255))
            wrong("has bounds outside 0..255");
        if (op.kind == Kind::input) {
            op.written = out.channels;
            op.weights = floats(at + 72, out.channels, "mean");
            op.bias = floats(at + 80, out.channels, "deviation");
            for (float deviation : program_.constant<float>(op.bias, out.channels))
                if (deviation <= 0) wrong("has a deviation that is not positive");
            return;
        }
        const TensorShape& in = program_.tensors[op.input];
        if (program_.levels[in.level].masked != program_.levels[out.level].masked)
            wrong("mixes masked and unmasked levels");
        geometry(op, in.level, out.level);
        const bool quantised = in.type == Type::uint8;
        op.written = in.channels;
        switch (op.kind) {
            case Kind::conv: convolution(op, at); break;
            case Kind::depthwise:
            case Kind::deconv: depthwise(op, at); break;
            case Kind::quantise:
                if (quantised || out.type != Type::uint8) wrong("does not lead from float32 to uint8");
                break;
            case Kind::dequantise:
                if (!quantised || out.type != Type::float32) wrong("does not lead from uint8 to float32");
                break;
            case Kind::add: {
                const TensorShape& other = program_.tensors[op.second];
                if (!same_level(other.level, in.level) || other.channels != in.channels || other.type != in.type ||
                    out.type != in.type)
                    wrong("adds tensors that differ in shape or type");
                break;
            }
            case Kind::average_pool:
                if (op.pad_top || op.pad_left) wrong("averages over a border");
                if (in.type != out.type) wrong("changes the type");
                break;
            default:
                if (in.type != out.type || in.scale != out.scale || in.zero_point != out.zero_point)
                    wrong("changes the type, the scale or the zero point");
        }
    }

    void geometry(const Operation& op, int from, int to) const {
        const LevelShape &in = program_.levels[from], &out = program_.levels[to];
        const bool windowed = op.kind == Kind::conv || op.kind == Kind::depthwise || op.kind == Kind::max_pool ||
                              op.kind == Kind::average_pool;
        if (windowed) {
            window(in.rows, out.rows, op.kernel_rows, op.stride, op.pad_top);
            window(in.columns, out.columns, op.kernel_columns, op.stride, op.pad_left);
            return;
        }
        if (op.kind == Kind::deconv &&
            (op.kernel_rows != 4 || op.kernel_columns != 4 || op.stride != 2 || op.pad_top != 1 || op.pad_left != 1))
            wrong("is not 4x4 with stride 2 and pads of 1");
        const int factor = op.kind == Kind::upsample ? op.stride : op.kind == Kind::deconv ? 2 : 1;
        if (factor == 1 ? from != to && (in.rows != out.rows || in.columns != out.columns)
                        : in.rows * factor != out.rows || in.columns * factor != out.columns)
            wrong("leads to a level of the wrong size");
    }

    bool same_level(int one, int other) const {
        const LevelShape &a = program_.levels[one], &b = program_.levels[other];
        return a.rows == b.rows && a.columns == b.columns && a.masked == b.masked;
    }

    void window(int in, int out, int kernel, int stride, int pad) const {
        if ((out - 1) * stride - pad >= in) wrong("reads beyond its input");
        for (int end = 0; end < kernel; end++)
            if (in + pad + end >= kernel && (in + pad + end - kernel) / stride + 1 == out) return;
        wrong("leads to a level of the wrong size");
    }

    void convolution(Operation& op, const uint8_t* at) {
        const TensorShape &in = program_.tensors[op.input], &out = program_.tensors[op.output];
        if (!op.filters) wrong("has no filters");
        op.written = op.filters * (op.crelu ? 2 : 1);
        const double size = double(op.filters) * op.kernel_rows * op.kernel_columns * in.channels;
        weighted(op, at, size, op.written);
        if (op.crelu && !program_.has(op.multipliers)) wrong("is a C.ReLU without multipliers");
        if (op.second < 0) return;
        const TensorShape& other = program_.tensors[op.second];
        if (!same_level(other.level, out.level) || other.channels != op.written || other.type != out.type)
            wrong("adds a tensor that differs from its result in shape or type");
    }

    void depthwise(Operation& op, const uint8_t* at) {
        const int channels = program_.tensors[op.input].channels;
        weighted(op, at, double(op.kernel_rows) * op.kernel_columns * channels, channels);
    }

    void weighted(Operation& op, const uint8_t* at, double size, int channels) {
        const TensorShape &in = program_.tensors[op.input], &out = program_.tensors[op.output];
        if (size > double(program_.constants.size())) wrong("has more weights than there are constants");
        // Operations can share weights, but every one packs and checks its own.
        weight_bytes_ += size * (in.type == Type::float32 ? 4 : 2);
        if (weight_bytes_ > kMaxBytes) fail("needs more than 2 GiB of memory");
        const auto count = static_cast<size_t>(size);
        if (in.type == Type::float32) {
            if (out.type != Type::float32) wrong("leads from float32 to uint8");
            op.weights = floats(at + 72, count, "weights");
            op.bias = floats(at + 80, channels, "bias");
            if (load<uint64_t>(at + 88) != kNoConstant) op.multipliers = floats(at + 88, channels, "multipliers");
            return;
        }
        op.weights = inside(at + 72, count, 1, "weights");
        op.bias = inside(at + 80, channels, 4, "bias");
        op.multipliers = floats(at + 88, channels, "multipliers");
        for (float multiplier : program_.constant<float>(op.multipliers, channels))
            if (std::abs(multiplier) > kMaxScale) wrong("has a multiplier that is none");
        const double products = size / (op.kind == Kind::conv ? op.filters : channels) * 255 * 128;
        for (int32_t bias : program_.constant<int32_t>(op.bias, channels))
            if (products * 2 + std::abs(double(bias)) >= 2147483648.0) wrong("can overflow its accumulator");
    }

    size_t inside(const uint8_t* at, size_t count, size_t width, const char* what) const {
        const auto offset = load<uint64_t>(at);
        const size_t size = program_.constants.size();
        if (offset % 64 || offset > size || count > (size - offset) / width)
            wrong(std::string("has its ") + what + " outside the constants");
        return static_cast<size_t>(offset);
    }

    size_t floats(const uint8_t* at, size_t count, const char* what) const {
        const size_t offset = inside(at, count, 4, what);
        const uint8_t* from = program_.constants.data() + offset;
        for (size_t i = 0; i < count; i++)
            if (!std::isfinite(load<float>(from + 4 * i))) wrong(std::string("has ") + what + " that are not finite");
        return offset;
    }

    void mark_written(const Operation& op) {
        auto& channels = written_[op.output];
        if (op.channel_offset + op.written > static_cast<int>(channels.size()))
            wrong("writes channels that its output does not have");
        for (int i = 0; i < op.written; i++) {
            if (channels[op.channel_offset + i]) wrong("writes channels that another has written");
            channels[op.channel_offset + i] = true;
        }
        ready_[op.output] += op.written;
    }

    void to_output(Operation& op) {
        const TensorShape& in = program_.tensors[op.input];
        const OutputShape& out = program_.outputs[op.output];
        const LevelShape& level = program_.levels[in.level];
        const double last = op.row_offset + double(level.rows) * level.columns * op.anchors;
        if (!op.anchors || in.channels != op.anchors * out.columns || last > out.rows)
            wrong("does not fit its output of " + std::to_string(out.rows) + "x" + std::to_string(out.columns));
        for (auto row = static_cast<size_t>(op.row_offset); row < static_cast<size_t>(last); row++) {
            if (rows_[op.output][row]) wrong("writes output rows that another has written");
            rows_[op.output][row] = true;
        }
    }

    const uint8_t* bytes_;
    size_t length_;
    Program program_;
    uint32_t levels_ = 0, tensors_ = 0, operations_ = 0, outputs_ = 0, index_ = 0;
    Kind kind_ = Kind::input;
    size_t constants_at_ = 0;
    double bytes_needed_ = 0, weight_bytes_ = 0;
    std::vector<std::vector<bool>> written_, rows_;
    std::vector<int> ready_;  // channels written so far
};

}  // namespace

template <class T>
std::vector<T> Program::constant(size_t offset, size_t count) const {
    std::vector<T> values(count);
    if (count) std::memcpy(values.data(), constants.data() + offset, count * sizeof(T));
    return values;
}

template std::vector<float> Program::constant(size_t, size_t) const;
template std::vector<int8_t> Program::constant(size_t, size_t) const;
template std::vector<int32_t> Program::constant(size_t, size_t) const;

int border_of(const Program& program, const Operation& op) {
    if (op.kind == Kind::upsample) return 0;
    if (op.kind == Kind::deconv) return 1;
    const LevelShape &in = program.level_of(op.input), &out = program.level_of(op.output);
    return std::max({0, op.pad_top, op.pad_left, (out.rows - 1) * op.stride - op.pad_top + op.kernel_rows - in.rows,
                     (out.columns - 1) * op.stride - op.pad_left + op.kernel_columns - in.columns});
}

Program parse_program(const uint8_t* bytes, size_t length) { return Reader(bytes, length).read(); }

}  // namespace edgekit
