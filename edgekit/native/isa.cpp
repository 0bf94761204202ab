#include "isa.h"

#include <cstdlib>
#include <stdexcept>

#if defined(EDGEKIT_AVX_VNNI)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace edgekit {

#if defined(EDGEKIT_AVX_VNNI)
// __builtin_cpu_supports does not know it in every compiler that can compile for it.
static bool has_avx_vnni() {
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}
#endif

std::vector<const Kernels*> usable_kernels() {
    std::vector<const Kernels*> usable{&reference_kernels()};
#if defined(__x86_64__)
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (avx2) usable.push_back(&avx2_kernels());
#if defined(EDGEKIT_AVX_VNNI)
    if (avx2 && has_avx_vnni()) usable.push_back(&avx2_vnni_kernels());
#endif
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni"))
        usable.push_back(&avx512_kernels());
#elif defined(__aarch64__)
    usable.push_back(&neon_kernels());
#if defined(HWCAP_ASIMDDP)
    if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) usable.push_back(&neon_dotprod_kernels());
#endif
#endif
    return usable;
}

const Kernels& choose_kernels(const char* wanted) {
    if (!wanted || !*wanted) wanted = std::getenv("EDGEKIT_ISA");
    const auto usable = usable_kernels();
    if (!wanted || !*wanted) return *usable.back();
    std::string names;
    for (const Kernels* kernels : usable) {
        if (std::string(kernels->name) == wanted) return *kernels;
        names += (names.empty() ? "" : ", ") + std::string(kernels->name);
    }
    throw std::invalid_argument("there are no kernels for the instruction set '" + std::string(wanted) +
                                "' on this processor; it can run: " + names);
}

}  // namespace edgekit
