#include "c_api.h"

#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "engine.h"

using namespace edgekit;

struct edgekit_engine {
    edgekit_engine(Program program, const Kernels& kernels, int threads)
        : engine(std::move(program), kernels, threads),
          mask(static_cast<size_t>(engine.program().mask_rows) * engine.program().mask_columns) {}

    Engine engine;
    std::mutex turn;
    std::vector<uint8_t> mask;
    std::unique_ptr<float[]> image;  // planes brought together; made when it is first needed
};

namespace {

constexpr uint32_t kProgramVersion = 1;  // of parse_program

const char* message(const char* text) {
    static thread_local std::string last;
    try {
        last = text;
        return last.c_str();
    } catch (const std::exception&) {
        return "out of memory";
    }
}

// Call `work` and turn what it throws into a message.
template <class Work>
const char* guarded(Work work) noexcept {
    try {
        work();
        return nullptr;
    } catch (const std::bad_alloc&) {
        return "out of memory";
    } catch (const std::exception& error) {
        return message(error.what());
    } catch (...) {
        return "an unknown error";
    }
}

const LevelShape& image_level(const Program& program) { return program.level_of(program.operations[0].output); }

int image_channels(const Program& program) { return program.tensors[program.operations[0].output].channels; }

// From [channels][rows][columns] to [rows][columns][channels], `count` pixels of one row.
void interleave(const float* planes, size_t plane, int channels, int count, float* to) {
    if (channels == 3) {
        const float *red = planes, *green = planes + plane, *blue = planes + 2 * plane;
        for (int i = 0; i < count; i++) {
            to[3 * i] = red[i];
            to[3 * i + 1] = green[i];
            to[3 * i + 2] = blue[i];
        }
        return;
    }
    for (int channel = 0; channel < channels; channel++)
        for (int i = 0; i < count; i++) to[i * channels + channel] = planes[channel * plane + i];
}

// Bring the planes of an image together where the engine will read them: in active cells.
void interleave_active(const Program& program, const float* planes, const uint8_t* mask, float* to) {
    const LevelShape& level = image_level(program);
    const int channels = image_channels(program);
    const size_t plane = static_cast<size_t>(level.rows) * level.columns;
    const auto copy = [&](int row, int column, int count) {
        const size_t first = static_cast<size_t>(row) * level.columns + column;
        interleave(planes + first, plane, channels, count, to + first * channels);
    };
    // An image that is not a whole number of pixels to a cell is copied as a whole: such programs are small.
    if (!level.masked || level.rows % program.mask_rows || level.columns % program.mask_columns) {
        for (int row = 0; row < level.rows; row++) copy(row, 0, level.columns);
        return;
    }
    const int height = level.rows / program.mask_rows, width = level.columns / program.mask_columns;
    for (int row = 0; row < level.rows; row++) {
        const uint8_t* cells = mask + row / height * program.mask_columns;
        for (int from = 0, end = 0; from < program.mask_columns; from = end) {
            for (end = from + 1; end < program.mask_columns && cells[end] == cells[from];) end++;
            if (cells[from]) copy(row, from * width, (end - from) * width);
        }
    }
}

}  // namespace

uint32_t edgekit_abi_version() { return EDGEKIT_ABI_VERSION; }

uint32_t edgekit_program_version() { return kProgramVersion; }

const char* edgekit_load(const void* program, size_t length, int threads, const char* isa, edgekit_engine** engine) {
    *engine = nullptr;
    if (threads < 1 || threads > 256) return "expected 1 to 256 threads";
    return guarded([&] {
        *engine = new edgekit_engine(parse_program(static_cast<const uint8_t*>(program), length), choose_kernels(isa),
                                     threads);
    });
}

void edgekit_free(edgekit_engine* engine) { delete engine; }

edgekit_image_shape edgekit_image(const edgekit_engine* engine) {
    const LevelShape& level = image_level(engine->engine.program());
    return {level.rows, level.columns, image_channels(engine->engine.program())};
}

edgekit_mask_shape edgekit_mask(const edgekit_engine* engine) {
    return {engine->engine.program().mask_rows, engine->engine.program().mask_columns};
}

int edgekit_output_count(const edgekit_engine* engine) {
    return static_cast<int>(engine->engine.program().outputs.size());
}

edgekit_output edgekit_output_at(const edgekit_engine* engine, int index) {
    const OutputShape& output = engine->engine.program().outputs[index];
    return {output.name.c_str(), output.rows, output.columns};
}

const char* edgekit_isa(const edgekit_engine* engine) { return engine->engine.kernels().name; }

int edgekit_threads(const edgekit_engine* engine) { return engine->engine.threads(); }

const char* edgekit_run(edgekit_engine* engine, edgekit_layout layout, const void* image, const float* mask,
                        float* const* outputs) {
    const Program& program = engine->engine.program();
    if (!mask != !program.mask_rows) return mask ? "this program takes no mask" : "this program needs a mask";
    return guarded([&] {
        const std::lock_guard<std::mutex> lock(engine->turn);
        for (size_t i = 0; i < engine->mask.size(); i++) engine->mask[i] = mask[i] != 0;
        const uint8_t* cells = mask ? engine->mask.data() : nullptr;
        const uint8_t* pixels = layout == EDGEKIT_PIXELS ? static_cast<const uint8_t*>(image) : nullptr;
        const float* normalised = pixels ? nullptr : static_cast<const float*>(image);
        if (layout == EDGEKIT_PLANES) {
            if (!engine->image) {
                const LevelShape& level = image_level(program);
                const size_t sites = static_cast<size_t>(level.rows) * level.columns;
                engine->image.reset(new float[sites * image_channels(program)]());
            }
            interleave_active(program, normalised, cells, engine->image.get());
            normalised = engine->image.get();
        }
        engine->engine.run(pixels, normalised, cells, outputs);
    });
}
