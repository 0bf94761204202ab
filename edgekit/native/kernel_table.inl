// Fills a `Kernels` from the templates above it: every number of sites up to a tile, every width of a panel.

namespace edgekit::EDGEKIT_NAMESPACE {

template <template <int, int> class Tile, int Blocks, class Entry, int... Sites>
static void fill_row(Entry (&row)[kMaxTile + 1], std::integer_sequence<int, Sites...>) {
    ((row[Sites + 1] = Tile<Sites + 1, Blocks>::run), ...);
}

template <template <int> class Tile, class Entry, int... Sites>
static void fill_halves(Entry (&row)[kMaxTile + 1], std::integer_sequence<int, Sites...>) {
    ((row[Sites + 1] = Tile<Sites + 1>::run), ...);
}

template <template <int> class Tile, int Most, class Entry>
static void fill_half(Entry (&row)[kMaxTile + 1]) {
    fill_halves<Tile>(row, std::make_integer_sequence<int, Most>{});
}

template <template <int, int> class Tile, int Blocks, int Most, class Entry>
static void fill(Entry (&table)[kMaxPanel + 1][kMaxTile + 1]) {
    fill_row<Tile, Blocks>(table[Blocks], std::make_integer_sequence<int, Most>{});
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
