// The CPU kernels for what every processor of the target has.
#define ZEBRA_ISA baseline
#define ZEBRA_VECTOR_BYTES 16
#include "ops/cpu/kernel_table.h"
