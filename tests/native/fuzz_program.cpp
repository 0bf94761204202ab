// Feeds the engine with mutated sparse programs: whatever parse_program() lets through has to run, in bounds, and in
// integers with the same results on every instruction set.
//
// With Clang's libFuzzer (-fsanitize=fuzzer) it is a fuzz target. With any other compiler, -DEDGEKIT_FUZZ_LOOP adds a
// main() with a loop of its own, without guidance by coverage: fuzz_program FOLDER SECONDS [SEED].
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <vector>

#include "engine.h"
#include "isa.h"

using namespace edgekit;

namespace {

using Bytes = std::vector<uint8_t>;

template <class T>
T load(const Bytes& bytes, size_t at) {
    T value;
    std::memcpy(&value, &bytes[at], sizeof value);
    return value;
}
template <class T>
void store(Bytes& bytes, size_t at, T value) {
    std::memcpy(&bytes[at], &value, sizeof value);
}

uint32_t crc32(const uint8_t* bytes, size_t length) {
    uint32_t crc = ~0u;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0u);
    }
    return ~crc;
}

// Make a header fit what follows it, so that a mutation is not refused for its length or checksum.
void mend(Bytes& bytes) {
    if (bytes.size() < 64) return;
    std::memcpy(bytes.data(), "EKSPARSE\1\0\0\0", 12);
    store<uint64_t>(bytes, 16, bytes.size());
    const uint64_t tables = 64 + 16ull * load<uint32_t>(bytes, 32) + 32ull * load<uint32_t>(bytes, 36) +
                            128ull * load<uint32_t>(bytes, 40) + 64ull * load<uint32_t>(bytes, 44);
    const uint64_t constants = (tables + 63) / 64 * 64;
    if (constants <= bytes.size()) {
        store<uint64_t>(bytes, 48, constants);
        store<uint64_t>(bytes, 56, bytes.size() - constants);
    }
    store<uint32_t>(bytes, 12, crc32(bytes.data() + 16, bytes.size() - 16));
}

// Whether a program is quickly run. Reading it and refusing it has to be quick for any.
bool is_small(const Program& program) {
    double work = 0;
    for (const TensorShape& tensor : program.tensors) {
        const LevelShape& level = program.levels[tensor.level];
        work += (level.rows + 30.0) * (level.columns + 30.0) * (tensor.channels + 15);
    }
    for (const OutputShape& output : program.outputs) work += double(output.rows) * output.columns;
    for (const LevelShape& level : program.levels) work += double(level.rows) * level.columns;
    for (const Operation& op : program.operations) {
        if (op.kind == Kind::output) continue;
        const LevelShape& level = program.level_of(op.output);
        const double inputs = op.kind == Kind::conv ? program.tensors[op.input].channels + 15 : 1;
        work += double(level.rows) * level.columns * (op.written + 15) * inputs * op.kernel_rows * op.kernel_columns;
    }
    return work < 2e7;
}

// Sums of floats depend on their order, and so do all integers made from them.
bool is_exact(const Program& program) {
    for (const Operation& op : program.operations)
        if (op.input >= 0 && op.kind != Kind::output && op.kind != Kind::dequantise &&
            program.tensors[op.input].type == Type::float32)
            return false;
    return true;
}

std::vector<std::vector<float>> run(const Program& program, const Kernels& kernels, uint32_t seed) {
    Engine engine(program, kernels, 1);
    const TensorShape& tensor = program.tensors[program.operations[0].output];
    const LevelShape& level = program.levels[tensor.level];
    std::mt19937 generator(seed);
    std::vector<uint8_t> image(static_cast<size_t>(level.rows) * level.columns * tensor.channels);
    std::vector<uint8_t> mask(static_cast<size_t>(program.mask_rows) * program.mask_columns);
    std::vector<std::vector<float>> outputs;
    std::vector<float*> places;
    for (const OutputShape& shape : program.outputs)
        outputs.emplace_back(static_cast<size_t>(shape.rows) * shape.columns);
    for (auto& output : outputs) places.push_back(output.data());
    for (const uint32_t share : {3u, 1u, 0u, 2u}) {  // active thirds: what one mask leaves behind meets the next
        for (uint8_t& pixel : image) pixel = static_cast<uint8_t>(generator());
        for (uint8_t& cell : mask) cell = generator() % 3 < share;
        engine.run(image.data(), nullptr, mask.empty() ? nullptr : mask.data(), places.data());
        if (mask.empty()) break;
    }
    std::vector<float> normalised(image.size());
    for (float& value : normalised) value = static_cast<float>(generator() % 1000) / 250.0f - 2.0f;
    if (!normalised.empty() && seed % 4 == 0) normalised[seed % normalised.size()] = seed % 8 ? NAN : INFINITY;
    engine.run(nullptr, normalised.data(), mask.empty() ? nullptr : mask.data(), places.data());
    return outputs;
}

