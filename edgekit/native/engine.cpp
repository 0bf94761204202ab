#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace edgekit {

Engine::Engine(Program program, const Kernels& kernels, int threads)
    : kernels_(kernels), plan_(make_plan(std::move(program), kernels)), team_(threads) {
    for (size_t i = 0; i < plan_.program.levels.size(); i++)
        sites_.emplace_back(plan_.program.levels[i], plan_.borders[i], plan_.reaches[i]);
    arena_ = Buffer(plan_.arena_bytes);
    // Channels that pad a block are multiplied by zero weights, which only a NaN survives.
    std::memset(arena_.data(), 0, arena_.bytes());
    for (int thread = 0; thread < team_.capacity(); thread++) {
        scratch_.push_back({Buffer(plan_.gather_bytes), Buffer(plan_.ring_bytes), Buffer(plan_.rows_bytes)});
        for (const Buffer* buffer : {&scratch_.back().gather, &scratch_.back().ring, &scratch_.back().rows})
            std::memset(buffer->data(), 0, buffer->bytes());
    }
    rings_.resize(plan_.steps.size());
    for (size_t i = 0; i < plan_.steps.size(); i++)
        if (plan_.steps[i].expand >= 0) {
            const LevelShape& level = plan_.program.level_of(plan_.program.operations[plan_.steps[i].expand].output);
            rings_[i].resize(static_cast<size_t>(level.rows) * level.columns);
        }
    mask_.resize(static_cast<size_t>(plan_.program.mask_rows) * plan_.program.mask_columns);

    const Operation& input = plan_.program.operations[0];
    const TensorShape& image = plan_.program.tensors[input.output];
    const auto mean = plan_.program.constant<float>(input.weights, image.channels);
    const auto deviation = plan_.program.constant<float>(input.bias, image.channels);
    for (int channel = 0; channel < image.channels; channel++)
        for (int pixel = 0; pixel < 256; pixel++)
            lookup_.push_back((static_cast<float>(pixel) - mean[channel]) / deviation[channel]);
    for (float value : lookup_) integer_lookup_.push_back(quantise_image(value));
    for (size_t i = 0; i < integer_lookup_.size(); i++) pixels_as_they_are_ &= integer_lookup_[i] == i % 256;
}

void Engine::run(const uint8_t* pixels, const float* normalised, const uint8_t* mask, float* const* outputs) {
    job_ = {pixels, normalised, outputs};
    set_mask(mask);
    for (size_t i = 0; i < plan_.program.outputs.size(); i++) {
        const OutputShape& shape = plan_.program.outputs[i];
        if (rows_written_[i] < shape.rows) std::memset(outputs[i], 0, sizeof(float) * shape.rows * shape.columns);
    }
    team_.run(
        [](void* self, int thread) {
            auto* engine = static_cast<Engine*>(self);
            const bool timed = thread == 0 && !engine->seconds_.empty();
            auto start = std::chrono::steady_clock::now();
            for (size_t i = 0; i < engine->plan_.steps.size(); i++) {
                if (engine->plan_.steps[i].waits) engine->team_.barrier(thread);
                engine->run_step(engine->plan_.steps[i], i, thread);
                if (!timed) continue;
                const auto now = std::chrono::steady_clock::now();
                engine->seconds_[i] += std::chrono::duration<double>(now - start).count();
                start = now;
            }
        },
        this);
}

void Engine::set_mask(const uint8_t* mask) {
    if (built_ && (mask_.empty() || !std::memcmp(mask_.data(), mask, mask_.size()))) return;
    if (!mask_.empty()) std::memcpy(mask_.data(), mask, mask_.size());
    for (Sites& sites : sites_)
        if (!built_ || sites.masked) sites.build(mask_.data(), plan_.program.mask_rows, plan_.program.mask_columns);
    for (size_t i = 0; i < plan_.steps.size(); i++) {
        const Step& step = plan_.steps[i];
        if (step.expand < 0) continue;
        const Sites& sites = sites_of(plan_.program.operations[step.expand].output);
        int32_t* to = rings_[i].data();
        for (const Run& run : sites.runs) {
            const int place =
                (run.row + sites.border) % step.ring_rows * sites.frame_columns() + sites.border + run.column;
            for (int k = 0; k < run.length; k++) *to++ = place + k;
        }
    }
    rows_written_.assign(plan_.program.outputs.size(), 0);
    for (const Operation& op : plan_.program.operations)
        if (op.kind == Kind::output) rows_written_[op.output] += sites_of(op.input).count() * op.anchors;
    built_ = true;
}

