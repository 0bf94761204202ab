// The instruction sets that this build has kernels for.
#pragma once

#include <string>
#include <vector>

#include "kernels.h"

namespace edgekit {

const Kernels& reference_kernels();
const Kernels& avx2_kernels();          // these on x86-64 only
const Kernels& avx2_vnni_kernels();     // if EDGEKIT_AVX_VNNI: the compiler knows it
const Kernels& avx512_kernels();
const Kernels& neon_kernels();          // these on AArch64 only
const Kernels& neon_dotprod_kernels();

// Those that this processor can run, slowest first.
std::vector<const Kernels*> usable_kernels();

}  // namespace edgekit
