// The losses of all stages. Those that need a vocabulary work from hidden states and head matrices
// in chunks of tokens, so that no (tokens, V) tensor of the whole batch ever exists; gradients are
// made in the same pass (docs/math/).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace zebra {

enum class KlDirection {
  kForward,  // KL(teacher || student), as published
  kReverse,  // KL(student || teacher)
  kJs,       // Jensen-Shannon with equal weights: (KL(t || m) + KL(s || m)) / 2, m = (t + s) / 2
};

struct DistillLossOptions {
  KlDirection direction = KlDirection::kForward;
  double temperature = 1.0;  // both logits are divided by it; the loss is multiplied by its square
  double kl_weight = 1.0;
  double ce_weight = 0.0;  // cross-entropy on `targets`, at temperature 1
  int64_t chunk_tokens = 1024;
};

struct DistillLossInput {
  at::Tensor student_hidden;  // (M, D) after the final norm
  at::Tensor student_head;    // (V, D)
  at::Tensor teacher_hidden;  // (M, Dt) no gradient; may be undefined, head too, if kl_weight is 0
  at::Tensor teacher_head;    // (V, Dt)
  at::Tensor targets;         // (M) int64, -1: no cross-entropy; undefined when ce_weight is 0
  at::Tensor kl_weights;      // (M) float32: with the denominator of the global batch folded in
  at::Tensor ce_weights;      // (M) float32, likewise; undefined when ce_weight is 0
};

// The sums have no gradient and leave the tokens' weights out; a token counts unless its weight is
// 0: kl_weights for kl_sum and agree, ce_weights (and a target) for ce_sum.
struct DistillLossOutput {
  at::Tensor loss;    // scalar float32, differentiable in student_hidden and student_head
  at::Tensor kl_sum;  // scalar: sum of the divergences times temperature^2
  at::Tensor ce_sum;  // scalar: sum of -log p(target); 0 without targets
  at::Tensor agree;   // scalar: tokens where both argmaxes are equal
};

// loss = kl_weight temperature^2 sum_m kl_weights_m KL_m + ce_weight sum_m ce_weights_m CE_m.
// The head gradient is accumulated in float32 over the chunks. Tokens that weigh nothing are left
// out before any product.
DistillLossOutput distill_loss(const DistillLossInput& in, const DistillLossOptions& options);

// -log p(target) of each token from hidden states, differentiable in hidden and head, chunked,
// logits in float32. hidden: (M, D), head: (V, D), targets: (M) int64, none negative -> (M) float32
at::Tensor token_nll(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                     int64_t chunk_tokens);

enum class IldForm {
  kNorm,         // mean over tokens of ||difference||_2, not squared: as published
  kMeanSquared,  // mean over tokens and width of the squared difference
};

// Distance of a student's tensor from its teacher's. student, teacher: (B, T, D), weights: (B, T)
// float32 with the denominator of the global batch folded in -> scalar float32. The gradient of
// kNorm at a zero difference is zero.
at::Tensor ild_distance(const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& weights, IldForm form);

struct DpoOutput {
  at::Tensor loss;     // scalar: sum over pairs of -logsigmoid(beta * margin) * pair_weight
  at::Tensor margins;  // (B) beta * ((chosen - reference chosen) - (rejected - reference
                       // rejected)), no gradient
};

// Sigmoid DPO (Rafailov et al. 2023, eq. 7). All inputs (B) float32 sequence log-probabilities.
DpoOutput dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected,
                   const at::Tensor& reference_chosen, const at::Tensor& reference_rejected,
                   double beta, double pair_weight);

}  // namespace zebra
