// What is decided once, when a program is loaded: layouts, packed weights, memory, and which operations run together.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "kernels.h"
#include "program.h"

namespace edgekit {

// Memory on a cache line, uninitialised. What is large lies in large pages where there are any: a processor knows the
// places of few pages at a time, and weights of tens of megabytes are each read once a frame.
class Buffer {
  public:
    Buffer() = default;
    explicit Buffer(size_t bytes) : memory_(allocate(bytes), &std::free), bytes_(bytes) {
        if (!memory_) throw std::bad_alloc();
    }
    uint8_t* data() const { return memory_.get(); }
    size_t bytes() const { return bytes_; }

  private:
    static uint8_t* allocate(size_t bytes) {
        constexpr size_t kLine = 64, kLargePage = 2 << 20;
        const size_t unit = bytes < kLargePage ? kLine : kLargePage, rounded = (bytes + kLine + unit - 1) / unit * unit;
        void* memory = std::aligned_alloc(unit, rounded);
#if defined(__linux__)
        if (memory && unit == kLargePage) madvise(memory, bytes / kLargePage * kLargePage, MADV_HUGEPAGE);
#endif
        return static_cast<uint8_t*>(memory);
    }

    std::unique_ptr<uint8_t, decltype(&std::free)> memory_{nullptr, &std::free};
    size_t bytes_ = 0;
};

// How the feature map of a tensor lies in memory. See Sites for compact and framed maps.
struct Layout {
    bool framed = false;
    bool packed = false;  // framed, and [rows][columns][channels] without blocks: an image of at most 4 channels
    bool given = false;  // [sites][channels] of all sites, as the caller gives it: his floats are read where they are
    int blocks = 0;  // of 16 channels
    std::vector<int> physical;  // place of each channel; parts of a concatenation start on a block
    size_t element = 4;  // bytes
    size_t offset = 0;  // in the arena
};

struct Panel {
    int first_block, blocks;
    size_t weights;  // byte offset in ConvPlan::weights
    bool halved = false;  // the last block is half a one

    int filters() const { return halved ? kHalvedBlock : blocks * kBlock; }
};

// A convolution, or one block after another of a depthwise one (one panel a block).
struct WeightPlan {
    std::vector<Panel> panels;
    int taps = 1, channels = 0;  // of a ConvTile
    int tile = 1;  // sites that a kernel takes at once, at most
    int block = 1;  // sites that pass by one panel after another, at most
    int slice = 1;  // channels that are summed up at a time
    int branches = 1;
    int first_blocks[2] = {0, 0};  // of the output map, for each branch
    Buffer weights;
    std::vector<float> bias[2], multipliers[2];
    std::vector<int32_t> integer_bias[2];
    bool bounded = false;  // see Epilogue
};

inline bool is_pointwise(const Operation& op) {
    return op.kernel_rows == 1 && op.kernel_columns == 1 && op.stride == 1;
}

constexpr size_t kCachedWeights = 1 << 20;  // bytes of a convolution that the second level of cache keeps
constexpr int kMaxTiles = 64;  // to a block of sites

struct Step {
    enum class Form { single, chain } form;
    // chain: a convolution (or -1), something with windows, and a pointwise convolution (or -1), row by row, so that what
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

// Whether the last filters of a convolution are computed as half a block. What it reads is laid out already.
bool ends_in_half_block(const Program& program, const std::vector<Layout>& layouts, const Operation& op,
                        const Kernels& kernels);

// The packed weights of one operation; empty for one that has none.
WeightPlan pack_weights(const Program& program, const std::vector<Layout>& layouts, const Operation& operation,
                        const Kernels& kernels);

Plan make_plan(Program program, const Kernels& kernels);

}  // namespace edgekit
