// Integer kernels on AVX2, which has no dot product of four bytes. vpmaddubsw multiplies unsigned bytes by signed ones
// and adds up pairs, but saturates at 16 bits. How each weight is used is chosen when weights are packed, so that
// nothing saturates whatever the input is, and the time does not depend on it.

namespace edgekit::EDGEKIT_NAMESPACE {

// A panel of convolution weights is two halves of 8 filters. The channels that a half reads come in quads, 4 of one
// tap. A quad is *plain* if 255 times its weights of either sign, in each pair of channels, fits in 16 bits. Any other
// one is *turned*, which always fits:
//     x w = (x - 128) |w| + 128 |w|  or, where w is negative,  (127 - x) |w| - 127 |w|
// of which the last term, the same for every x, is added up beforehand. Two quads of a kind that fit in 16 bits
// together are a pair, whose sums are widened together. A half is
//     int32 [8]: what was added up
//     for each kPart blocks of channels, those of all taps one after another: Counts, a Place for each quad, and from a
//     multiple of 32 bytes on int8 [8][4] for each quad: weights, or |w|, and again for what x is xor-ed with
constexpr int kHalf = kBlock / 2;
constexpr int kPart = 64;   // blocks

struct Counts {
    int32_t plain_pairs, plain, turned_pairs, turned;  // of quads; they come in this order
};

struct Place {
    uint8_t block, channel;  // block: of the part
};

static size_t bytes_of_list(int quads) { return (sizeof(Counts) + quads * sizeof(Place) + 31) / 32 * 32; }

// Weights of half a panel.
struct HalfPanel {
    const int8_t* weights;  // [filters][taps][channels]
    int filters, taps, channels, first;

    int blocks() const { return taps * ((channels + kBlock - 1) / kBlock); }

    // Quads of a block that is numbered as in the packed panel.
    int quads(int block) const {
        const int per_tap = blocks() / taps, left = channels - block % per_tap * kBlock;
        return left < kBlock ? (left + 3) / 4 : kBlock / 4;
    }

    // One quad; `block` is the first of the part.
    __m256i at(int block, Place place) const {
        block += place.block;
        const int per_tap = blocks() / taps, channel = block % per_tap * kBlock + place.channel;
        const size_t size = channels - channel < 4 ? channels - channel : 4;
        const size_t stride = static_cast<size_t>(taps) * channels;
        int32_t quads[kHalf] = {};
        for (int n = 0; n < kHalf && first + n < filters; n++)
            std::memcpy(&quads[n], weights + (first + n) * stride + block / per_tap * channels + channel, size);
        return load_bytes(quads);
    }

    // Whether the sums of pairs of channels over two quads, of which the second may be all zeros, fit in 16 bits.
    static bool fit(bool turned, __m256i a, __m256i b) {
        const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi8(1);
        const auto sums = [&](__m256i size_a, __m256i size_b) {  // of unsigned bytes
            return _mm256_add_epi16(_mm256_maddubs_epi16(size_a, ones), _mm256_maddubs_epi16(size_b, ones));
        };
        const auto negative = [&](__m256i w) { return _mm256_sub_epi8(zero, _mm256_min_epi8(w, zero)); };
        __m256i most = sums(_mm256_abs_epi8(a), _mm256_abs_epi8(b));
        if (!turned) {
            const __m256i minus = sums(negative(a), negative(b));
            most = _mm256_max_epi16(minus, _mm256_sub_epi16(most, minus));
        }
        return _mm256_testz_si256(_mm256_cmpgt_epi16(most, _mm256_set1_epi16(turned ? 256 : 128)), ones);
    }

    // Bring quads that fit together to the front; returns how many pairs there are.
    int pair_up(bool turned, int block, Place* quads, int count) const {
        constexpr int kTries = 16;  // more find hardly more
        int pairs = 0;
        for (int i = 0; i + 1 < count;) {
            int j = i + 1;
            const int end = count - j < kTries ? count : j + kTries;
            const Place one = quads[i];
            const __m256i weights_of_one = at(block, one);
            while (j < end && !fit(turned, weights_of_one, at(block, quads[j]))) j++;
            if (j < end) {
                const Place partner = quads[j];
                quads[j] = quads[i + 1];
                quads[i + 1] = partner;
                pairs++;
                i += 2;
            } else {
                quads[i] = quads[--count];
                quads[count] = one;
            }
        }
        return pairs;
    }

