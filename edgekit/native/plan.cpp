#include "plan.h"

#include <algorithm>
#include <numeric>
#include <utility>

namespace edgekit {
namespace {

constexpr size_t kChainBytes = 192 << 10;   // of the ring: it shares a cache of 512 KiB or more with the weights
constexpr size_t kLargeMaps = 1 << 20;      // that are better never written whole
constexpr size_t kChainWeights = 256 << 10; // beside the ring
constexpr int kChainSites = 48;             // to a group: enough for full tiles
constexpr int kChannelwiseSites = 400;      // of a level so small that threads may share out its channels

class Planner {
  public:
    Planner(Program program, const Kernels& kernels) : kernels_(kernels) { plan_.program = std::move(program); }

    Plan make() {
        lay_out();
        find_readers();
        keep_images_as_they_are();
        frame();
        for (size_t i = 0; i < program().operations.size(); i++)
            plan_.weights.push_back(pack_weights(program(), plan_.layouts, program().operations[i], kernels_));
        group();
        allocate();
        return std::move(plan_);
    }

  private:
    Program& program() { return plan_.program; }
    const TensorShape& tensor(int index) { return program().tensors[index]; }

    void find_readers() {
        readers_.assign(program().tensors.size(), {});
        writers_.assign(program().tensors.size(), {});
        for (size_t i = 0; i < program().operations.size(); i++) {
            const Operation& op = program().operations[i];
            if (op.input >= 0) readers_[op.input].push_back(static_cast<int>(i));
            if (op.second >= 0) readers_[op.second].push_back(static_cast<int>(i));
            if (op.kind != Kind::output) writers_[op.output].push_back(static_cast<int>(i));
        }
    }

    // Whether `image` can stay [rows][columns][channels]: only convolutions and averages read it.
    bool can_be_packed(int index) {
        if (tensor(index).channels > 4 || writers_[index].size() != 1) return false;
        const Operation& writer = program().operations[writers_[index][0]];
        if (writer.kind != Kind::input && !(writer.kind == Kind::average_pool && plan_.layouts[writer.input].packed))
            return false;
        for (int reader : readers_[index]) {
            const Operation& op = program().operations[reader];
            if (op.kind == Kind::average_pool && tensor(op.output).channels == tensor(index).channels) {
                if (!only_convolved(op.output)) return false;
            } else if (op.kind != Kind::conv || op.second == index) {
                return false;
            }
        }
        return true;
    }

    bool only_convolved(int index) {
        for (int reader : readers_[index]) {
            const Operation& op = program().operations[reader];
            if (op.kind != Kind::conv || op.second == index) return false;
        }
        return true;
    }

    // Where each channel lies, and copies of what lies otherwise than an operation needs it: operands that lie otherwise
    // than what they are added to, and tensors whose later channels were written first.
    void lay_out() {
        for (size_t i = 0; i < program().tensors.size(); i++) add_layout(static_cast<int>(i));
        std::vector<Operation> operations;
        for (Operation op : program().operations) {
            if (reads_blocks(op) && plan_.layouts[op.input].physical[0] >= kBlock) {
                std::vector<int> ascending(tensor(op.input).channels);
                std::iota(ascending.begin(), ascending.end(), 0);
                operations.push_back(repack(op.input, std::move(ascending)));
                op.input = operations.back().output;
            }
            if (op.kind != Kind::output) place_result(op);
            if (op.second >= 0 && !lies_like_result(op)) {
                const auto& result = plan_.layouts[op.output].physical;
                std::vector<int> like_result(op.written);
                for (int c = 0; c < op.written; c++)
                    like_result[c] = result[op.channel_offset + c] - result[op.channel_offset] / kBlock * kBlock;
                operations.push_back(repack(op.second, std::move(like_result)));
                op.second = operations.back().output;
            }
            operations.push_back(op);
        }
        program().operations = std::move(operations);
    }

    void add_layout(int index) {
        Layout layout;
        layout.element = tensor(index).type == Type::uint8 ? 1 : 4;
        layout.physical.assign(tensor(index).channels, -1);
        plan_.layouts.push_back(std::move(layout));
    }

