#include "ops/reference_basic.h"

#include <limits>
#include <vector>

namespace zebra::reference {

namespace {

at::Tensor widen(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

}  // namespace

// y_d = weight_d x_d / sqrt(mean(x^2) + eps)
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = widen(x);
  const at::Tensor mean_square = (wide * wide).mean(-1, /*keepdim=*/true);  // (..., 1)
  const at::Tensor normal = (wide / (mean_square + eps).sqrt()).to(x.scalar_type());
  return (normal * weight).to(x.scalar_type());
}

// gate sigmoid(gate) up
at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  return gate * gate.sigmoid() * up;
}

// One pair at a time: (a, b) -> (a cos - b sin, b cos + a sin).
at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table, RopePairing pairing) {
  const int64_t pairs = x.size(3) / 2;
  const at::Tensor wide = widen(x);
  std::vector<at::Tensor> first, second;
  for (int64_t j = 0; j < pairs; ++j) {
    const bool half_split = pairing == RopePairing::kHalfSplit;
    const at::Tensor a = wide.select(3, half_split ? j : 2 * j);              // (B, T, N)
    const at::Tensor b = wide.select(3, half_split ? j + pairs : 2 * j + 1);  // (B, T, N)
    const at::Tensor cos = table.cos.select(2, j).unsqueeze(2);               // (B or 1, T, 1)
    const at::Tensor sin = table.sin.select(2, j).unsqueeze(2);
    first.push_back(a * cos - b * sin);
    second.push_back(b * cos + a * sin);
  }
  first.insert(first.end(), second.begin(), second.end());
  return at::stack(first, 3).to(x.scalar_type());  // (B, T, N, H)
}

// One query at a time, over the keys that it sees.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, const at::Tensor& segments) {
  const int64_t T = q.size(1), S = k.size(1), repeat = q.size(2) / k.size(2);
  const at::Tensor keys = k.repeat_interleave(repeat, 2);    // (B, S, N, H)
  const at::Tensor values = v.repeat_interleave(repeat, 2);  // (B, S, N, Hv)
  constexpr double kMasked = -std::numeric_limits<double>::infinity();
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < T; ++t) {
    const int64_t seen = S - T + t + 1;
    at::Tensor scores =
        (q.narrow(1, t, 1) * keys.narrow(1, 0, seen)).sum(-1) * scale;  // (B, seen, N)
    if (segments.defined()) {
      const at::Tensor other = segments.narrow(1, 0, seen).ne(segments.narrow(1, seen - 1, 1));
      scores = scores.masked_fill(other.unsqueeze(2), kMasked);
    }
    const at::Tensor p = scores.softmax(1).unsqueeze(3);     // (B, seen, N, 1)
    rows.push_back((p * values.narrow(1, 0, seen)).sum(1));  // (B, N, Hv)
  }
  return at::stack(rows, 1);  // (B, T, N, Hv)
}

at::Tensor segment_positions(const at::Tensor& segments) {
  const at::Tensor positions = at::zeros_like(segments);
  for (int64_t b = 0; b < segments.size(0); ++b) {
    for (int64_t t = 1; t < segments.size(1); ++t) {
      const bool same = segments[b][t].item<int64_t>() == segments[b][t - 1].item<int64_t>();
      if (same) positions[b][t] = positions[b][t - 1] + 1;
    }
  }
  return positions;
}

namespace {

// sum p (log p - log q) over the vocabulary. (M)
at::Tensor kl(const at::Tensor& log_p, const at::Tensor& log_q) {
  return (log_p.exp() * (log_p - log_q)).sum(-1);
}

at::Tensor divergence(KlDirection direction, const at::Tensor& log_s, const at::Tensor& log_t) {
  if (direction == KlDirection::kForward) return kl(log_t, log_s);
  if (direction == KlDirection::kReverse) return kl(log_s, log_t);
  const at::Tensor log_m = ((log_s.exp() + log_t.exp()) / 2).log();
  return (kl(log_t, log_m) + kl(log_s, log_m)) / 2;
}

}  // namespace

DistillLossOutput distill_loss(const DistillLossInput& in, const DistillLossOptions& options) {
  const double tau = options.temperature;
  const at::Tensor student = widen(at::matmul(in.student_hidden, in.student_head.t()));  // (M, V)
  const at::Tensor teacher =
      widen(at::matmul(in.teacher_hidden, in.teacher_head.t())).detach();  // (M, V)
  const at::Tensor value = tau * tau *
                           divergence(options.direction, (student / tau).log_softmax(-1),
                                      (teacher / tau).log_softmax(-1));  // (M)
  const at::Tensor counted = in.kl_weights.ne(0);
  DistillLossOutput out;
  out.loss = options.kl_weight * (value * in.kl_weights).sum();
  out.kl_sum = (value * counted).sum().detach();
  out.ce_sum = at::zeros_like(out.kl_sum);
  out.agree = (student.argmax(-1).eq(teacher.argmax(-1)) * counted).sum().to(student.scalar_type());
  if (options.ce_weight == 0.0) return out;
  const at::Tensor index = in.targets.clamp_min(0).unsqueeze(1);
  const at::Tensor nll = -student.log_softmax(-1).gather(1, index).squeeze(1) * in.targets.ge(0);
  out.loss = out.loss + options.ce_weight * (nll * in.ce_weights).sum();
  out.ce_sum = (nll * in.ce_weights.ne(0)).sum().detach();
  return out;
}

at::Tensor token_nll(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets) {
  const at::Tensor logits = widen(at::matmul(hidden, head.t()));  // (M, V)
  return -logits.log_softmax(-1).gather(1, targets.unsqueeze(1)).squeeze(1);
}

at::Tensor ild_distance(const at::Tensor& student, const at::Tensor& teacher,
                        const at::Tensor& weights, IldForm form) {
  const at::Tensor square = (widen(student) - widen(teacher)).square();  // (B, T, D)
  const at::Tensor distance = form == IldForm::kNorm ? square.sum(-1).sqrt() : square.mean(-1);
  return (distance * weights).sum();
}

// Two models and two answers. NOLINTNEXTLINE(readability-function-size)
DpoOutput dpo_loss(const at::Tensor& chosen, const at::Tensor& rejected,
                   const at::Tensor& reference_chosen, const at::Tensor& reference_rejected,
                   double beta, double pair_weight) {
  const at::Tensor margins =
      beta * ((chosen - reference_chosen) - (rejected - reference_rejected));  // (B)
  return {(pair_weight * (1 + (-margins).exp()).log()).sum(), margins.detach()};
}

}  // namespace zebra::reference
