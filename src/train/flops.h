// Floating-point operations of a model, counted from its shape: what MFU is measured by.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <string>

#include "zebra/model.h"

namespace zebra {

// Operations of one token's forward, a multiplication and an addition counting two, on average over
// a sequence of T tokens that all see each other. docs/reliability.md has the formula.
struct ForwardFlops {
  double layers = 0;  // all blocks
  double head = 0;    // the logits
  double total() const { return layers + head; }
};
ForwardFlops forward_flops(const ModelOptions& options, int64_t sequence_length);

// Dense peak of the device in operations a second, for matrices of this dtype: the recipe's
// `peak_tflops` if it is not 0, else that of a GPU whose name is known, else 0.
double peak_flops(double peak_tflops, at::Device device, at::ScalarType dtype);

// The same by the name that CUDA gives; 0 for one that is not known.
double peak_flops_of_gpu(const std::string& name, at::ScalarType dtype);

}  // namespace zebra
