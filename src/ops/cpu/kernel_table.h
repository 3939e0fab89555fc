// The kernels of one instruction set as a table; each isa_*.cpp includes this once, after naming
// the instruction set in ZEBRA_ISA and the bytes of its registers in ZEBRA_VECTOR_BYTES.
#pragma once

#include "ops/cpu/cached_attention.h"
#include "ops/cpu/conv_silu.h"
#include "ops/cpu/gated_norm.h"
#include "ops/cpu/kernels.h"
#include "ops/cpu/ssd_scan.h"

namespace zebra::detail::ZEBRA_ISA {

template <class Real>
inline constexpr Kernels<Real> kTable = {
    ssd_forward<Real>,      ssd_backward<Real>,       conv_forward<Real>,
    conv_backward<Real>,    gated_norm_forward<Real>, gated_norm_backward<Real>,
    cached_attention<Real>,
};

const Kernels<float>& float_kernels() { return kTable<float>; }
const Kernels<double>& double_kernels() { return kTable<double>; }

}  // namespace zebra::detail::ZEBRA_ISA
