#include "peak.h"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <vector>

namespace edgekit {
namespace {

constexpr int kChannels = 128;

// The best rate of `work`, which does `count` multiply-accumulates.
template <class Work>
double best_rate(Work work, double count, double seconds) {
    using clock = std::chrono::steady_clock;
    double best = 1e9;
    const auto end = clock::now() + std::chrono::duration<double>(seconds);
    do {
        const auto start = clock::now();
        for (int i = 0; i < 200; i++) work();
        best = std::min(best, std::chrono::duration<double>(clock::now() - start).count() / 200);
    } while (clock::now() < end);
    return count / best;
}

}  // namespace

Peak measure_peak(const Kernels& kernels, double seconds) {
    // Ones, not zeros: whatever a processor does about zeros must not count.
    std::vector<float> input(kMaxTile * kChannels, 1.0f), weights(kMaxPanel * kBlock * kChannels, 1.0f);
    const std::vector<int8_t> bytes(kMaxPanel * kBlock * kChannels, 1);
    std::vector<float> output(kMaxTile * kMaxPanel * kBlock), multipliers(kMaxPanel * kBlock, 1.0f);
    std::vector<int32_t> bias(kMaxPanel * kBlock, 0);
    Peak peak{};
    for (int blocks = 1; blocks <= kMaxPanel; blocks++) {
        Epilogue to{};
        to.branch_count = 1;
        to.low = 0.0f;
        to.high = 255.0f;
        if (blocks <= kernels.panel_f32) {
            const int sites = kernels.tile_f32[blocks];
            const float* taps[1] = {input.data()};
            ConvTileF32 tile{
                taps, static_cast<size_t>(sites) * kBlock, kBlock, 1, kChannels, weights.data(), nullptr, 0, to};
            tile.to.output_plane = tile.plane;
            tile.to.branches[0] = {multipliers.data(), nullptr, output.data(), nullptr};
            peak.float32 = std::max(peak.float32, best_rate([&] { kernels.conv_f32[blocks][sites](tile); },
                                                            double(sites) * blocks * kBlock * kChannels, seconds / 6));
        }
        if (blocks <= kernels.panel_u8) {
            const int sites = kernels.tile_u8[blocks];
            const uint8_t* taps[1] = {reinterpret_cast<const uint8_t*>(input.data())};
            const auto pack = [&](void* panel) {
                return kernels.pack_conv_u8(bytes.data(), blocks * kBlock, 1, kChannels, 0, blocks, panel);
            };
            std::vector<float> panel(pack(nullptr) / sizeof(float));
            pack(panel.data());
            ConvTileU8 tile{taps, static_cast<size_t>(sites) * kBlock, kBlock, 1, kChannels, panel.data(), nullptr, 0,
                            to};
            tile.to.output_plane = tile.plane;
            tile.to.branches[0] = {bias.data(), multipliers.data(), output.data(), nullptr};
            peak.uint8 = std::max(peak.uint8, best_rate([&] { kernels.conv_u8[blocks][sites](tile); },
                                                        double(sites) * blocks * kBlock * kChannels, seconds / 6));
        }
    }
    return peak;
}

}  // namespace edgekit
