// A sparse program in memory: levels, tensors, operations and constants, all checked.
//
// The file format and the meaning of every operation are documented in edgekit/sparse/format.py. A program file is
// untrusted: parse_program() throws ProgramError rather than let anything out of bounds through.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace edgekit {

struct ProgramError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum class Type : uint32_t { float32 = 0, uint8 = 1 };

enum class Kind : uint32_t {
    input = 1,
    conv = 2,
    depthwise = 3,
    max_pool = 4,
    average_pool = 5,
    upsample = 6,
    add = 7,
    quantise = 8,
    dequantise = 9,
    output = 10,
    deconv = 11,
    repack = 12,  // never in a file: a copy whose channels lie differently
};

constexpr uint32_t kNone = 0xFFFFFFFFu;
constexpr uint64_t kNoConstant = ~uint64_t{0};

struct LevelShape {
    int rows, columns;
    bool masked;
};

struct TensorShape {
    int level, channels;
    Type type;
    float scale;
    int zero_point;
};

struct OutputShape {
    std::string name;
    int rows, columns;
};

struct Operation {
    Kind kind;
    int input;            // tensor, or -1 (INPUT)
    int second;           // tensor, or -1
    int output;           // tensor; of OUTPUT: index of the output
    int channel_offset;   // first channel that is written
    int kernel_rows, kernel_columns, stride, pad_top, pad_left;
    bool crelu;
    float low, high;
    float first_scale, second_scale;
    int row_offset, anchors;
    int filters;          // CONV: K, before C.ReLU doubles it
    int written;          // channels of the output tensor that are written
    size_t weights, bias, multipliers;  // offsets into `constants`, or SIZE_MAX
};

struct Program {
    int mask_rows = 0, mask_columns = 0;
    std::vector<LevelShape> levels;
    std::vector<TensorShape> tensors;
    std::vector<Operation> operations;
    std::vector<OutputShape> outputs;
    std::vector<uint8_t> constants;  // 64-byte offsets, but no such alignment: read through `constant`

    bool has(size_t offset) const { return offset != SIZE_MAX; }
    template <class T>
    std::vector<T> constant(size_t offset, size_t count) const;
    const LevelShape& level_of(int tensor) const { return levels[tensors[tensor].level]; }
};

inline int ceil_div(int value, int by) { return (value + by - 1) / by; }

// How far the windows of `op` reach beyond the level of its input, in sites.
int border_of(const Program& program, const Operation& op);

// Check everything about `bytes` and take it apart. Throws ProgramError.
Program parse_program(const uint8_t* bytes, size_t length);

}  // namespace edgekit
