// Where a kernel finds the sites of a tile: at a constant distance, or at any (`Strided`).
//
// The next channels lie a plane further on, where no processor looks ahead of its own accord: `fetch` asks for them. Windows
// read each of theirs several times, and few planes, so they need not.

namespace edgekit::EDGEKIT_NAMESPACE {

template <class T, int Sites, bool Strided>
struct TileSites {
    TileSites(const T* from, size_t) : first(from) {}
    void move(size_t elements) { first += elements; }
    const T* at(int i, int c) const { return first + i * kBlock + c; }
    void fetch(size_t elements) const {
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i++) __builtin_prefetch(at(i, 0) + elements);
    }

    const T* first;
};

// At any distance: each fourth site has a pointer, from which the others are one, two and three distances away, so that no
// address has to be computed on the way.
template <class T, int Sites>
struct TileSites<T, Sites, true> {
    TileSites(const T* from, size_t site) : distances{0, site, 2 * site, 3 * site} {
        for (int i = 0; i < (Sites + 3) / 4; i++) fours[i] = from + i * 4 * site;
    }
    void move(size_t elements) {
        for (const T*& four : fours) four += elements;
    }
    const T* at(int i, int c) const { return fours[i / 4] + distances[i % 4] + c; }
    void fetch(size_t elements) const {
#pragma GCC unroll 16
        for (int i = 0; i < Sites; i++) __builtin_prefetch(at(i, 0) + elements);
    }

    const T* fours[(Sites + 3) / 4];
    size_t distances[4];
};

}  // namespace edgekit::EDGEKIT_NAMESPACE
