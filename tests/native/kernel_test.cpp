// Compares every kernel of every instruction set that this processor can run with the reference kernels, on random
// data. Prints what differs and exits 1. Usage: kernel_test [--seed N] [--isa NAME]
//
// What is expected comes from the reference kernels, one site and one block of channels at a time, so the sizes of
// tiles and panels are tested too. Integers have to be equal, floats nearly. Outputs lie in buffers filled with a
// pattern, all of which is compared: a kernel that writes beside its sites is found.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "isa.h"
#include "packing.h"
#include "resize.h"

using namespace edgekit;

namespace {

constexpr size_t kSlack = 256;  // bytes behind every map that kernels may read, as in the engine
constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::mt19937 generator;
int failures = 0;
long cases = 0;

int integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }
float real(float low, float high) { return std::uniform_real_distribution<float>(low, high)(generator); }
bool chance(int one_of) { return integer(1, one_of) == 1; }

template <class T>
std::vector<T> bytes_of(size_t count) {
    std::vector<T> values(count);
    for (T& value : values) value = static_cast<T>(generator());
    return values;
}

std::vector<float> reals(size_t count, float size) {
    std::vector<float> values(count);
    for (float& value : values) value = real(-size, size);
    return values;
}

// What is needed to run one convolution or depthwise kernel, and to say which it was.
struct Case {
    const Kernels* kernels;
    std::string what;
};

void report(const Case& test, const std::string& difference) {
    if (++failures <= 40) std::printf("%s %s: %s\n", test.kernels->name, test.what.c_str(), difference.c_str());
}

// Every byte of two maps of outputs, or every float within rounding errors. A NaN equals only a NaN.
template <class Out>
void compare(const Case& test, const std::vector<Out>& got, const std::vector<Out>& expected, float tolerance) {
    cases++;
    for (size_t i = 0; i < got.size(); i++) {
        if (std::memcmp(&got[i], &expected[i], sizeof(Out)) == 0) continue;
        const double x = got[i], y = expected[i];
        if (tolerance > 0 && std::abs(x - y) <= tolerance * std::max(1.0, std::abs(y))) continue;
        if (tolerance > 0 && std::isnan(x) && std::isnan(y)) continue;
        report(test, "element " + std::to_string(i) + " is " + std::to_string(x) + ", expected " + std::to_string(y));
        return;
    }
}

// Places for `count` sites in a map of `count` + 5, in the engine's order: ascending, side by side or with gaps, or
// around the end of a ring of rows.
std::vector<int32_t> random_positions(int count) {
    std::vector<int32_t> places(count + 5);
    std::iota(places.begin(), places.end(), 0);
    if (chance(3)) {
        places.erase(places.begin(), places.begin() + integer(0, 5));
    } else {
        while (static_cast<int>(places.size()) > count)
            places.erase(places.begin() + integer(0, static_cast<int>(places.size()) - 1));
        if (chance(3)) std::rotate(places.begin(), places.begin() + integer(0, count - 1), places.end());
    }
    places.resize(count);
    return places;
}

// Bounds of a uint8 result: integers, most often the whole range.
// Whether sums of 32 bits stay far below 2^30 when they are multiplied: kernels may then save a comparison.
bool is_bounded(const std::vector<float>& multipliers) {
    return std::all_of(multipliers.begin(), multipliers.end(), [](float value) { return std::abs(value) <= 0.25f; });
}

void random_integer_bounds(Epilogue& to) {
    to.low = 0;
    to.high = 255;
    to.zero_point = chance(3) ? integer(0, 1) * 255 : integer(0, 255);
    if (chance(2)) to.low = static_cast<float>(to.zero_point);
    if (chance(3)) to.high = static_cast<float>(integer(static_cast<int>(to.low), 255));
}

void random_float_bounds(Epilogue& to) {
    to.low = chance(2) ? 0.0f : -kInfinity;
    to.high = chance(3) ? 0.5f : kInfinity;
}

// ---- Convolutions: In is float or uint8_t, Out is float or uint8_t.

template <class In, class Out>
struct Conv {
    static constexpr bool kInteger = sizeof(In) == 1;
    using Weight = std::conditional_t<kInteger, int8_t, float>;
    using Tile = std::conditional_t<kInteger, ConvTileU8, ConvTileF32>;

