#include "sites.h"

#include <algorithm>
#include <cstring>

namespace edgekit {
namespace {

// 2x2 max-pool with stride 2, rounding up, in place, as edgekit.masks.pyramid.halve.
void halve(std::vector<uint8_t>& mask, int& rows, int& columns) {
    const int half_rows = (rows + 1) / 2, half_columns = (columns + 1) / 2;
    for (int row = 0; row < half_rows; row++)
        for (int column = 0; column < half_columns; column++) {
            uint8_t any = 0;
            for (int y = 2 * row; y < std::min(rows, 2 * row + 2); y++)
                for (int x = 2 * column; x < std::min(columns, 2 * column + 2); x++) any |= mask[y * columns + x];
            mask[row * half_columns + column] = any;  // behind everything that is still to be read
        }
    rows = half_rows;
    columns = half_columns;
}

}  // namespace

Sites::Sites(const LevelShape& shape, int frame, int far)
    : rows(shape.rows), columns(shape.columns), border(frame), reach(far), masked(shape.masked) {
    row_runs.resize(rows + 1);
    row_first.resize(rows + 1);
    halo_first.resize(rows + 2 * border + 1);
    // Reserved for any mask, so that a new one allocates nothing.
    const auto sites = static_cast<size_t>(rows) * columns;
    runs.reserve(masked ? static_cast<size_t>(rows) * ((columns + 1) / 2) : rows);
    framed.resize(sites);
    halo_columns.reserve(frame_sites());
    active_.resize(frame_sites());
}

void Sites::build(const uint8_t* mask, int mask_rows, int mask_columns) {
    if (masked) {
        cells_.assign(mask, mask + static_cast<size_t>(mask_rows) * mask_columns);
        while (mask_rows > rows || mask_columns > columns) halve(cells_, mask_rows, mask_columns);
    } else {
        cells_.assign(1, 1);
        mask_rows = mask_columns = 1;
    }
    const int row_factor = rows / mask_rows, column_factor = columns / mask_columns;
    runs.clear();
    std::fill(active_.begin(), active_.end(), uint8_t{0});
    int first = 0;
    for (int row = 0; row < rows; row++) {
        row_runs[row] = static_cast<int>(runs.size());
        row_first[row] = first;
        const uint8_t* line = &cells_[static_cast<size_t>(row / row_factor) * mask_columns];
        for (int cell = 0; cell < mask_columns;) {
            if (!line[cell]) {
                cell++;
                continue;
            }
            int end = cell + 1;
            while (end < mask_columns && line[end]) end++;
            const int column = cell * column_factor, length = (end - cell) * column_factor;
            runs.push_back({row, column, length, first});
            const int place = (row + border) * frame_columns() + border + column;
            for (int i = 0; i < length; i++) framed[first + i] = place + i;
            std::memset(&active_[place], 1, length);
            first += length;
            cell = end;
        }
    }
    row_runs[rows] = static_cast<int>(runs.size());
    row_first[rows] = first;
    find_halo();
}

void Sites::find_halo() {
    halo_columns.clear();
    const int width = frame_columns(), height = rows + 2 * border;
    for (int row = 0; row < height; row++) {
        halo_first[row] = static_cast<int>(halo_columns.size());
        if (!border && reach == 0) continue;
        // The runs of all rows within reach, widened by it, less what is active here. 2 marks a halo site, so that
        // overlapping runs give it once.
        uint8_t* line = &active_[static_cast<size_t>(row) * width];
        const int low = std::max(0, row - border - reach), high = std::min(rows - 1, row - border + reach);
        int left = width, right = 0;
        for (int near = low; near <= high; near++)
            for (int run = row_runs[near]; run < row_runs[near + 1]; run++) {
                const int from = std::max(0, runs[run].column + border - reach);
                const int to = std::min(width, runs[run].column + border + runs[run].length + reach);
                for (int column = from; column < to; column++)
                    if (!line[column]) line[column] = 2;
                left = std::min(left, from);
                right = std::max(right, to);
            }
        for (int column = left; column < right; column++)
            if (line[column] == 2) halo_columns.push_back(column);
    }
    halo_first[height] = static_cast<int>(halo_columns.size());
}

}  // namespace edgekit
