// Which sites of each level are active, as runs along rows: rebuilt when the mask changes, reused by every layer.
#pragma once

#include <cstdint>
#include <vector>

#include "program.h"

namespace edgekit {

// Consecutive active sites of one row.
struct Run {
    int row, column, length;
    int first;  // number of its first site among all active ones, in row-major order
};

// The active sites of one level.
//
// A feature map comes in two layouts, both in blocks of 16 channels, [channels / 16][sites][16]:
// *compact*: only the active sites, in row-major order. What a pointwise convolution reads and writes.
// *framed*: all sites and a frame of `border` around them, but only active ones hold values, and only those sites
// within `reach` of them that a window can touch (the `halo`) hold zeros. What windows read: a neighbour is at a
// constant offset. A window with a stride may be centred on an inactive site, so `reach` can be more than `border`.
class Sites {
  public:
    Sites(const LevelShape& shape, int border, int reach);

    // Fill in everything for `mask` [rows][columns] of zeros and ones (ignored by an unmasked level).
    void build(const uint8_t* mask, int mask_rows, int mask_columns);

    int count() const { return row_first[rows]; }
    int frame_columns() const { return columns + 2 * border; }
    int frame_sites() const { return (rows + 2 * border) * frame_columns(); }

    int rows, columns, border, reach;
    bool masked;
    std::vector<Run> runs;
    std::vector<int> row_runs;      // [rows + 1] first run of each row
    std::vector<int> row_first;     // [rows + 1] first active site of each row
    std::vector<int32_t> framed;    // place of each active site in a framed map, count() of them
    std::vector<int> halo_columns;  // of the inactive sites to be zeroed, by row: from 0 (left frame) on
    std::vector<int> halo_first;    // [rows + 2 * border + 1]

  private:
    void find_halo(int row_factor);
    std::vector<uint8_t> line_;   // one framed row of zeros and ones
    std::vector<uint8_t> cells_;  // the mask, at this level or the coarsest grid that it repeats
};

}  // namespace edgekit