    int blocks, sites, channels, taps, filters;
    std::vector<std::vector<In>> inputs;    // [taps][blocks of input][sites][16]
    std::vector<Weight> weights;            // [filters][taps][channels]
    std::vector<int32_t> integer_bias[2];
    std::vector<float> bias[2], multipliers[2];
    std::vector<Out> residual, output[2];
    std::vector<int32_t> positions, residual_positions;
    Epilogue to{};
    size_t input_site = kBlock, input_plane, output_sites;

    Conv(int blocks_, int sites_, int channels_, int taps_, bool strided, int filters_ = 0)
        : blocks(blocks_),
          sites(sites_),
          channels(channels_),
          taps(taps_),
          filters(filters_ ? filters_ : blocks_ * kBlock - (chance(2) ? integer(0, kBlock - 1) : 0)) {
        const int input_blocks = (channels + kBlock - 1) / kBlock;
        if (strided && chance(3)) {
            static constexpr size_t distances[] = {1, 3, 6, 9, 32, 48, 64, 1000};
            input_site = distances[integer(0, 7)];
        }
        input_plane = (sites + integer(0, 2)) * input_site + kBlock;
        for (int tap = 0; tap < taps; tap++)
            inputs.push_back(random_input(input_blocks * input_plane + kSlack / sizeof(In)));
        const size_t depth = static_cast<size_t>(taps) * channels;
        random_weights(depth);
        if (kInteger && chance(3)) extreme_inputs();
        to.branch_count = integer(1, 2);
        output_sites = sites + 5;
        to.output_plane = to.residual_plane = output_sites * kBlock;
        if (chance(2)) positions = random_positions(sites);
        if (chance(2)) residual_positions = random_positions(sites);
        const bool multiplied = kInteger || chance(2);
        for (int branch = 0; branch < to.branch_count; branch++) random_branch(branch, depth, multiplied);
        if (chance(2)) {
            residual.resize(blocks * to.residual_plane);
            for (Out& value : residual)
                value = sizeof(Out) == 1 ? static_cast<Out>(generator()) : static_cast<Out>(real(-1, 1));
        }
        if (sizeof(Out) == 1)
            random_integer_bounds(to);
        else
            random_float_bounds(to);
        to.residual_scale = real(0.01f, 2.0f);
        to.residual_zero_point = integer(0, 255);
        to.bounded = is_bounded(multipliers[0]) && is_bounded(multipliers[1]) && chance(2);
    }

    static std::vector<In> random_input(size_t count) {
        if constexpr (kInteger) {
            if (chance(6)) return std::vector<In>(count, static_cast<In>(255 * integer(0, 1)));  // extreme sums
            return bytes_of<In>(count);
        } else {
            auto values = reals(count, 1.0f);
            if (chance(20)) values[integer(0, static_cast<int>(count) - 1)] = std::nanf("");
            return values;
        }
    }

    void random_weights(size_t depth) {
        if constexpr (kInteger) {
            weights = bytes_of<Weight>(filters * depth);
            if (chance(3)) {  // what exporters write: never -128
                for (Weight& weight : weights) weight = std::max<Weight>(weight, -127);
            } else if (chance(3)) {
                for (Weight& weight : weights) weight = chance(2) ? -128 : 127;
            } else if (chance(4)) {
                std::fill(weights.begin(), weights.end(), static_cast<Weight>(chance(2) ? -128 : 127));
            } else if (chance(2)) {  // sums of products of two, four or eight are just within 16 bits, or just not
                const int size = 8 << integer(0, 3), larger = chance(2) ? 20 : 2, negative = chance(2) ? 30 : 2;
                for (Weight& weight : weights) weight = (size + (chance(larger) ? 1 : 0)) * (chance(negative) ? -1 : 1);
            } else if (chance(2)) {  // few large ones, as real weights have
                for (Weight& weight : weights) weight = chance(integer(2, 8)) ? weight : weight / 8;
            }
        } else {
            weights = reals(filters * depth, 2.0f / std::sqrt(static_cast<float>(depth)));
        }
    }

