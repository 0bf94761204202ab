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
    line_.resize(frame_columns());
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
            first += length;
            cell = end;
        }
    }
    row_runs[rows] = static_cast<int>(runs.size());
    row_first[rows] = first;
    find_halo(row_factor);
}

// The runs of all rows within reach, widened by it, less what is active in the row itself.
void Sites::find_halo(int row_factor) {
    halo_columns.clear();
    const int width = frame_columns(), height = rows + 2 * border;
    const auto mark = [&](int row, int wider, uint8_t value) {
        for (int run = row_runs[row]; run < row_runs[row + 1]; run++) {
            const int from = std::max(0, runs[run].column + border - wider);
            const int to = std::min(width, runs[run].column + border + runs[run].length + wider);
            std::memset(&line_[from], value, std::max(0, to - from));
        }
    };
    int known[3] = {-1, -1, -1};  // rows of cells that the last row came from: the next one is often the same
    for (int row = 0; row < height; row++) {
        const int from = static_cast<int>(halo_columns.size());
        halo_first[row] = from;
        if (!border && reach == 0) continue;
        const int own = row - border, low = std::max(0, own - reach), high = std::min(rows - 1, own + reach);
        if (low > high) continue;
        const bool inside = own >= 0 && own < rows;
        const int cells[3] = {low / row_factor, inside ? own / row_factor : -2, high / row_factor};
        if (std::equal(cells, cells + 3, known)) {
            for (int i = halo_first[row - 1]; i < from; i++) halo_columns.push_back(halo_columns[i]);
            continue;
        }
        std::copy(cells, cells + 3, known);
        std::fill(line_.begin(), line_.end(), uint8_t{0});
        for (int near = low; near <= high; near = (near / row_factor + 1) * row_factor) mark(near, reach, 1);
        if (inside) mark(own, 0, 0);
        for (int column = 0; column < width; column++)
            if (line_[column]) halo_columns.push_back(column);
    }
    halo_first[height] = static_cast<int>(halo_columns.size());
}

}  // namespace edgekit
