// Runs a sparse program on a fixed pseudo-random image and mask with every instruction set of this processor, and
// prints how far each is from the reference kernels. Exits 1 if one is too far.
// Usage: run_program FILE.sparse [--tolerance 0.001] [--active 0.3] [--threads 1]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "engine.h"
#include "isa.h"

using namespace edgekit;

namespace {

using Outputs = std::vector<std::vector<float>>;

double argument(int count, char** arguments, const char* name, double otherwise) {
    for (int i = 2; i + 1 < count; i += 2)
        if (!std::strcmp(arguments[i], name)) return std::strtod(arguments[i + 1], nullptr);
    return otherwise;
}

Outputs run(Engine& engine, const std::vector<uint8_t>& image, const std::vector<uint8_t>& mask) {
    Outputs outputs;
    std::vector<float*> places;
    for (const OutputShape& shape : engine.program().outputs)
        outputs.emplace_back(static_cast<size_t>(shape.rows) * shape.columns);
    for (auto& output : outputs) places.push_back(output.data());
    engine.run(image.data(), nullptr, mask.empty() ? nullptr : mask.data(), places.data());
    return outputs;
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 2)
        return std::fprintf(stderr, "usage: run_program FILE.sparse [--tolerance T] [--active SHARE] [--threads N]\n"),
               2;
    std::ifstream file(arguments[1], std::ios::binary);
    const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const double tolerance = argument(count, arguments, "--tolerance", 1e-3),
                 active = argument(count, arguments, "--active", 0.3);
    const int threads = static_cast<int>(argument(count, arguments, "--threads", 1));
    try {
        const Program program = parse_program(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
        const TensorShape& tensor = program.tensors[program.operations[0].output];
        const LevelShape& level = program.levels[tensor.level];
        // The generator is exactly specified; the distributions of <random> are not.
        std::mt19937 generator(1);
        std::vector<uint8_t> image(static_cast<size_t>(level.rows) * level.columns * tensor.channels);
        std::vector<uint8_t> mask(static_cast<size_t>(program.mask_rows) * program.mask_columns);
        for (uint8_t& pixel : image) pixel = static_cast<uint8_t>(generator() >> 24);
        for (uint8_t& cell : mask) cell = generator() < active * 4294967296.0;

        Outputs expected;
        bool failed = false;
        for (const Kernels* kernels : usable_kernels()) {
            Engine engine(program, *kernels, threads);
            const auto start = std::chrono::steady_clock::now();
            const Outputs got = run(engine, image, mask);
            const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
            if (expected.empty()) expected = got;  // the first is the reference
            double difference = 0, largest = 1;
            for (size_t i = 0; i < got.size(); i++)
                for (size_t k = 0; k < got[i].size(); k++) {
                    const double apart = std::abs(double{got[i][k]} - double{expected[i][k]});
                    difference = std::max(difference, std::isnan(apart) ? INFINITY : apart);
                    largest = std::max(largest, std::abs(double{expected[i][k]}));
                }
            std::printf("%-12s largest difference %.3g of values up to %.3g, %.2f s\n", kernels->name, difference,
                        largest, seconds);
            std::fflush(stdout);
            failed |= difference > tolerance * largest;
        }
        return failed;
    } catch (const std::exception& error) {
        return std::fprintf(stderr, "%s: %s\n", arguments[1], error.what()), 1;
    }
}