    // At every site, the inputs that make the sum of one filter the largest or smallest that there can be.
    void extreme_inputs() {
        for (int site = 0; site < sites; site++) {
            const int filter = integer(0, filters - 1);
            const bool largest = chance(2);
            for (int tap = 0; tap < taps; tap++)
                for (int c = 0; c < channels; c++)
                    inputs[tap][c / kBlock * input_plane + site * input_site + c % kBlock] =
                        (weights[(static_cast<size_t>(filter) * taps + tap) * channels + c] > 0) == largest ? 255 : 0;
        }
    }

    void random_branch(int branch, size_t depth, bool multiplied) {
        const size_t width = static_cast<size_t>(blocks) * kBlock;
        if (kInteger) {
            integer_bias[branch].resize(width);
            for (auto& value : integer_bias[branch]) value = integer(-(1 << 20), 1 << 20);
        } else {
            bias[branch] = reals(width, 1.0f);
        }
        if (multiplied) {
            const float unit = kInteger ? 1.0f / (100.0f * std::sqrt(static_cast<float>(depth))) : 1.0f;
            const float size = sizeof(Out) == 1 && chance(8) ? 1e6f : 1.0f;  // everything is clamped
            for (size_t i = 0; i < width; i++)
                multipliers[branch].push_back(unit * size * real(kInteger ? 0.0f : -1.5f, 1.5f));
        }
        const Out pattern = sizeof(Out) == 1 ? static_cast<Out>(0xA5) : static_cast<Out>(1234.5f);
        output[branch].assign(blocks * to.output_plane, pattern);
    }

    std::vector<uint8_t> packed(const Kernels& kernels, int first, int count, bool halved) const {
        std::vector<uint8_t> panel;
        if constexpr (kInteger) {
            panel.resize(kernels.pack_conv_u8(weights.data(), filters, taps, channels, first * kBlock, count, nullptr) +
                         128);
            kernels.pack_conv_u8(weights.data(), filters, taps, channels, first * kBlock, count, aligned(panel));
        } else {
            const size_t depth = static_cast<size_t>(taps) * channels;
            panel.resize(depth * count * kBlock * sizeof(float) + 128);
            auto* place = static_cast<float*>(aligned(panel));
            if (halved) {
                pack_conv_half(weights.data(), filters, depth, first * kBlock, kernels.half_channels, place);
                return panel;
            }
            for (size_t i = 0; i < depth; i++)
                for (int k = first * kBlock; k < (first + count) * kBlock; k++)
                    *place++ = k < filters ? weights[k * depth + i] : 0;
        }
        return panel;
    }

    static void* aligned(std::vector<uint8_t>& bytes) {
        return reinterpret_cast<void*>((reinterpret_cast<uintptr_t>(bytes.data()) + 63) / 64 * 64);
    }

    // Run sites first..first + count - 1 of one panel, by conv_f32_half if its last block is `halved`.
    void run(const Kernels& kernels, std::vector<Out> (&outputs)[2], int block, int width, int first, int count,
             bool halved = false) {
        auto panel = packed(kernels, block, width, halved);
        std::vector<const In*> starts;
        for (auto& input : inputs) starts.push_back(input.data() + first * input_site);
        Tile tile{
            starts.data(), input_plane,   input_site,
            taps,          channels,      static_cast<const std::conditional_t<kInteger, void, float>*>(aligned(panel)),
            panel.data(),  integer(0, 2), to};
        for (int branch = 0; branch < to.branch_count; branch++) {
            Branch& b = tile.to.branches[branch];
            const int channel = block * kBlock;
            b.bias = kInteger ? static_cast<const void*>(&integer_bias[branch][channel])
                              : static_cast<const void*>(&bias[branch][channel]);
            b.multipliers = multipliers[branch].empty() ? nullptr : &multipliers[branch][channel];
            b.output = outputs[branch].data() + block * to.output_plane + (positions.empty() ? first * kBlock : 0);
            b.residual = residual.empty() ? nullptr
                                          : residual.data() + block * to.residual_plane +
                                                (residual_positions.empty() ? first * kBlock : 0);
        }
        tile.to.positions = positions.empty() ? nullptr : positions.data() + first;
        tile.to.residual_positions = residual_positions.empty() ? nullptr : residual_positions.data() + first;
        if constexpr (!kInteger)
            (halved ? (input_site == kBlock ? kernels.conv_f32_half : kernels.conv_f32_half_strided)
                    : (input_site == kBlock ? kernels.conv_f32 : kernels.conv_f32_strided)[width])[count](tile);
        else if constexpr (sizeof(Out) == 1)  // the reference takes one site at a time, so it needs none
            (input_site == kBlock || &kernels == &reference_kernels() ? kernels.conv_u8
                                                                      : kernels.conv_u8_strided)[width][count](tile);
        else
            kernels.conv_u8_f32[width][count](tile);
    }

