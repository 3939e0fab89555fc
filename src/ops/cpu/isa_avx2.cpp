// The CPU kernels for AVX2 with FMA.
#define ZEBRA_ISA avx2
#define ZEBRA_VECTOR_BYTES 32
#include "ops/cpu/kernel_table.h"