    void place_result(const Operation& op) {
        Layout& layout = plan_.layouts[op.output];
        const auto append = [&](int first, int count) {
            for (int c = 0; c < count; c++) layout.physical[first + c] = layout.blocks * kBlock + c;
            layout.blocks += ceil_div(count, kBlock);
        };
        if (op.kind == Kind::input) {
            append(0, op.written);
        } else if (op.kind == Kind::conv && op.crelu && ends_in_half_block(program(), plan_.layouts, op, kernels_)) {
            // The half blocks of both signs share a block.
            const int whole = op.filters / kBlock * kBlock, first = layout.blocks * kBlock;
            for (int k = 0; k < op.filters; k++) {
                layout.physical[op.channel_offset + k] = first + k;
                layout.physical[op.channel_offset + op.filters + k] =
                    first + (k < whole ? whole + kBlock + k : k + kBlock / 2);
            }
            layout.blocks += 2 * whole / kBlock + 1;
        } else if (op.kind == Kind::conv) {
            append(op.channel_offset, op.filters);
            if (op.crelu) append(op.channel_offset + op.filters, op.filters);
        } else {
            // Everything else works on whole blocks, so its result lies like its input.
            const Layout& input = plan_.layouts[op.input];
            for (int c = 0; c < op.written; c++)
                layout.physical[op.channel_offset + c] = layout.blocks * kBlock + input.physical[c];
            layout.blocks += input.blocks;
        }
    }

    // Whether an operation takes its input block by block, and its result begins where the first block ends up.
    static bool reads_blocks(const Operation& op) {
        return op.kind != Kind::input && op.kind != Kind::conv && op.kind != Kind::output;
    }

    // Operands are added block by block, so their channels must lie alike.
    bool lies_like_result(const Operation& op) {
        const auto &operand = plan_.layouts[op.second].physical, &result = plan_.layouts[op.output].physical;
        for (int c = 0; c < op.written; c++)
            if (operand[c] != result[op.channel_offset + c] - result[op.channel_offset] / kBlock * kBlock) return false;
        return true;
    }

    // A copy of `source` whose channels lie at `physical`.
    Operation repack(int source, std::vector<int> physical) {
        const int copy = static_cast<int>(program().tensors.size());
        program().tensors.push_back(tensor(source));
        add_layout(copy);
        Layout& layout = plan_.layouts[copy];
        layout.physical = std::move(physical);
        layout.blocks = *std::max_element(layout.physical.begin(), layout.physical.end()) / kBlock + 1;
        Operation made{};
        made.kind = Kind::repack;
        made.input = source;
        made.second = -1;
        made.output = copy;
        made.kernel_rows = made.kernel_columns = made.stride = 1;
        made.written = static_cast<int>(layout.physical.size());
        made.weights = made.bias = made.multipliers = SIZE_MAX;
        return made;
    }

    void keep_images_as_they_are() {
        for (const Operation& op : program().operations) {
            if (op.kind == Kind::output) continue;
            Layout& layout = plan_.layouts[op.output];
            layout.packed = can_be_packed(op.output);
            layout.given = op.kind == Kind::input && !layout.packed && can_stay_given(op.output);
        }
    }

    // Whether only pointwise convolutions read `image`, of floats in whole blocks: they gather what a tile needs anyway.
    bool can_stay_given(int index) {
        if (tensor(index).channels % kBlock || plan_.layouts[index].element != 4) return false;
        for (int reader : readers_[index]) {
            const Operation& op = program().operations[reader];
            if (op.kind != Kind::conv || !is_pointwise(op) || op.second == index) return false;
        }
        return true;
    }