    // A block and a half: the second blocks of both branches, which have eight channels, share the first one's.
    void test_half(const Kernels& kernels) {
        constexpr int kHalf = kBlock / 2;
        if (!residual.empty())  // the reference adds the first half to each branch
            for (size_t i = 0; i < output_sites; i++)
                std::copy_n(&residual[to.residual_plane + i * kBlock], kHalf,
                            &residual[to.residual_plane + i * kBlock + kHalf]);
        std::vector<Out> expected[2] = {output[0], output[1]}, got[2] = {output[0], output[1]};
        for (int block = 0; block < blocks; block++)
            for (int site = 0; site < sites; site++) run(reference_kernels(), expected, block, 1, site, 1);
        for (int site = 0; site < sites; site++) {
            const size_t place = to.output_plane + (positions.empty() ? site : positions[site]) * kBlock;
            const size_t other = to.residual_plane + (residual_positions.empty() ? site : residual_positions[site]) * kBlock;
            for (int c = 0; c < kHalf; c++) {
                const float alone = residual.empty() ? 0.0f : residual[other + c];
                expected[0][place + kHalf + c] = to.branch_count == 2 ? expected[1][place + c]
                                                                      : std::min(std::max(alone, to.low), to.high);
            }
        }
        if (to.branch_count == 2)
            std::copy(output[1].begin() + to.output_plane, output[1].end(), expected[1].begin() + to.output_plane);
        run(kernels, got, 0, blocks, 0, sites, true);
        const Case test{&kernels, "conv_f32_half[" + std::to_string(sites) + "], " + std::to_string(channels) +
                                      " channels, " + std::to_string(input_site) + " elements to a site, " +
                                      std::to_string(taps) + " taps, " + std::to_string(filters) + " filters, " +
                                      std::to_string(to.branch_count) + " branches"};
        for (int branch = 0; branch < to.branch_count; branch++) compare(test, got[branch], expected[branch], 1e-4f);
    }

    void test(const Kernels& kernels) {
        std::vector<Out> expected[2] = {output[0], output[1]}, got[2] = {output[0], output[1]};
        for (int block = 0; block < blocks; block++)
            for (int site = 0; site < sites; site++) run(reference_kernels(), expected, block, 1, site, 1);
        run(kernels, got, 0, blocks, 0, sites);
        const std::string name = !kInteger ? "conv_f32" : sizeof(Out) == 1 ? "conv_u8" : "conv_u8_f32";
        const Case test{&kernels, name + "[" + std::to_string(blocks) + "][" + std::to_string(sites) + "], " +
                                      std::to_string(channels) + " channels, " + std::to_string(input_site) +
                                      " elements to a site, " + std::to_string(taps) + " taps, " +
                                      std::to_string(filters) + " filters, " + std::to_string(to.branch_count) +
                                      " branches" + (positions.empty() ? "" : ", positions") +
                                      (residual.empty() ? "" : ", residual")};
        for (int branch = 0; branch < to.branch_count; branch++)
            compare(test, got[branch], expected[branch], kInteger ? 0.0f : 1e-4f);
    }
};

int random_channels(bool quads) {
    static const int counts[] = {1,  2,  3,  4,  5,  8,  12, 13, 15,  16,  17,  20,
                                 28, 31, 32, 33, 48, 63, 64, 65, 127, 128, 129, 130};
    const int channels = chance(2) ? counts[integer(0, 23)] : integer(1, 130);
    return quads ? (channels + 3) / 4 * 4 : channels;
}

