// How mixers and MLP make and apply their linear maps: the results of those that are dear are kept
// where a block is recomputed (ops/kept.h).
#pragma once

#include <torch/nn/modules/linear.h>

#include "ops/kept.h"

namespace zebra {

inline torch::nn::Linear make_linear(int64_t in, int64_t out, bool bias) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(bias));
}

inline at::Tensor project(const torch::nn::Linear& linear, const at::Tensor& x) {
  return kept_linear(x, linear->weight, linear->bias);
}

// A block's last map, whose result no gradient depends on.
inline at::Tensor project_last(const torch::nn::Linear& linear, const at::Tensor& x) {
  return unread_linear(x, linear->weight, linear->bias);
}

}  // namespace zebra
