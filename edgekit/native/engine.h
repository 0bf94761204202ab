// Runs a sparse program: the cost of a frame follows the number of active sites.
#pragma once

#include <memory>
#include <vector>

#include "plan.h"
#include "sites.h"
#include "threads.h"

namespace edgekit {

class Engine {
  public:
    // Throws ProgramError, std::bad_alloc.
    Engine(Program program, const Kernels& kernels, int threads);

    const Program& program() const { return plan_.program; }
    const Kernels& kernels() const { return kernels_; }
    int threads() const { return team_.capacity(); }

    // Run on one image [rows][columns][channels], of pixels or of normalised floats.
    // `mask` is [mask_rows][mask_columns] of zeros and ones (null for a program without one); its tables are rebuilt
    // only when it differs from the last one. `outputs[i]` is [rows][columns] of the program's output i.
    void run(const uint8_t* pixels, const float* normalised, const uint8_t* mask, float* const* outputs);

    // Add up the seconds of each step from now on.
    void start_clock() { seconds_.assign(plan_.steps.size(), 0.0); }
    const std::vector<double>& seconds() const { return seconds_; }
    const std::vector<Step>& steps() const { return plan_.steps; }

  private:
    // Where the rows of a feature map are while one step runs.
    struct Map {
        uint8_t* base;
        size_t plane;               // elements between blocks
        const int32_t* positions;   // of each active site, or null: one after another from `first` on
        int first;

        size_t place(int site) const { return positions ? positions[site] : site - first; }
    };
    // What a tile of a convolution reads: the first site under the first tap, and how far on other taps are.
    template <class T>
    struct TileInput {
        const T* first;
        size_t plane;               // elements between blocks
        size_t site;                // elements between sites
        ptrdiff_t row, column;      // elements between taps
        int columns;                // taps to a row
        int wrap = 1 << 30;         // first row of taps that lies at the start of a ring of rows
        ptrdiff_t ring = 0;         // elements of such a ring

        // Fill in where each of `count` taps looks first.
        void point(const T** taps, int count) const {
            const T* line = first;
            for (int tap = 0, y = 0; tap < count; y++, line += row) {
                if (y == wrap) line -= ring;
                for (int x = 0; x < columns && tap < count; x++) taps[tap++] = line + x * column;
            }
        }
    };
    struct Scratch {
        Buffer gather, ring, rows;
    };
    struct Job {
        const uint8_t* pixels;
        const float* normalised;
        float* const* outputs;
    };
    struct Span {
        int from, to;
    };

    void set_mask(const uint8_t* mask);
    Map map_of(int tensor) const;
    const Sites& sites_of(int tensor) const { return sites_[plan_.program.tensors[tensor].level]; }
    uint8_t zero_of(int tensor) const;
    static Span share(int count, int thread, int threads);
    Span rows_of(const Sites& sites, int thread) const;

    void run_step(const Step& step, size_t index, int thread);
    void run_chain(const Step& step, size_t index, int thread);
    bool shared_by_channels(const Step& step) const;
    void run_chain_by_channels(const Step& step, int thread);
    void multiply_sites(const Operation& op, const WeightPlan& weights, const Map& input, const Map& output,
                        int thread);
    void convolve(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows, const Map& output,
                  Span sites, Span panels, uint8_t* scratch) const;
    template <class T>
    void convolve_as(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows, const Map& output,
                     Span sites, Span panels, uint8_t* scratch) const;
    template <class T>
    TileInput<T> find_input(const Operation& op, const WeightPlan& weights, int channel, const Map& input,
                            int ring_rows, int first, int count, T*& free) const;
    void filter(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows, const Map& output,
                Span rows, Span blocks) const;
    template <class T>
    void filter_rows(const Operation& op, const WeightPlan& weights, const Map& input, int ring_rows, const Map& output,
                     Span rows, Span blocks) const;
    void surround_with_zeros(int tensor, const Map& map, int thread) const;
    void zero_halo(int tensor, const Map& map, Span rows, int ring_rows, Span blocks) const;
    static Span all_panels(const WeightPlan& weights) { return {0, static_cast<int>(weights.panels.size())}; }
    Span all_blocks(int tensor) const { return {0, plan_.layouts[tensor].blocks}; }

    void read_image(const Operation& op, int thread);
    void read_pixel(uint8_t pixel, int channel, uint8_t* to, size_t element) const;
    void read_floats(const float* normalised, int count, uint8_t* to, size_t element) const;
    void read_pixels(const uint8_t* pixels, const float* normalised, int count, int channels, uint8_t* to,
                     size_t element) const;
    uint8_t quantise_image(float value) const;
    void halve_image(const Operation& op, Span rows);
    void pool(const Operation& op, int thread);
    void pool_rows(const Operation& op, const Map& input, int ring_rows, const Map& output, Span rows) const;
    template <class T>
    void pool_rows_as(const Operation& op, const Map& input, int ring_rows, const Map& output, Span rows) const;
    void upsample(const Operation& op, int thread);
    void deconvolve(const Operation& op, const WeightPlan& weights, int thread);
    void pointwise(const Operation& op, int thread);
    void repack(const Operation& op, int thread);
    void write_output(const Operation& op, int thread);

    const Kernels& kernels_;
    Plan plan_;
    std::vector<Sites> sites_;                      // [levels]
    std::vector<std::vector<int32_t>> rings_;       // [steps] positions of expanded sites in the step's ring
    std::vector<int> rows_written_;                 // [outputs] under this mask, each once: the others are zeros
    std::vector<uint8_t> mask_;
    bool built_ = false;
    Buffer arena_;
    std::vector<Scratch> scratch_;                  // [threads]
    std::vector<float> lookup_;                     // [channels][256] pixels normalised
    std::vector<uint8_t> integer_lookup_;           // and quantised
    bool pixels_as_they_are_ = true;                // the table of bytes changes nothing
    Job job_{};
    std::vector<double> seconds_;                   // [steps], or empty
    Team team_;
};

}  // namespace edgekit
