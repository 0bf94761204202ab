// Runs an engine on several threads with many masks, and two engines at once: for -fsanitize=thread, which reports what
// is not synchronised. Results have to equal those of one thread. Usage: thread_test FILE.sparse ...
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>
#include <vector>

#include "engine.h"
#include "isa.h"

using namespace edgekit;

namespace {

// Run `rounds` frames, every other one with a new mask, on `threads` threads and on one; return whether all are equal.
bool same(const Program& program, int threads, int rounds, uint32_t seed) {
    Engine alone(program, choose_kernels(), 1), together(program, choose_kernels(), threads);
    const TensorShape& tensor = program.tensors[program.operations[0].output];
    const LevelShape& level = program.levels[tensor.level];
    std::mt19937 generator(seed);
    std::vector<uint8_t> image(static_cast<size_t>(level.rows) * level.columns * tensor.channels);
    std::vector<uint8_t> mask(static_cast<size_t>(program.mask_rows) * program.mask_columns);
    std::vector<std::vector<float>> outputs[2];
    std::vector<float*> places[2];
    for (int i = 0; i < 2; i++) {
        for (const OutputShape& shape : program.outputs)
            outputs[i].emplace_back(static_cast<size_t>(shape.rows) * shape.columns);
        for (auto& output : outputs[i]) places[i].push_back(output.data());
    }
    for (int round = 0; round < rounds; round++) {
        for (uint8_t& pixel : image) pixel = static_cast<uint8_t>(generator());
        if (round % 2 == 0) {
            const uint32_t tenths = generator() % 11;
            for (uint8_t& cell : mask) cell = generator() % 10 < tenths;
        }
        if (round == rounds / 2) together.start_clock();
        const uint8_t* cells = mask.empty() ? nullptr : mask.data();
        alone.run(image.data(), nullptr, cells, places[0].data());
        together.run(image.data(), nullptr, cells, places[1].data());
        for (size_t i = 0; i < outputs[0].size(); i++)
            if (std::memcmp(places[0][i], places[1][i], outputs[0][i].size() * sizeof(float))) return false;
    }
    return true;
}

}  // namespace

int main(int count, char** arguments) {
    int failures = 0;
    for (int i = 1; i < count; i++) {
        std::ifstream file(arguments[i], std::ios::binary);
        const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        const Program program = parse_program(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
        bool here = true, there = true;
        std::thread other([&] { there = same(program, 2, 12, 1); });
        here = same(program, 3, 12, 2);
        other.join();
        if (here && there) continue;
        std::printf("%s: several threads give something else than one\n", arguments[i]);
        failures++;
    }
    std::printf("%d programs, %d differ\n", count - 1, failures);
    return failures != 0;
}