template <class In, class Out>
void test_convolutions(const Kernels& kernels, int repeats) {
    constexpr bool integers = sizeof(In) == 1;
    const bool strided = integers ? sizeof(Out) == 1 && kernels.conv_u8_strided[1][1] : true;
    const int panel = integers ? kernels.panel_u8 : kernels.panel_f32;
    for (int blocks = 1; blocks <= panel; blocks++) {
        const int most = integers ? kernels.tile_u8[blocks] : kernels.tile_f32[blocks];
        for (int sites = 1; sites <= most; sites++)
            for (int i = 0; i < repeats; i++)
                Conv<In, Out>(blocks, sites, random_channels(integers), chance(2) ? 1 : integer(1, 9), strided)
                    .test(kernels);
    }
    for (int channels = 1; channels <= 130; channels++) {  // every tail once
        if (integers && channels % 4) continue;
        const int blocks = integer(1, panel);
        Conv<In, Out>(blocks, integers ? kernels.tile_u8[blocks] : kernels.tile_f32[blocks], channels, 1, strided)
            .test(kernels);
    }
    for (const int channels : {16, 20, 64, 512, 1020, 1024, 1028, 2100})  // with 9 taps, some are many
        Conv<In, Out>(1, integer(1, integers ? kernels.tile_u8[1] : kernels.tile_f32[1]), channels, chance(2) ? 1 : 9,
                      strided)
            .test(kernels);
}

void test_halves(const Kernels& kernels, int repeats) {
    for (int sites = 1; sites <= kernels.tile_f32_half; sites++)
        for (int i = 0; i < repeats; i++) {
            const int pairs = kernels.half_channels, channels = (random_channels(false) + pairs - 1) / pairs * pairs;
            Conv<float, float>(2, sites, channels, chance(2) ? 1 : integer(1, 9), true, integer(kBlock + 1, kHalvedBlock))
                .test_half(kernels);
        }
}

// ---- Depthwise convolutions.

template <class In, class Out>
void test_depthwise(const Kernels& kernels, int rows, int columns, int stride, int length) {
    constexpr bool integers = sizeof(In) == 1;
    using Weight = std::conditional_t<integers, int8_t, float>;
    const int taps = rows * columns, channels = integer(1, 2 * kBlock), first = channels > kBlock ? kBlock : 0;
    const auto weights = [&] {
        if constexpr (integers) {
            auto values = bytes_of<Weight>(static_cast<size_t>(taps) * channels);
            if (!chance(3))
                for (Weight& value : values) value = std::max<Weight>(value, -127);
            else if (chance(2))
                std::fill(values.begin(), values.end(), static_cast<Weight>(chance(2) ? -128 : 127));
            return values;
        } else {
            return reals(static_cast<size_t>(taps) * channels, 1.0f);
        }
    }();
    const size_t width = static_cast<size_t>(length - 1) * stride + columns;
    std::vector<std::vector<In>> lines;
    std::vector<const In*> starts;
    for (int row = 0; row < rows; row++) {
        lines.push_back(Conv<In, Out>::random_input(width * kBlock + kSlack / sizeof(In)));
        starts.push_back(lines.back().data());
    }
    std::vector<int32_t> integer_bias(kBlock);
    for (auto& value : integer_bias) value = integer(-(1 << 16), 1 << 16);
    const auto bias = reals(kBlock, 1.0f);
    auto multipliers = reals(kBlock, sizeof(Out) == 1 && chance(8) ? 1e6f : 0.02f);
    for (float& value : multipliers) value = std::abs(value);
    Epilogue to{};
    to.branch_count = 1;
    if (sizeof(Out) == 1)
        random_integer_bounds(to);
    else
        random_float_bounds(to);
    to.branches[0].bias =
        integers ? static_cast<const void*>(integer_bias.data()) : static_cast<const void*>(bias.data());
    to.branches[0].multipliers = integers ? multipliers.data() : nullptr;
    to.bounded = is_bounded(multipliers) && chance(2);

    const auto run = [&](const Kernels& with) {
        std::vector<Out> output(static_cast<size_t>(length + 5) * kBlock,
                                sizeof(Out) == 1 ? static_cast<Out>(0xA5) : static_cast<Out>(1234.5f));
        to.branches[0].output = output.data();
        std::vector<uint8_t> packed;
        if constexpr (integers) {
            packed.resize(with.pack_depthwise_u8(weights.data(), taps, channels, first, nullptr) + 128);
            void* place = Conv<In, Out>::aligned(packed);
            with.pack_depthwise_u8(weights.data(), taps, channels, first, place);
            const DepthwiseRunU8 job{starts.data(), length, rows, columns, stride, place, to};
            (sizeof(Out) == 1 ? with.depthwise_u8 : with.depthwise_u8_f32)(job);
        } else {
            std::vector<float> spread(static_cast<size_t>(taps) * kBlock, 0.0f);
            for (int tap = 0; tap < taps; tap++)
                for (int c = 0; c < kBlock && first + c < channels; c++)
                    spread[tap * kBlock + c] = weights[tap * channels + first + c];
            with.depthwise_f32(DepthwiseRunF32{starts.data(), length, rows, columns, stride, spread.data(), to});
        }
        return output;
    };
    const auto expected = run(reference_kernels()), got = run(kernels);
    const std::string name = !integers ? "depthwise_f32" : sizeof(Out) == 1 ? "depthwise_u8" : "depthwise_u8_f32";
    const Case test{&kernels, name + " " + std::to_string(rows) + "x" + std::to_string(columns) + " stride " +
                                  std::to_string(stride) + ", " + std::to_string(length) + " sites"};
    compare(test, got, expected, integers ? 0.0f : 1e-4f);
}

