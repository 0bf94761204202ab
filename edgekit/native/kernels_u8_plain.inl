// Integer kernels in plain loops: the reference, and what processors without dot products use.
// Weights are packed as int8 [taps][channels][16 * blocks].

namespace edgekit::EDGEKIT_NAMESPACE {

template <class Out>
static void finish_u8(const int32_t* sums, int sites, int blocks, const Epilogue& to) {
    for (int index = 0; index < to.branch_count; index++) {
        const Branch& branch = to.branches[index];
        for (int i = 0; i < sites; i++) {
            const ptrdiff_t place = to.positions ? to.positions[i] : i;
            const ptrdiff_t other = to.residual_positions ? to.residual_positions[i] : i;
            for (int k = 0; k < blocks * kBlock; k++) {
                const size_t at = k / kBlock, lane = k % kBlock;
                Out* output = static_cast<Out*>(branch.output) + at * to.output_plane + place * kBlock + lane;
                const Out* residual = static_cast<const Out*>(branch.residual);
                if (residual) residual += at * to.residual_plane + other * kBlock + lane;
                const int32_t sum = sums[i * blocks * kBlock + k];
                if constexpr (sizeof(Out) == 1) {
                    *output = rounded(scaled(sum, to, branch, k, residual), to);
                } else {
                    const float value = scaled(sum, to, branch, k, nullptr);
                    *output = clamped(residual ? value + *residual : value, to);
                }
            }
        }
    }
}

template <int Sites, int Blocks, class Out>
static void conv_u8_plain(const ConvTileU8& tile) {
    constexpr int N = Blocks * kBlock;
    int32_t sums[Sites][N] = {};
    auto* weights = static_cast<const int8_t*>(tile.weights);
    for (int tap = 0; tap < tile.tap_count; tap++)
        for (int c = 0; c < tile.channels; c++, weights += N) {
            const uint8_t* input = tile.taps[tap] + c / kBlock * tile.plane + c % kBlock;
            for (int i = 0; i < Sites; i++)
                for (int n = 0; n < N; n++) sums[i][n] += input[i * kBlock] * weights[n];
        }
    finish_u8<Out>(&sums[0][0], Sites, Blocks, tile.to);
}

template <int Sites, int Blocks>
struct ConvU8Plain {
    static void run(const ConvTileU8& tile) { conv_u8_plain<Sites, Blocks, uint8_t>(tile); }
};
template <int Sites, int Blocks>
struct ConvU8F32Plain {
    static void run(const ConvTileU8& tile) { conv_u8_plain<Sites, Blocks, float>(tile); }
};

template <class Out>
static void depthwise_u8_plain(const DepthwiseRunU8& run) {
    for (int i = 0; i < run.length; i++) {
        int32_t sums[kBlock] = {};
        auto* weights = static_cast<const int8_t*>(run.weights);
        for (int y = 0; y < run.kernel_rows; y++)
            for (int x = 0; x < run.kernel_columns; x++, weights += kBlock) {
                const uint8_t* input = run.rows[y] + (i * run.stride + x) * kBlock;
                for (int c = 0; c < kBlock; c++) sums[c] += input[c] * weights[c];
            }
        Epilogue to = run.to;
        to.branches[0].output = static_cast<Out*>(to.branches[0].output) + i * kBlock;
        finish_u8<Out>(sums, 1, 1, to);
    }
}

static size_t pack_depthwise_u8_plain(const int8_t* weights, int taps, int channels, int first, void* to) {
    if (to)
        for (int tap = 0; tap < taps; tap++)
            for (int c = 0; c < kBlock; c++)
                static_cast<int8_t*>(to)[tap * kBlock + c] =
                    first + c < channels ? weights[static_cast<size_t>(tap) * channels + first + c] : 0;
    return static_cast<size_t>(taps) * kBlock;
}

}  // namespace edgekit::EDGEKIT_NAMESPACE
