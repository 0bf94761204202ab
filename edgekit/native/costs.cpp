// Bounds, not what a plan comes to: every feature map lies by itself, and is framed.
#include "costs.h"

#include <algorithm>

namespace edgekit {
namespace {

constexpr double kSiteBytes = 17;  // of a level's lists, for each site
constexpr double kTileSites = 16;  // that are gathered at once, at most,
constexpr double kGathered = 520 << 10;  // or as many as fit in these bytes

double blocks_of(int channels) { return (channels + 15) / 16; }

double width_of(Type type) { return type == Type::float32 ? 4 : 1; }

}  // namespace

Costs costs_of(const Program& program) {
    std::vector<int> borders(program.levels.size(), 0);         // of the frame around each level
    std::vector<double> blocks(program.tensors.size(), 0);  // of 16 channels; each part of a concatenation has its own
    Costs costs{};
    double gathered = 0;
    for (const OutputShape& output : program.outputs) costs.bytes += double(output.rows) * output.columns * 4;
    for (const Operation& op : program.operations) {
        if (op.kind == Kind::output) continue;
        const LevelShape& out = program.level_of(op.output);
        const double taps = double(op.kernel_rows) * op.kernel_columns, sites = double(out.rows) * out.columns;
        if (op.kind == Kind::input) {
            blocks[op.output] += blocks_of(op.written);
            continue;
        }
        const TensorShape& in = program.tensors[op.input];
        const double depth = taps * blocks[op.input] * 16;
        borders[in.level] = std::max(borders[in.level], border_of(program, op));
        if (op.kind == Kind::conv) {
            costs.work += sites * taps * op.filters * in.channels;
            costs.bytes += depth * blocks_of(op.filters) * 16 * (in.type == Type::float32 ? 4 : 2.5);
            blocks[op.output] += blocks_of(op.filters) * (op.crelu ? 2 : 1);
            gathered = std::max({gathered, depth * kTileSites * width_of(in.type), kGathered});
        } else {
            costs.work += sites * taps * op.written;
            costs.bytes += (depth + 16 * blocks[op.input]) * 4;  // one tap may take as much as two
            blocks[op.output] += blocks[op.input];
        }
    }
    const auto framed_sites = [&](size_t level) {
        const LevelShape& shape = program.levels[level];
        return (shape.rows + 2.0 * borders[level]) * (shape.columns + 2.0 * borders[level]);
    };
    const auto map_bytes = [&](size_t tensor) {
        const TensorShape& shape = program.tensors[tensor];
        return framed_sites(shape.level) * blocks[tensor] * 16 * width_of(shape.type);
    };
    for (size_t i = 0; i < program.levels.size(); i++) costs.bytes += framed_sites(i) * kSiteBytes;
    for (size_t i = 0; i < program.tensors.size(); i++) costs.bytes += map_bytes(i);
    for (const Operation& op : program.operations)  // an operand that lies otherwise than the result is copied
        if (op.second >= 0) costs.bytes += std::max(map_bytes(op.second), map_bytes(op.output));
    costs.bytes += gathered;
    return costs;
}

}  // namespace edgekit
