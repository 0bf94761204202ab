// What is decided once, when a program is loaded: layouts, packed weights, memory, and which operations run together.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "kernels.h"
#include "program.h"

namespace edgekit {

// Memory on a cache line, uninitialised.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes)
        : memory_(static_cast<uint8_t*>(std::aligned_alloc(64, (bytes + 127) / 64 * 64)), &std::free), bytes_(bytes) {
        if (!memory_) throw std::bad_alloc();
    }
    uint8_t* data() const { return memory_.get(); }
    size_t bytes() const { return bytes_; }

  private:
    std::unique_ptr<uint8_t, decltype(&std::free)> memory_{nullptr, &std::free};
    size_t bytes_ = 0;
};

// How the feature map of a tensor lies in memory. See Sites for compact and framed maps.
struct Layout {
    bool framed = false;
    bool packed = false;  // framed, and [rows][columns][channels] without blocks: an image of at most 4 channels
    int blocks = 0;  // of 16 channels
    std::vector<int> physical;  // place of each channel; parts of a concatenation start on a block
    size_t element = 4;  // bytes
    size_t offset = 0;  // in the arena
};

struct Panel {
    int first_block, blocks;
    size_t weights;  // byte offset in ConvPlan::weights
};

// A convolution, or one block after another of a depthwise one (one panel a block).
struct WeightPlan {
    std::vector<Panel> panels;
    int taps = 1, channels = 0;  // of a ConvTile
    int branches = 1;
    int first_blocks[2] = {0, 0};  // of the output map, for each branch
    Buffer weights;
    std::vector<float> bias[2], multipliers[2];
    std::vector<int32_t> integer_bias[2];
    bool bounded = false;  // see Epilogue
};

struct Step {
    enum class Form { single, chain } form;
    // chain: a pointwise or first convolution (or -1), a depthwise one and a pointwise one, row by row, so that what
    // lies between them stays in the cache.
    int expand = -1;
    int main = -1;  // operation
    int project = -1;
    int rows = 0;  // chain: most output rows to a group
    int ring_rows = 0;  // chain: rows of the expanded map that are kept
    bool waits = true;  // for what other threads have written or read in the steps before
    bool by_channels = false;  // chain: what lies between has a place in the arena, for threads that share out channels
};

struct Plan {
    Program program;
    std::vector<Layout> layouts;  // [tensors]
    std::vector<int> borders, reaches;  // [levels] see Sites
    std::vector<WeightPlan> weights;  // [operations]
    std::vector<Step> steps;
    size_t arena_bytes = 0;
    size_t gather_bytes = 0, ring_bytes = 0, rows_bytes = 0;  // scratch of one thread
};

// The packed weights of one operation; empty for one that has none.
WeightPlan pack_weights(const Program& program, const std::vector<Layout>& layouts, const Operation& operation,
                        const Kernels& kernels);

Plan make_plan(Program program, const Kernels& kernels);

}  // namespace edgekit
