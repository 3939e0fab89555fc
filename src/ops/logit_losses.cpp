#include "ops/logit_losses.h"

#include <cmath>

#include "ops/basic.h"
#include "ops/cpu_basic/divergence_kernel.h"

namespace zebra::detail {

// ---- CPU ----------------------------------------------------------------------------------------

namespace {

template <class T>
T* values_or_null(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.data_ptr<T>() : nullptr;
}

}  // namespace

LogitLosses logit_losses_cpu(const LogitLossInput& in) {
  const int64_t m = in.student.size(0), V = in.student.size(1);
  LogitLosses out;
  if (in.teacher.defined()) {
    out.kl = at::empty({m}, in.student.options());
    out.agree = at::empty({m}, in.student.options());
  }
  if (in.ce_scale.defined()) out.ce = at::empty({m}, in.student.options());
  AT_DISPATCH_FLOATING_TYPES(in.student.scalar_type(), "logit_losses", [&] {
    const LogitRowsArgs<scalar_t> args{in.student.data_ptr<scalar_t>(),
                                       values_or_null<scalar_t>(in.teacher),
                                       values_or_null<scalar_t>(in.kl_scale),
                                       values_or_null<scalar_t>(in.ce_scale),
                                       values_or_null<int64_t>(in.targets),
                                       values_or_null<scalar_t>(out.kl),
                                       values_or_null<scalar_t>(out.agree),
                                       values_or_null<scalar_t>(out.ce),
                                       V,
                                       static_cast<scalar_t>(in.temperature),
                                       in.direction,
                                       in.gradient};
    const int64_t grain = std::max<int64_t>(1, 8192 / V);
    at::parallel_for(0, m, grain,
                     [&](int64_t begin, int64_t end) { logit_rows(args, begin, end); });
  });
  return out;
}

// ---- any device ---------------------------------------------------------------------------------

namespace {

// Logits become log-probabilities at this temperature, in place.
void log_softmax_(const at::Tensor& logits, double temperature) {
  if (temperature != 1.0) logits.div_(temperature);
  logits.sub_(logits.logsumexp(-1, /*keepdim=*/true));
}

// Each takes log-probabilities (m, V), overwrites both, leaves the gradient with respect to the
// student's scaled logits in s, and returns the divergence (m).

// Gradient p_s - p_t.
at::Tensor forward_divergence_(const at::Tensor& s, const at::Tensor& t) {
  const at::Tensor p = t.exp();
  const at::Tensor value = t.sub_(s).mul_(p).sum(-1);
  s.exp_().sub_(p);
  return value;
}

// Gradient p_s (log(p_s / p_t) - KL).
at::Tensor reverse_divergence_(const at::Tensor& s, const at::Tensor& t) {
  const at::Tensor ratio = t.sub_(s).neg_();
  s.exp_();
  const at::Tensor value = (s * ratio).sum(-1);
  s.mul_(ratio.sub_(value.unsqueeze(-1)));
  return value;
}

// Gradient p_s (log(p_s / m) - KL(s || m)) / 2.
at::Tensor js_divergence_(const at::Tensor& s, const at::Tensor& t) {
  const at::Tensor middle = at::logaddexp(s, t).sub_(std::log(2.0));
  const at::Tensor of_teacher = t.exp().mul_(t.sub_(middle)).sum(-1);
  const at::Tensor ratio = middle.neg_().add_(s);
  s.exp_();
  const at::Tensor of_student = (s * ratio).sum(-1);
  s.mul_(ratio.sub_(of_student.unsqueeze(-1))).mul_(0.5);
  return (of_teacher + of_student).mul_(0.5);
}

at::Tensor divergence_(KlDirection direction, const at::Tensor& s, const at::Tensor& t) {
  switch (direction) {
    case KlDirection::kForward:
      return forward_divergence_(s, t);
    case KlDirection::kReverse:
      return reverse_divergence_(s, t);
    case KlDirection::kJs:
      return js_divergence_(s, t);
  }
  TORCH_CHECK(false, "divergence: unknown direction");
}

struct CrossEntropy {
  at::Tensor value;     // (m)
  at::Tensor gradient;  // (m, V), undefined unless wanted
};

// Leaves the student's logits alone if the divergence still needs them.
CrossEntropy cross_entropy(const LogitLossInput& in) {
  const at::Tensor valid = in.targets.ge(0);
  const at::Tensor index = in.targets.clamp_min(0).unsqueeze(1);          // (m, 1)
  const at::Tensor lse = in.student.logsumexp(-1, /*keepdim=*/true);      // (m, 1)
  const at::Tensor nll = (lse - in.student.gather(1, index)).squeeze(1);  // (m)
  CrossEntropy out{at::where(valid, nll, at::zeros_like(nll)), at::Tensor()};
  if (!in.gradient) return out;
  const at::Tensor scale = (in.ce_scale * valid).unsqueeze(1);  // (m, 1)
  out.gradient = in.teacher.defined() ? in.student - lse : in.student.sub_(lse);
  out.gradient.exp_().mul_(scale).scatter_add_(1, index, -scale);
  return out;
}

}  // namespace

LogitLosses logit_losses_aten(const LogitLossInput& in) {
  LogitLosses out;
  at::Tensor ce_gradient;
  if (in.ce_scale.defined()) {
    CrossEntropy ce = cross_entropy(in);
    out.ce = ce.value;
    ce_gradient = ce.gradient;
  }
  if (!in.teacher.defined()) return out;
  out.agree = in.student.argmax(-1).eq(in.teacher.argmax(-1)).to(in.student.scalar_type());
  log_softmax_(in.student, in.temperature);
  log_softmax_(in.teacher, in.temperature);
  out.kl = divergence_(in.direction, in.student, in.teacher);
  out.kl.mul_(in.temperature * in.temperature);
  if (!in.gradient) return out;
  in.student.mul_((in.kl_scale * in.temperature).unsqueeze(1));
  if (ce_gradient.defined()) in.student.add_(ce_gradient);
  return out;
}

LogitLosses logit_losses(const LogitLossInput& in) {
  return in.student.device().is_cpu() ? logit_losses_cpu(in) : logit_losses_aten(in);
}

// ---- products with a head -----------------------------------------------------------------------

namespace {

bool reduced(const at::Tensor& tensor) {
  return compute_type(tensor.scalar_type()) != tensor.scalar_type();
}

}  // namespace

void logits_into(const at::Tensor& out, const at::Tensor& hidden, const at::Tensor& head) {
  at::Tensor target = out;
  if (!reduced(hidden)) {
    at::mm_out(target, hidden, head.t());
  } else {
    target.copy_(at::mm(hidden, head.t()));
  }
}

at::Tensor hidden_gradient(const at::Tensor& dlogits, const at::Tensor& head) {
  return at::mm(dlogits.to(head.scalar_type()), head);
}

void add_head_gradient(const at::Tensor& dhead, const at::Tensor& dlogits,
                       const at::Tensor& hidden) {
  at::Tensor sum = dhead;
  if (!reduced(hidden)) {
    sum.addmm_(dlogits.t(), hidden);
  } else if (hidden.is_cuda()) {
    sum.add_(at::mm(dlogits.to(hidden.scalar_type()).t(), hidden, sum.scalar_type()));
  } else {
    sum.addmm_(dlogits.t(), hidden.to(sum.scalar_type()));
  }
}

}  // namespace zebra::detail