// Fields are 32-bit numbers, so most mutations change one of those.
void mutate(Bytes& bytes, std::mt19937& generator) {
    if (bytes.size() < 128) return;
    const auto below = [&](size_t limit) { return static_cast<size_t>(generator() % std::max<size_t>(limit, 1)); };
    static const uint32_t numbers[] = {
        0,          1,          2,          3,          4,          7,          8,         15,         16,
        17,         64,         255,        256,        4096,       8192,       32768,     0x7FFFFFFF, 0x80000000,
        0xFFFFFFFF, 0x7F800000, 0x7F7FFFFF, 0x3F800000, 0x00000001, 0xFF800000, 0x7FC00000};
    // Most changes are to the tables, not to weights.
    const size_t tables =
        std::min<size_t>(bytes.size(), std::max<size_t>(64, load<uint64_t>(bytes, 48) % bytes.size()));
    const size_t word = below((below(8) ? tables : bytes.size()) / 4) * 4;
    switch (below(8)) {
        case 0: bytes[below(bytes.size())] ^= static_cast<uint8_t>(1 << below(8)); break;
        case 1: bytes[below(bytes.size())] = static_cast<uint8_t>(generator()); break;
        case 2: store<uint32_t>(bytes, word, load<uint32_t>(bytes, word) + 1); break;
        case 3: store<uint32_t>(bytes, word, load<uint32_t>(bytes, word) - 1); break;
        case 4: store<uint32_t>(bytes, word, numbers[below(sizeof numbers / 4)]); break;
        case 5: store<uint32_t>(bytes, word, load<uint32_t>(bytes, word) * 2); break;
        case 6: store<uint32_t>(bytes, word, load<uint32_t>(bytes, below(tables / 4) * 4)); break;
        default: {  // one table entry over another of its kind
            const size_t size = below(2) ? 128 : 32, from = 64 + below((tables - 64) / 16) * 16,
                         to = 64 + below((tables - 64) / 16) * 16;
            if (std::max(from, to) + size <= tables) std::memmove(&bytes[to], &bytes[from], size);
        }
    }
}

// Whether a program was accepted and run.
bool try_program(const Bytes& bytes) {
    Program program;
    try {
        program = parse_program(bytes.data(), bytes.size());
    } catch (const ProgramError&) {
        return false;
    }
    if (!is_small(program)) return true;
    const uint32_t seed = load<uint32_t>(bytes, 12);
    const auto usable = usable_kernels();
    const Kernels& other = *usable[seed % usable.size()];
    const auto expected = run(program, *usable[0], seed), got = run(program, other, seed);
    for (size_t i = 0; is_exact(program) && i < got.size(); i++)
        if (std::memcmp(got[i].data(), expected[i].data(), got[i].size() * sizeof(float))) {
            std::fprintf(stderr, "output %zu of %s is not the reference's\n", i, other.name);
            std::abort();
        }
    return true;
}

}  // namespace

#if !defined(EDGEKIT_FUZZ_LOOP)

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Bytes bytes(data, data + size);
    mend(bytes);
    try_program(bytes);
    return 0;
}

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t most);

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t most, unsigned seed) {
    std::mt19937 generator(seed);
    if (size < 128 || generator() % 4 == 0) return LLVMFuzzerMutate(data, size, most);
    Bytes bytes(data, data + size);
    mutate(bytes, generator);
    mend(bytes);  // so that the corpus has files that the engine itself would read
    std::memcpy(data, bytes.data(), bytes.size());
    return bytes.size();
}

#else

#include <unistd.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif

#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

namespace {

Bytes current;  // for whoever reports a failure

void keep_current() {
    std::ofstream("crash.sparse", std::ios::binary)
        .write(reinterpret_cast<const char*>(current.data()), static_cast<std::streamsize>(current.size()));
    std::fprintf(stderr, "wrote crash.sparse\n");
}

[[noreturn]] void stop(int signal) {
    std::fprintf(stderr, "%s\n", signal == SIGALRM ? "one program took 60 seconds" : "aborted");
    keep_current();
    _exit(1);
}

}  // namespace

int main(int count, char** arguments) {
    if (count < 3) return std::fprintf(stderr, "usage: fuzz_program FOLDER SECONDS [SEED]\n"), 2;
    std::vector<Bytes> corpus;
    for (const auto& entry : std::filesystem::directory_iterator(arguments[1])) {
        if (!entry.is_regular_file()) continue;
        std::ifstream file(entry.path(), std::ios::binary);
        const std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
        if (bytes.size() > 128) corpus.emplace_back(bytes.begin(), bytes.end());
    }
    if (corpus.empty()) return std::fprintf(stderr, "%s has no programs\n", arguments[1]), 2;
    const unsigned seed =
        count > 3 ? static_cast<unsigned>(std::strtoul(arguments[3], nullptr, 10)) : std::random_device{}();
    std::printf("seed %u, %zu programs\n", seed, corpus.size());
    std::mt19937 generator(seed);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_set_death_callback(keep_current);
#endif
    std::signal(SIGALRM, stop);
    std::signal(SIGABRT, stop);
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(std::strtol(arguments[2], nullptr, 10));
    const size_t given = corpus.size();
    long tried = 0, accepted = 0;
    while (std::chrono::steady_clock::now() < end) {
        current = corpus[generator() % corpus.size()];
        const int changes = 1 + static_cast<int>(generator() % 4);
        for (int i = 0; i < changes; i++) mutate(current, generator);
        mend(current);
        alarm(60);
        const bool runs = try_program(current);
        alarm(0);
        tried++;
        accepted += runs;
        if (!runs) continue;
        // What was accepted is worth changing further.
        if (corpus.size() < 4 * given)
            corpus.push_back(current);
        else
            corpus[given + generator() % (corpus.size() - given)] = current;
    }
    std::printf("%ld programs, of which %ld were accepted: nothing found\n", tried, accepted);
    return 0;
}

#endif
