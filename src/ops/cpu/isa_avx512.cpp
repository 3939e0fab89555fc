// The CPU kernels for AVX-512 (F, BW, DQ, VL).
#define ZEBRA_ISA avx512
#define ZEBRA_VECTOR_BYTES 64
#include "ops/cpu/kernel_table.h"
