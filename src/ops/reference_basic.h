// The slow, obvious twins of the basic operations and losses: same arguments, same results, written
// from the formula in LibTorch's own differentiable operations. For tests.
#pragma once

#include "zebra/losses.h"
#include "zebra/ops.h"

namespace zebra::reference {

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up);

at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table, RopePairing pairing);

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, const at::Tensor& segments);

at::Tensor segment_positions(const at::Tensor& segments);

// Holds the logits of all tokens.
DistillLossOutput distill_loss(const DistillLossInput& in, const DistillLossOptions& options);

at::Tensor token_nll(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets);

at::Tensor ild_distance(const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& weights, IldForm form);

DpoOutput dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected,
                   const at::Tensor& reference_chosen, const at::Tensor& reference_rejected,
                   double beta, double pair_weight);

}  // namespace zebra::reference