Engine::Map Engine::map_of(int tensor) const {
    const Layout& layout = plan_.layouts[tensor];
    const Sites& sites = sites_of(tensor);
    if (layout.given) {
        const auto* floats = reinterpret_cast<const uint8_t*>(job_.normalised);
        return {floats ? const_cast<uint8_t*>(floats) : arena_.data() + layout.offset, kBlock, nullptr, 0};
    }
    // An odd number of sites: planes an even multiple of 4 KiB apart would share the same few places of a cache.
    const size_t places = (layout.framed ? sites.frame_sites() : sites.count()) | 1;
    return {arena_.data() + layout.offset, places * kBlock, layout.framed ? sites.framed.data() : nullptr, 0};
}

uint8_t Engine::zero_of(int tensor) const { return static_cast<uint8_t>(plan_.program.tensors[tensor].zero_point); }

Engine::Span Engine::share(int count, int thread, int threads) {
    return {static_cast<int>(int64_t{count} * thread / threads),
            static_cast<int>(int64_t{count} * (thread + 1) / threads)};
}

// A thread's rows: about as many active sites as any other's.
Engine::Span Engine::rows_of(const Sites& sites, int thread) const {
    const auto row_at = [&](int part) {
        if (part == team_.size()) return sites.rows;
        const int site = static_cast<int>(int64_t{sites.count()} * part / team_.size());
        return static_cast<int>(std::lower_bound(sites.row_first.begin(), sites.row_first.end() - 1, site) -
                                sites.row_first.begin());
    };
    return {row_at(thread), row_at(thread + 1)};
}

void Engine::run_step(const Step& step, size_t index, int thread) {
    if (step.form == Step::Form::chain) return run_chain(step, index, thread);
    const Operation& op = plan_.program.operations[step.main];
    const WeightPlan& weights = plan_.weights[step.main];
    switch (op.kind) {
        case Kind::input: return read_image(op, thread);
        case Kind::max_pool:
        case Kind::average_pool: return pool(op, thread);
        case Kind::upsample: return upsample(op, thread);
        case Kind::deconv: return deconvolve(op, weights, thread);
        case Kind::add:
        case Kind::quantise:
        case Kind::dequantise: return pointwise(op, thread);
        case Kind::repack: return repack(op, thread);
        case Kind::output: return write_output(op, thread);
        default: break;
    }
    const Sites& sites = sites_of(op.output);
    const Map input = map_of(op.input), output = map_of(op.output);
    surround_with_zeros(op.output, output, thread);
    if (op.kind == Kind::depthwise)
        filter(op, weights, input, 0, output, rows_of(sites, thread), all_blocks(op.input));
    else
        multiply_sites(op, weights, input, output, thread);
}

// A thread's share of a convolution: few sites are shared out by filters, many by sites.
void Engine::multiply_sites(const Operation& op, const WeightPlan& weights, const Map& input, const Map& output,
                            int thread) {
    const int panels = static_cast<int>(weights.panels.size()), sites = sites_of(op.output).count();
    const bool by_panels = sites < 32 * team_.size() && panels >= team_.size();
    const Span part = share(by_panels ? panels : sites, thread, team_.size());
    if (by_panels)
        convolve(op, weights, input, 0, output, {0, sites}, part, scratch_[thread].gather.data());
    else
        convolve(op, weights, input, 0, output, part, {0, panels}, scratch_[thread].gather.data());
}

// Whether threads should share out the channels of a chain: with few rows to each, they would expand many of them twice.
bool Engine::shared_by_channels(const Step& step) const {
    if (!step.by_channels || team_.size() == 1) return false;
    const WeightPlan& first = plan_.weights[step.expand >= 0 ? step.expand : step.main];
    return static_cast<int>(first.panels.size()) >= 2 * team_.size() &&
           sites_of(plan_.program.operations[step.main].output).count() < 96 * team_.size();
}

