// Picks the kernels for this processor, and says how much scratch memory each wants.
#include "ops/cpu/kernels.h"

#include <ATen/Version.h>

#include <string>

namespace zebra::detail {

#define ZEBRA_DECLARE_ISA(isa)             \
  namespace isa {                          \
  const Kernels<float>& float_kernels();   \
  const Kernels<double>& double_kernels(); \
  }
ZEBRA_DECLARE_ISA(baseline)
ZEBRA_DECLARE_ISA(avx2)
ZEBRA_DECLARE_ISA(avx512)
#undef ZEBRA_DECLARE_ISA

namespace {

enum class Isa { kBaseline, kAvx2, kAvx512 };

Isa best_isa() {
#ifdef ZEBRA_X86_KERNELS
  const std::string capability = at::get_cpu_capability();
  if (capability == "AVX512") return Isa::kAvx512;
  if (capability == "AVX2") return Isa::kAvx2;
#endif
  return Isa::kBaseline;
}

}  // namespace

template <>
const Kernels<float>& kernels<float>() {
  static const Isa isa = best_isa();
#ifdef ZEBRA_X86_KERNELS
  if (isa == Isa::kAvx512) return avx512::float_kernels();
  if (isa == Isa::kAvx2) return avx2::float_kernels();
#endif
  return baseline::float_kernels();
}

template <>
const Kernels<double>& kernels<double>() {
  static const Isa isa = best_isa();
#ifdef ZEBRA_X86_KERNELS
  if (isa == Isa::kAvx512) return avx512::double_kernels();
  if (isa == Isa::kAvx2) return avx2::double_kernels();
#endif
  return baseline::double_kernels();
}

}  // namespace zebra::detail
