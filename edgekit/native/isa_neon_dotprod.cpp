// AArch64 NEON with dot products of bytes: Cortex-A55, A75, A76 and later. Compiled with -march=armv8.2-a+dotprod.
#define EDGEKIT_NAMESPACE neon_dotprod
#define EDGEKIT_NEON_TABLE neon_dotprod_kernels
#define EDGEKIT_NEON_NAME "neon-dotprod"
#define EDGEKIT_NEON_TILE_U8 6  // 24 sums, six inputs, two weights: all 32 registers
#include "isa_neon.inl"