    // The part of `count` quads that starts with `block`.
    void pack(int block, int count, uint8_t* to, int32_t* rest) const {
        auto* counts = reinterpret_cast<Counts*>(to);
        auto* places = reinterpret_cast<Place*>(counts + 1);
        to += bytes_of_list(count);
        int plain = 0;
        for (int i = 0, turned = count; plain < turned; i++)
            for (int quad = 0; quad < quads(block + i); quad++) {
                const Place place{static_cast<uint8_t>(i), static_cast<uint8_t>(quad * 4)};
                places[fit(false, at(block, place), _mm256_setzero_si256()) ? plain++ : --turned] = place;
            }
        counts->plain_pairs = pair_up(false, block, places, plain);
        counts->plain = plain - 2 * counts->plain_pairs;
        counts->turned_pairs = pair_up(true, block, places + plain, count - plain);
        counts->turned = count - plain - 2 * counts->turned_pairs;
        for (int i = 0; i < count; i++) {
            int8_t quad[kHalf * 4];
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(quad), at(block, places[i]));
            for (int n = 0; n < kHalf * 4; n++) {
                const int w = quad[n], size = w < 0 ? -w : w;
                to[n] = static_cast<uint8_t>(i < plain ? w : size);
                if (i < plain) continue;
                to[32 + n] = w < 0 ? 0x7F : 0x80;
                rest[n / 4] += w < 0 ? -127 * size : 128 * size;
            }
            to += i < plain ? 32 : 64;
        }
    }
};

static size_t pack_conv_u8_pairs(const int8_t* weights, int filters, int taps, int channels, int first, int, void* to) {
    size_t bytes = 0;
    for (int half = 0; half < 2; half++) {
        const HalfPanel panel{weights, filters, taps, channels, first + half * kHalf};
        auto* rest = to ? reinterpret_cast<int32_t*>(static_cast<uint8_t*>(to) + bytes) : nullptr;
        if (to) std::memset(rest, 0, kHalf * sizeof(int32_t));
        bytes += kHalf * sizeof(int32_t);
        for (int block = 0; block < panel.blocks(); block += kPart) {
            int count = 0;
            for (int i = block; i < block + kPart && i < panel.blocks(); i++) count += panel.quads(i);
            if (to) panel.pack(block, count, static_cast<uint8_t*>(to) + bytes, rest);
            bytes += bytes_of_list(count) + static_cast<size_t>(count) * 64;  // as if every one of them were turned
        }
    }
    return bytes;
}

