// The losses of one chunk of logits, with the gradient left in the student's place; what
// distill_loss and token_nll are made of. docs/math/distillation.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "zebra/losses.h"

namespace zebra::detail {

// m: tokens of the chunk. All floating tensors are of one compute type, float32 or float64.
struct LogitLossInput {
  at::Tensor student;   // (m, V): overwritten with the gradient when one is wanted
  at::Tensor teacher;   // (m, V): overwritten; undefined: no divergence
  at::Tensor kl_scale;  // (m): factor of each token's divergence in the gradient; with teacher
  at::Tensor ce_scale;  // (m): factor of each cross-entropy in it; undefined: no cross-entropy
  at::Tensor targets;   // (m) int64, negative: no cross-entropy at this token; with ce_scale
  KlDirection direction = KlDirection::kForward;
  double temperature = 1.0;
  bool gradient = false;
};

struct LogitLosses {
  at::Tensor kl;     // (m) times temperature^2
  at::Tensor agree;  // (m) 1 where both argmaxes are equal, else 0
  at::Tensor ce;     // (m) -log p(target) at temperature 1, 0 without a target
};

LogitLosses logit_losses(const LogitLossInput& in);

// Its two forms. The first REQUIRES contiguous CPU tensors.
LogitLosses logit_losses_cpu(const LogitLossInput& in);
LogitLosses logit_losses_aten(const LogitLossInput& in);

// ---- products with a head -----------------------------------------------------------------------

// Logits of a chunk in the compute type. hidden: (m, D), head: (V, D), out: (m, V)
void logits_into(const at::Tensor& out, const at::Tensor& hidden, const at::Tensor& head);

// dlogits: (m, V), head: (V, D) -> (m, D) in head's dtype
at::Tensor hidden_gradient(const at::Tensor& dlogits, const at::Tensor& head);

// dhead += dlogits^T hidden. dhead: (V, D) in the compute type, dlogits: (m, V), hidden: (m, D)
void add_head_gradient(const at::Tensor& dhead, const at::Tensor& dlogits,
                       const at::Tensor& hidden);

}  // namespace zebra::detail