// All rows at once; a thread filters the channels that it has expanded itself.
void Engine::run_chain_by_channels(const Step& step, int thread) {
    const Program& program = plan_.program;
    const Operation &depthwise = program.operations[step.main], &project = program.operations[step.project];
    const Sites &in = sites_of(depthwise.input), &out = sites_of(depthwise.output);
    const Map expanded = map_of(depthwise.input), filtered = map_of(depthwise.output), result = map_of(project.output);
    surround_with_zeros(project.output, result, thread);
    const int all = all_blocks(depthwise.input).to;
    Span blocks = share(all, thread, team_.size());
    if (step.expand >= 0) {
        const Operation& expand = program.operations[step.expand];
        const WeightPlan& weights = plan_.weights[step.expand];
        const int panels = static_cast<int>(weights.panels.size());
        const Span part = share(panels, thread, team_.size());
        const auto block_at = [&](int panel) { return panel < panels ? weights.panels[panel].first_block : all; };
        blocks = {block_at(part.from), block_at(part.to)};
        zero_halo(depthwise.input, expanded, {0, in.rows + 2 * in.border}, 0, blocks);
        convolve(expand, weights, map_of(expand.input), 0, expanded, {0, in.count()}, part,
                 scratch_[thread].gather.data());
    }
    filter(depthwise, plan_.weights[step.main], expanded, 0, filtered, {0, out.rows}, blocks);
    team_.barrier(thread);
    multiply_sites(project, plan_.weights[step.project], filtered, result, thread);
}

void Engine::run_chain(const Step& step, size_t index, int thread) {
    if (shared_by_channels(step)) return run_chain_by_channels(step, thread);
    const Program& program = plan_.program;
    const Operation& main = program.operations[step.main];
    const Operation& last = step.project >= 0 ? program.operations[step.project] : main;
    const Sites &in = sites_of(main.input), &out = sites_of(main.output);
    Scratch& scratch = scratch_[thread];
    const Map result = map_of(last.output);
    surround_with_zeros(last.output, result, thread);

    Map expanded = map_of(main.input), filtered = result;
    if (step.expand >= 0)
        expanded = {scratch.ring.data(), static_cast<size_t>((step.ring_rows * in.frame_columns()) | 1) * kBlock,
                    rings_[index].data(), 0};
    if (step.project >= 0)
        filtered = {scratch.rows.data(), ((static_cast<size_t>(step.rows) * out.columns) | 1) * kBlock, nullptr, 0};
    const Span rows = rows_of(out, thread);
    int next = std::max(-in.border, rows.from * main.stride - main.pad_top);  // row of the input not yet expanded
    for (int row = rows.from, end; row < rows.to; row = end) {
        end = std::min(row + step.rows, rows.to);
        const Span sites{out.row_first[row], out.row_first[end]};
        const bool none = sites.from == sites.to;
        next = std::max(next, (none ? end : row) * main.stride - main.pad_top);
        if (none) continue;
        const int stop = std::min(in.rows + in.border, (end - 1) * main.stride - main.pad_top + main.kernel_rows);
        if (step.expand >= 0 && next < stop) {
            const Operation& expand = program.operations[step.expand];
            const WeightPlan& weights = plan_.weights[step.expand];
            zero_halo(main.input, expanded, {next + in.border, stop + in.border}, step.ring_rows,
                      all_blocks(main.input));
            convolve(expand, weights, map_of(expand.input), 0, expanded,
                     {in.row_first[std::clamp(next, 0, in.rows)], in.row_first[std::clamp(stop, 0, in.rows)]},
                     all_panels(weights), scratch.gather.data());
            next = stop;
        }
        if (step.project >= 0) filtered.first = sites.from;
        const WeightPlan& weights = plan_.weights[step.main];
        if (main.kind == Kind::depthwise)
            filter(main, weights, expanded, step.ring_rows, filtered, {row, end}, all_blocks(main.input));
        else if (main.kind == Kind::conv)
            convolve(main, weights, expanded, step.ring_rows, filtered, sites, all_panels(weights),
                     scratch.gather.data());
        else
            pool_rows(main, expanded, step.ring_rows, filtered, {row, end});
        if (step.project < 0) continue;
        const WeightPlan& last_weights = plan_.weights[step.project];
        convolve(last, last_weights, filtered, 0, result, sites, all_panels(last_weights), scratch.gather.data());
    }
}

}  // namespace edgekit