// Add `Quads` quads to the sums of 8 filters for every site. `weights` has 32 bytes a quad, 64 if it is turned.
template <int Sites, int Quads, bool Turned>
static inline __attribute__((always_inline)) void add_quads(__m256i (&sums)[Sites],
                                                            const uint8_t* const (&inputs)[Quads],
                                                            const uint8_t* weights) {
#pragma GCC unroll 16
    for (int i = 0; i < Sites; i++) {
        __m256i pairs = _mm256_setzero_si256();
#pragma GCC unroll 2
        for (int quad = 0; quad < Quads; quad++) {
            int32_t four;
            std::memcpy(&four, inputs[quad] + i * kBlock, 4);
            const __m256i x = _mm256_set1_epi32(four), w = load_bytes(weights + quad * (Turned ? 64 : 32));
            const __m256i products =
                Turned ? _mm256_maddubs_epi16(w, _mm256_xor_si256(x, load_bytes(weights + quad * 64 + 32)))
                       : _mm256_maddubs_epi16(x, w);
            pairs = quad ? _mm256_add_epi16(pairs, products) : products;
        }
        sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
}

// The sums of 8 filters, from `start` on; returns what follows their weights.
template <int Sites>
static inline __attribute__((always_inline)) const uint8_t* add_half(__m256i (&sums)[Sites], const ConvTileU8& tile,
                                                                     const uint8_t* next, __m256i start) {
    start = _mm256_add_epi32(start, load_bytes(next));
    next += kHalf * sizeof(int32_t);
#pragma GCC unroll 16
    for (int i = 0; i < Sites; i++) sums[i] = start;
    const uint8_t* blocks[kPart];  // a table: computing addresses would take turns with the vectors
    int filled = 0;
    for (int tap = 0; tap < tile.tap_count; tap++) {
        const uint8_t* input = tile.taps[tap];
        for (int left = tile.channels; left > 0; left -= kBlock, input += tile.plane) {
            blocks[filled++] = input;
            if (filled < kPart && (left > kBlock || tap + 1 < tile.tap_count)) continue;
            filled = 0;
            const Counts count = *reinterpret_cast<const Counts*>(next);
            const int quads = 2 * (count.plain_pairs + count.turned_pairs) + count.plain + count.turned;
            auto* place = reinterpret_cast<const Place*>(next + sizeof(Counts));
            auto* weights = next + bytes_of_list(quads);
            next = weights + static_cast<size_t>(quads) * 64;
            const auto at = [&](int i)
                                __attribute__((always_inline)) { return blocks[place[i].block] + place[i].channel; };
            for (int i = 0; i < count.plain_pairs; i++, place += 2, weights += 64)
                add_quads<Sites, 2, false>(sums, {at(0), at(1)}, weights);
            for (int i = 0; i < count.plain; i++, place++, weights += 32)
                add_quads<Sites, 1, false>(sums, {at(0)}, weights);
            for (int i = 0; i < count.turned_pairs; i++, place += 2, weights += 128)
                add_quads<Sites, 2, true>(sums, {at(0), at(1)}, weights);
            for (int i = 0; i < count.turned; i++, place++, weights += 64)
                add_quads<Sites, 1, true>(sums, {at(0)}, weights);
        }
    }
    return next;
}

template <int Sites, int Blocks, class Out>
static void conv_u8_pairs(const ConvTileU8& tile) {
    static_assert(Blocks == 1, "a register of sums to a site, one half after the other");
    auto* bias = static_cast<const int32_t*>(tile.to.branches[0].bias);
    __m256i low[Sites], high[Sites];
    auto* next = add_half<Sites>(low, tile, static_cast<const uint8_t*>(tile.weights), load_bytes(bias));
    add_half<Sites>(high, tile, next, load_bytes(bias + kHalf));
    Sums sums[Sites];
#pragma GCC unroll 16
    for (int i = 0; i < Sites; i++) {
        sums[i][0] = low[i];
        sums[i][1] = high[i];
    }
    finish_tile<Sites, Out>(sums, tile.to);
}

template <int Sites, int Blocks>
struct ConvU8 {
    static void run(const ConvTileU8& tile) { conv_u8_pairs<Sites, Blocks, uint8_t>(tile); }
};
template <int Sites, int Blocks>
struct ConvU8F32 {
    static void run(const ConvTileU8& tile) { conv_u8_pairs<Sites, Blocks, float>(tile); }
};

// Three taps of a depthwise convolution as 16 bits: the first two, and the third by itself. Their weights are larger
// than those of other convolutions: bytes would seldom fit.
struct WideColumn {
    __m256i pairs[2], third[2];

    static constexpr int kBytes = 4 * kBlock * sizeof(int16_t);

    inline __attribute__((always_inline)) WideColumn(const uint8_t* a, const uint8_t* b, const uint8_t* c) {
        const __m256i first = load_wide(a), second = load_wide(b), last = load_wide(c), zero = _mm256_setzero_si256();
        pairs[0] = _mm256_unpacklo_epi16(first, second);
        pairs[1] = _mm256_unpackhi_epi16(first, second);
        third[0] = _mm256_unpacklo_epi16(last, zero);
        third[1] = _mm256_unpackhi_epi16(last, zero);
    }

    inline __attribute__((always_inline)) void add_to(Sums& sums, const uint8_t* weights) const {
#pragma GCC unroll 2
        for (int half = 0; half < 2; half++) {
            const __m256i a = _mm256_madd_epi16(pairs[half], load_bytes(weights + 64 * half));
            const __m256i b = _mm256_madd_epi16(third[half], load_bytes(weights + 64 * half + 32));
            sums[half] = _mm256_add_epi32(sums[half], _mm256_add_epi32(a, b));
        }
    }

    static void pack(const int (&w)[8][3], int half, uint8_t* to) {
        auto* words = reinterpret_cast<int16_t*>(to + 64 * half);
        for (int c = 0; c < 8; c++)
            for (int row = 0; row < 4; row++) words[row / 2 * 16 + 2 * c + row % 2] = row < 3 ? w[c][row] : 0;
    }
};

}  // namespace edgekit::EDGEKIT_NAMESPACE