    // Whether every active site of `coarse` stands for stride x stride sites of `fine`, one of them active, and every
    // active site of `fine` is stood for by an active one.
    bool nested(const LevelShape& fine, const LevelShape& coarse, int stride) {
        if (!fine.masked) return true;
        int fine_halvings, coarse_halvings, fine_rows, fine_columns, coarse_rows, coarse_columns;
        path_to(fine, fine_halvings, fine_rows, fine_columns);
        path_to(coarse, coarse_halvings, coarse_rows, coarse_columns);
        if (fine_halvings == coarse_halvings)
            return fine_rows == coarse_rows * stride && fine_columns == coarse_columns * stride;
        const int halved = coarse_halvings - fine_halvings;
        return halved > 0 && coarse_rows == 1 && coarse_columns == 1 && fine_rows == fine_columns &&
               fine_rows << halved == stride;
    }

    // How a level comes from the mask: halved so often, then repeated so often in each direction.
    void path_to(const LevelShape& level, int& halvings, int& rows, int& columns) {
        int mask_rows = program().mask_rows, mask_columns = program().mask_columns;
        for (halvings = 0; mask_rows > level.rows || mask_columns > level.columns; halvings++) {
            mask_rows = ceil_div(mask_rows, 2);
            mask_columns = ceil_div(mask_columns, 2);
        }
        rows = level.rows / mask_rows;
        columns = level.columns / mask_columns;
    }

    void frame() {
        plan_.borders.assign(program().levels.size(), 0);
        plan_.reaches.assign(program().levels.size(), 0);
        for (const Operation& op : program().operations) {
            if (op.input < 0 || op.kind == Kind::output) continue;
            const bool windowed = op.kind == Kind::conv ? !is_pointwise(op)
                                                        : op.kind == Kind::depthwise || op.kind == Kind::max_pool ||
                                                              op.kind == Kind::average_pool ||
                                                              op.kind == Kind::upsample || op.kind == Kind::deconv;
            if (windowed) plan_.layouts[op.input].framed = true;
            const int level = tensor(op.input).level;
            const LevelShape &in = program().levels[level], &out = program().level_of(op.output);
            const int border = border_of(program(), op);
            int reach = border;
            if (op.kind == Kind::upsample || op.kind == Kind::deconv) {
                if (!nested(out, in, op.kind == Kind::deconv ? 2 : op.stride)) reach = in.rows + in.columns + 2;
            } else if (windowed) {
                // A window lies around the sites that its site stands for, of which perhaps the farthest is active.
                reach = std::max(border, std::max(op.kernel_rows, op.kernel_columns) + op.stride - 2);
                // Otherwise it may lie anywhere, and all that is inactive has to be zero.
                if (!nested(in, out, op.stride)) reach = in.rows + in.columns + 2 * border;
            }
            plan_.borders[level] = std::max(plan_.borders[level], border);
            plan_.reaches[level] = std::max(plan_.reaches[level], reach);
        }
        for (Layout& layout : plan_.layouts) layout.framed |= layout.packed;
    }

    // The one operation that reads tensor `index`, if it is the next one and nobody else writes to the tensor.
    int only_reader(int index, int after) {
        const bool alone = readers_[index].size() == 1 && writers_[index].size() == 1;
        return alone && readers_[index][0] == after + 1 ? after + 1 : -1;
    }

    bool multiplies_sites(const Operation& op) {
        return op.kind == Kind::conv && is_pointwise(op) && !plan_.layouts[op.input].packed;
    }

    void group() {
        const auto& operations = program().operations;
        const int count = static_cast<int>(operations.size());
        for (int i = 0; i < count;) {
            const Operation& op = operations[i];
            Step step{Step::Form::single};
            step.main = i;
            const int reader = op.kind == Kind::conv && op.second < 0 ? only_reader(op.output, i) : -1;
            if (op.kind == Kind::depthwise || is_window(op)) start_chain(step, -1, i);
            if (step.form == Step::Form::single && reader >= 0 && is_main(operations[reader]))
                start_chain(step, i, reader);
            plan_.steps.push_back(step);
            i = std::max(step.main, step.project) + 1;
        }
    }

    bool is_window(const Operation& op) { return op.kind == Kind::conv && !is_pointwise(op); }

