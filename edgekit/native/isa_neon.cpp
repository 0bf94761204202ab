// AArch64 NEON, which every 64-bit ARM processor has: Cortex-A53 and A72 have no more.
#define EDGEKIT_NAMESPACE neon
#define EDGEKIT_NEON_TABLE neon_kernels
#define EDGEKIT_NEON_NAME "neon"
#define EDGEKIT_NEON_TILE_U8 4  // 16 sums, four inputs, four weights, two pairs, four products: 30 of 32 registers
#include "isa_neon.inl"
