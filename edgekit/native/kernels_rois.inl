// RoI max pooling (rois.cpp). Compiler vectors: nothing here needs more.

#include <cstring>

namespace edgekit::EDGEKIT_NAMESPACE {

constexpr int kPoolLanes = 16, kPoolVectors = kPooledChannels / kPoolLanes;
using PoolVector = float __attribute__((vector_size(kPoolLanes * sizeof(float))));

// Maxima of `count` places, `stride` floats apart; a NaN is passed over unless it comes first.
static inline __attribute__((always_inline)) void highest(const float* from, int count, size_t stride, float* to) {
    PoolVector best[kPoolVectors];
    std::memcpy(best, from, sizeof best);
    for (int i = 1; i < count; i++) {
        from += stride;
        PoolVector here[kPoolVectors];
        std::memcpy(here, from, sizeof here);
        for (int v = 0; v < kPoolVectors; v++) best[v] = best[v] < here[v] ? here[v] : best[v];
    }
    std::memcpy(to, best, sizeof best);
}

// `best` and what lies at `from`: by reference, as a vector that is passed by value depends on the instruction set.
static inline void keep_larger(PoolVector& best, const float* from) {
    PoolVector here;
    std::memcpy(&here, from, sizeof here);
    best = best < here ? here : best;
}

// The same of whole rows of `count` floats: along memory, which is fetched ahead, three rows at a time.
static inline void highest_rows(const float* from, int rows, size_t stride, size_t count, float* to) {
    for (int row = 0; row < rows; row += row ? 2 : 3) {
        const float* second = from + (row + 1 < rows ? stride : 0);
        const float* third = row == 0 && rows > 2 ? from + 2 * stride : second;
        for (size_t i = 0; i < count; i += kPoolLanes) {
            PoolVector best;
            std::memcpy(&best, row ? to + i : from + i, sizeof best);
            if (row) keep_larger(best, from + i);
            keep_larger(best, second + i);
            keep_larger(best, third + i);
            std::memcpy(to + i, &best, sizeof best);
        }
        from += (row ? 2 : 3) * stride;
    }
}

// [bins][channels] -> [channels][bins].
static inline void turn_bins(const float (*bins)[kPooledChannels], float* to) {
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
    using Four = float __attribute__((vector_size(16)));
    for (int bin = 0; bin < kRoiBins * kRoiBins; bin += 4)
        for (int c = 0; c < kPooledChannels; c += 4) {
            Four row[4];
            for (int i = 0; i < 4; i++) std::memcpy(&row[i], &bins[bin + i][c], sizeof(Four));
            const Four a = __builtin_shufflevector(row[0], row[1], 0, 4, 1, 5);
            const Four b = __builtin_shufflevector(row[2], row[3], 0, 4, 1, 5);
            const Four d = __builtin_shufflevector(row[0], row[1], 2, 6, 3, 7);
            const Four e = __builtin_shufflevector(row[2], row[3], 2, 6, 3, 7);
            const Four turned[4] = {
                __builtin_shufflevector(a, b, 0, 1, 4, 5), __builtin_shufflevector(a, b, 2, 3, 6, 7),
                __builtin_shufflevector(d, e, 0, 1, 4, 5), __builtin_shufflevector(d, e, 2, 3, 6, 7)};
            for (int i = 0; i < 4; i++) std::memcpy(to + (c + i) * kRoiBins * kRoiBins + bin, &turned[i], sizeof(Four));
        }
    return;
#endif
#endif
    for (int c = 0; c < kPooledChannels; c++)
        for (int bin = 0; bin < kRoiBins * kRoiBins; bin++) *to++ = bins[bin][c];
}

// One axis after the other, so that overlapping bins share the first.
static void pool_roi(const float* cells, int columns, const RoiAxis& down, const RoiAxis& across, float* line,
                     float* to) {
    float bins[kRoiBins * kRoiBins][kPooledChannels] = {};
    const int low = across.begin[0], high = across.end[kRoiBins - 1];
    const size_t stride = static_cast<size_t>(columns) * kPooledChannels;
    const size_t first = static_cast<size_t>(low) * kPooledChannels;
    const size_t count = high > low ? static_cast<size_t>(high - low) * kPooledChannels : 0;
    for (int row = 0; row < kRoiBins; row++) {
        const int top = down.begin[row], height = down.end[row] - top;
        if (height <= 0) continue;
        highest_rows(cells + top * stride + first, height, stride, count, line + first);
        for (int column = 0; column < kRoiBins; column++) {
            const int left = across.begin[column], width = across.end[column] - left;
            if (width > 0)
                highest(line + static_cast<size_t>(left) * kPooledChannels, width, kPooledChannels,
                        bins[row * kRoiBins + column]);
        }
    }
    turn_bins(bins, to);
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