    // What can stand in the middle of a chain.
    bool is_main(const Operation& op) {
        const bool pool = op.kind == Kind::max_pool || op.kind == Kind::average_pool;
        return op.kind == Kind::depthwise || ((is_window(op) || pool) && !plan_.layouts[op.input].packed);
    }

    void start_chain(Step& step, int expand, int main) {
        const Operation& op = program().operations[main];
        int project = only_reader(op.output, main);
        if (project >= 0 &&
            (!multiplies_sites(program().operations[project]) || program().operations[project].second == op.output))
            project = -1;
        if (expand >= 0 && op.second == program().operations[expand].output) return;
        if (op.kind == Kind::depthwise) {
            if (project < 0 || (expand >= 0 && program().operations[expand].crelu)) return;
        } else if (!overflows(expand, main, project)) {
            return;
        }
        const LevelShape &in = program().level_of(op.input), &out = program().level_of(op.output);
        const Layout& expanded = plan_.layouts[op.input];
        const size_t row_bytes = static_cast<size_t>(in.columns + 2 * plan_.borders[tensor(op.input).level]) *
                                 expanded.blocks * kBlock * expanded.element;
        int rows = std::max(1, std::min(out.rows, ceil_div(kChainSites, out.columns)));
        if (expand >= 0) {
            const auto ring = [&](int group) {
                return static_cast<size_t>((group - 1) * op.stride + op.kernel_rows) * row_bytes;
            };
            while (rows < out.rows && ring(rows + 1) <= kChainBytes) rows++;
            step.ring_rows = (rows - 1) * op.stride + op.kernel_rows;
            if (ring(rows) * 2 > row_bytes * in.rows + kChainBytes) return;  // nearly the whole map: keep it
        }
        step.form = Step::Form::chain;
        step.expand = expand;
        step.main = main;
        step.project = project;
        step.rows = rows;
        step.by_channels = op.kind == Kind::depthwise && out.rows * out.columns <= kChannelwiseSites &&
                           (expand < 0 || plan_.weights[expand].branches == 1);
    }

    // Whether what lies within a chain around a convolution or pool would be too large for a cache, which its weights are
    // not. Otherwise it is better to do one thing after the other, for all sites.
    bool overflows(int expand, int main, int project) {
        const Operation& op = program().operations[main];
        size_t bytes = 0, weights = 0;
        if (expand >= 0) bytes += map_bytes(op.input);
        if (project >= 0) bytes += map_bytes(op.output);
        for (int index : {expand, main, project})
            if (index >= 0) weights += plan_.weights[index].weights.bytes();
        return bytes >= kLargeMaps && weights <= kChainWeights;
    }

    // Each tensor gets a place in one arena for as long as it is read; what is used together is close together.
    void allocate() {
        std::vector<bool> inside(program().tensors.size(), false);  // never leaves a chain
        std::vector<int> first(program().tensors.size(), 1 << 30), last(program().tensors.size(), -1);
        for (size_t s = 0; s < plan_.steps.size(); s++) {
            const Step& step = plan_.steps[s];
            for (int index : {step.expand, step.main, step.project}) {
                if (index < 0) continue;
                const Operation& op = program().operations[index];
                scratch(op, index);
                for (int t : {op.input, op.second, op.kind == Kind::output ? -1 : op.output}) {
                    if (t < 0) continue;
                    first[t] = std::min(first[t], static_cast<int>(s));
                    last[t] = std::max(last[t], static_cast<int>(s));
                }
            }
            if (step.form == Step::Form::chain) {
                if (!step.by_channels) {
                    if (step.expand >= 0) inside[program().operations[step.expand].output] = true;
                    if (step.project >= 0) inside[program().operations[step.main].output] = true;
                }
                chain_scratch(step);
            }
        }
        struct Place {
            size_t offset, bytes;
            int tensor;
        };
        std::vector<Place> live;
        std::vector<int> order;
        for (size_t t = 0; t < program().tensors.size(); t++)
            if (!inside[t] && last[t] >= 0) order.push_back(static_cast<int>(t));
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return first[a] < first[b]; });
        for (int t : order) {
            live.erase(
                std::remove_if(live.begin(), live.end(), [&](const Place& p) { return last[p.tensor] < first[t]; }),
                live.end());
            std::sort(live.begin(), live.end(), [](const Place& a, const Place& b) { return a.offset < b.offset; });
            const size_t bytes = map_bytes(t);
            size_t at = 0;
            for (const Place& place : live) {
                if (at + bytes <= place.offset) break;
                at = std::max(at, place.offset + place.bytes);
            }
            plan_.layouts[t].offset = at;
            live.push_back({at, bytes, t});
            plan_.arena_bytes = std::max(plan_.arena_bytes, at + bytes);
        }
        find_waits(inside);
    }