template <class In, class Out>
void test_depthwises(const Kernels& kernels, int repeats) {
    static const int shapes[][3] = {{3, 3, 1}, {3, 3, 2}, {1, 1, 1}, {5, 5, 1}, {5, 5, 2}, {7, 7, 1},   {2, 2, 2},
                                    {1, 3, 1}, {3, 1, 1}, {3, 3, 3}, {3, 5, 2}, {4, 4, 4}, {15, 15, 1}, {1, 15, 1}};
    for (const auto& shape : shapes)
        for (const int length : {1, 2, 3, 4, 5, 6, 7, 8, 9, 40})
            for (int i = 0; i < repeats; i++) test_depthwise<In, Out>(kernels, shape[0], shape[1], shape[2], length);
}

// Pictures in another size, smaller, larger and half as large, inside a larger one.
void test_resizes(const Kernels& kernels, int repeats) {
    for (int i = 0; i < repeats; i++) {
        const bool half = chance(4);
        const int to_rows = integer(1, 30), to_columns = integer(1, 30), margin = integer(0, 2);
        const int rows = half ? 2 * to_rows : integer(1, 60), columns = half ? 2 * to_columns : integer(1, 60);
        const auto image = bytes_of<uint8_t>(static_cast<size_t>(rows) * columns * 3);
        const int stride = (to_columns + 2 * margin) * 3;
        std::vector<uint8_t> got(static_cast<size_t>(to_rows + 2 * margin) * stride, 77), expected = got;
        const size_t at = static_cast<size_t>(margin) * stride + margin * 3;
        resize(kernels, image.data(), rows, columns, got.data() + at, to_rows, to_columns, stride);
        resize(*usable_kernels().front(), image.data(), rows, columns, expected.data() + at, to_rows, to_columns,
               stride);
        const Case test{&kernels, "resize " + std::to_string(rows) + "x" + std::to_string(columns) + " to " +
                                      std::to_string(to_rows) + "x" + std::to_string(to_columns)};
        compare(test, got, expected, 0.0f);
    }
}

}  // namespace

int main(int count, char** arguments) {
    unsigned seed = std::random_device{}();
    std::string only;
    for (int i = 1; i + 1 < count; i += 2) {
        if (!std::strcmp(arguments[i], "--seed"))
            seed = static_cast<unsigned>(std::strtoul(arguments[i + 1], nullptr, 10));
        if (!std::strcmp(arguments[i], "--isa")) only = arguments[i + 1];
    }
    std::printf("seed %u\n", seed);
    for (const Kernels* kernels : usable_kernels()) {
        if (!only.empty() && only != kernels->name) continue;
        generator.seed(seed);
        const int before = failures;
        cases = 0;
        test_convolutions<float, float>(*kernels, 40);
        test_halves(*kernels, 80);
        test_convolutions<uint8_t, uint8_t>(*kernels, 80);
        test_convolutions<uint8_t, float>(*kernels, 40);
        test_depthwises<float, float>(*kernels, 4);
        test_depthwises<uint8_t, uint8_t>(*kernels, 12);
        test_depthwises<uint8_t, float>(*kernels, 4);
        test_resizes(*kernels, 400);
        std::printf("%s: %ld comparisons, %d differ\n", kernels->name, cases, failures - before);
        std::fflush(stdout);
    }
    return failures ? 1 : 0;
}