    // Steps that touch nothing of one another, as the heads of several levels, need no barrier between them.
    void find_waits(const std::vector<bool>& inside) {
        struct Range {
            size_t from, to;
        };
        std::vector<Range> read, written;  // since the last barrier
        const auto meets = [](const std::vector<Range>& some, const std::vector<Range>& others) {
            for (const Range& a : some)
                for (const Range& b : others)
                    if (a.from < b.to && b.from < a.to) return true;
            return false;
        };
        for (Step& step : plan_.steps) {
            std::vector<Range> reads, writes;
            const auto range = [&](int t) {
                return Range{plan_.layouts[t].offset, plan_.layouts[t].offset + map_bytes(t)};
            };
            for (int index : {step.expand, step.main, step.project}) {
                if (index < 0) continue;
                const Operation& op = program().operations[index];
                for (int t : {op.input, op.second})
                    if (t >= 0 && !inside[t]) reads.push_back(range(t));
                if (op.kind != Kind::output && !inside[op.output]) writes.push_back(range(op.output));
            }
            step.waits = meets(reads, written) || meets(writes, written) || meets(writes, read);
            if (step.waits) {
                read.clear();
                written.clear();
            }
            read.insert(read.end(), reads.begin(), reads.end());
            written.insert(written.end(), writes.begin(), writes.end());
        }
    }

    size_t map_bytes(int t) {
        const Layout& layout = plan_.layouts[t];
        const LevelShape& level = program().level_of(t);
        const int border = layout.framed ? plan_.borders[tensor(t).level] : 0;
        const size_t sites = static_cast<size_t>(level.rows + 2 * border) * (level.columns + 2 * border) | 1;
        const bool side_by_side = layout.packed || layout.given;
        const size_t width = side_by_side ? tensor(t).channels : static_cast<size_t>(layout.blocks) * kBlock;
        return (sites * width * layout.element + 256 + 4095) / 4096 * 4096;  // 256: kernels read a little further
    }

    void scratch(const Operation& op, int index) {
        if (op.kind != Kind::conv) return;
        const WeightPlan& plan = plan_.weights[index];
        const size_t bytes = static_cast<size_t>(plan.taps) * ceil_div(plan.slice, kBlock) * plan.block * kBlock *
                             plan_.layouts[op.input].element;
        plan_.gather_bytes = std::max(plan_.gather_bytes, bytes + 256);
    }

    void chain_scratch(const Step& step) {
        const Operation& op = program().operations[step.main];
        const LevelShape &in = program().level_of(op.input), &out = program().level_of(op.output);
        const Layout &expanded = plan_.layouts[op.input], &filtered = plan_.layouts[op.output];
        const size_t columns = in.columns + 2 * plan_.borders[tensor(op.input).level];
        plan_.ring_bytes = std::max(plan_.ring_bytes,
                                    (step.ring_rows * columns + 1) * expanded.blocks * kBlock * expanded.element + 256);
        if (step.project < 0) return;
        plan_.rows_bytes = std::max(
            plan_.rows_bytes,
            (static_cast<size_t>(step.rows) * out.columns + 1) * filtered.blocks * kBlock * filtered.element + 256);
    }

    const Kernels& kernels_;
    Plan plan_;
    std::vector<std::vector<int>> readers_, writers_;
};

}  // namespace

Plan make_plan(Program program, const Kernels& kernels) { return Planner(std::move(program), kernels).make(); }

}  // namespace edgekit
