#include <algorithm>

#include "ops/basic.h"
#include "ops/logit_losses.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The tokens that count, in the compute type where they are numbers.
struct Tokens {
  at::Tensor kept;            // (m) int64 index into the M tokens; undefined: all of them
  at::Tensor student_hidden;  // (m, D)
  at::Tensor teacher_hidden;  // (m, Dt) or undefined
  at::Tensor kl_weights;      // (m)
  at::Tensor targets;         // (m) or undefined
  at::Tensor ce_weights;      // (m) or undefined
};

at::Tensor rows_of(const at::Tensor& tensor, const at::Tensor& kept) {
  return tensor.defined() && kept.defined() ? tensor.index_select(0, kept) : tensor;
}

// Tokens that weigh nothing (padding, masked prompts) cost nothing: they leave before the products.
Tokens tokens_that_count(const DistillLossInput& in, const DistillLossOptions& options) {
  const at::ScalarType type = detail::compute_type(in.student_hidden.scalar_type());
  const bool with_ce = options.ce_weight != 0.0;
  at::Tensor counts = in.kl_weights.ne(0);  // (M)
  if (with_ce) counts = counts.logical_or(in.ce_weights.ne(0).logical_and(in.targets.ge(0)));
  const at::Tensor index = counts.nonzero().squeeze(1);  // waits for a GPU, once a call
  const at::Tensor kept = index.size(0) == counts.size(0) ? at::Tensor() : index;
  Tokens tokens;
  tokens.kept = kept;
  tokens.student_hidden = rows_of(in.student_hidden, kept);
  tokens.teacher_hidden = rows_of(in.teacher_hidden, kept);
  tokens.kl_weights = rows_of(in.kl_weights, kept).to(type).contiguous();
  if (with_ce) {
    tokens.targets = rows_of(in.targets, kept).contiguous();
    tokens.ce_weights = rows_of(in.ce_weights, kept).to(type).contiguous();
  }
  return tokens;
}

// The running sums over chunks.
struct Totals {
  at::Tensor loss, kl_sum, ce_sum, agree;  // scalars
  at::Tensor dhidden;                      // (m, D) in the student's dtype, or undefined
  at::Tensor dhead;                        // (V, D) in the compute type, or undefined
};

// Sum of values (m) over the tokens whose weight is not zero.
at::Tensor counted_sum(const at::Tensor& values, const at::Tensor& weights) {
  return at::where(weights.ne(0), values, at::zeros_like(values)).sum();
}

class Chunks {
 public:
  Chunks(const DistillLossInput& in, const DistillLossOptions& options)
      : student_head_(in.student_head.detach()),
        teacher_head_(in.teacher_head),
        options_(options),
        tokens_(tokens_that_count(in, options)) {
    const auto wide =
        in.student_hidden.options().dtype(detail::compute_type(in.student_hidden.scalar_type()));
    for (at::Tensor* sum : {&totals_.loss, &totals_.kl_sum, &totals_.ce_sum, &totals_.agree}) {
      *sum = at::zeros({}, wide);
    }
    const int64_t rows = std::min(options.chunk_tokens, tokens_.student_hidden.size(0));
    student_logits_ = at::empty({rows, student_head_.size(0)}, wide);
    if (teacher_head_.defined()) teacher_logits_ = at::empty_like(student_logits_);
  }

  // What to differentiate.
  void want(bool hidden, bool head) {
    if (hidden) totals_.dhidden = at::empty_like(tokens_.student_hidden);
    if (head) totals_.dhead = at::zeros(student_head_.sizes(), totals_.loss.options());
  }

  Totals run() {
    const int64_t m = tokens_.student_hidden.size(0);
    for (int64_t begin = 0; begin < m; begin += options_.chunk_tokens) {
      chunk(begin, std::min(options_.chunk_tokens, m - begin));
    }
    return totals_;
  }

  const at::Tensor& kept() const { return tokens_.kept; }

 private:
  void chunk(int64_t begin, int64_t count) {
    const at::Tensor hidden = tokens_.student_hidden.narrow(0, begin, count);
    detail::LogitLossInput in;
    in.student = student_logits_.narrow(0, 0, count);
    detail::logits_into(in.student, hidden, student_head_);
    at::Tensor kl_weights, ce_weights;
    if (teacher_head_.defined()) {
      kl_weights = tokens_.kl_weights.narrow(0, begin, count);
      in.teacher = teacher_logits_.narrow(0, 0, count);
      in.kl_scale = kl_weights * options_.kl_weight;
      detail::logits_into(in.teacher, tokens_.teacher_hidden.narrow(0, begin, count),
                          teacher_head_);
    }
    if (tokens_.targets.defined()) {
      ce_weights = tokens_.ce_weights.narrow(0, begin, count);
      in.ce_scale = ce_weights * options_.ce_weight;
      in.targets = tokens_.targets.narrow(0, begin, count);
    }
    in.direction = options_.direction;
    in.temperature = options_.temperature;
    in.gradient = totals_.dhidden.defined() || totals_.dhead.defined();
    add_values(in, detail::logit_losses(in), kl_weights, ce_weights);
    if (totals_.dhidden.defined()) {
      totals_.dhidden.narrow(0, begin, count)
          .copy_(detail::hidden_gradient(in.student, student_head_));
    }
    if (totals_.dhead.defined()) detail::add_head_gradient(totals_.dhead, in.student, hidden);
  }

  void add_values(const detail::LogitLossInput& in, const detail::LogitLosses& values,
                  const at::Tensor& kl_weights, const at::Tensor& ce_weights) {
    if (values.kl.defined()) {
      totals_.loss.add_(values.kl.dot(in.kl_scale));
      totals_.kl_sum.add_(counted_sum(values.kl, kl_weights));
      totals_.agree.add_(counted_sum(values.agree, kl_weights));
    }
    if (values.ce.defined()) {
      totals_.loss.add_(values.ce.dot(in.ce_scale));
      totals_.ce_sum.add_(counted_sum(values.ce, ce_weights));
    }
  }

  at::Tensor student_head_, teacher_head_;
  DistillLossOptions options_;
  Tokens tokens_;
  Totals totals_;
  at::Tensor student_logits_, teacher_logits_;  // (chunk, V), reused by every chunk
};

// The forward pass makes the gradients; the backward only scales them.
class DistillFunction : public torch::autograd::Function<DistillFunction> {
 public:
  static variable_list forward(AutogradContext* ctx, const at::Tensor& student_hidden,
                               const at::Tensor& student_head, const DistillLossInput& in,
                               const DistillLossOptions& options) {
    Chunks chunks(in, options);
    chunks.want(student_hidden.requires_grad(), student_head.requires_grad());
    const Totals totals = chunks.run();
    at::Tensor dhidden = totals.dhidden;
    if (dhidden.defined() && chunks.kept().defined()) {
      dhidden = at::zeros_like(student_hidden).index_copy_(0, chunks.kept(), totals.dhidden);
    }
    ctx->save_for_backward({dhidden, totals.dhead});
    ctx->saved_data["head_dtype"] = static_cast<int64_t>(student_head.scalar_type());
    ctx->mark_non_differentiable({totals.kl_sum, totals.ce_sum, totals.agree});
    return {totals.loss, totals.kl_sum, totals.ce_sum, totals.agree};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor& scale = grads[0];
    variable_list result(4);
    if (saved[0].defined()) result[0] = (saved[0] * scale).to(saved[0].scalar_type());
    if (saved[1].defined()) {
      const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["head_dtype"].toInt());
      result[1] = (saved[1] * scale).to(dtype);
    }
    return result;
  }
};

void check_model(const char* name, const at::Tensor& hidden, const at::Tensor& head, int64_t M,
                 int64_t V) {
  TORCH_CHECK(hidden.defined() && hidden.dim() == 2 && hidden.size(0) == M, "distill_loss ", name,
              "_hidden: expected shape (", M, ", D), got ",
              hidden.defined() ? hidden.sizes() : at::IntArrayRef());
  TORCH_CHECK(
      head.defined() && head.dim() == 2 && head.size(0) == V && head.size(1) == hidden.size(1),
      "distill_loss ", name, "_head: expected shape [", V, ", ", hidden.size(1), "], got ",
      head.defined() ? head.sizes() : at::IntArrayRef());
  TORCH_CHECK(head.scalar_type() == hidden.scalar_type(), "distill_loss ", name,
              "_head: expected the hidden states' dtype ", hidden.scalar_type(), ", got ",
              head.scalar_type());
}

// On a GPU an index that is out of range fails inside LibTorch; a check here would wait for it.
void check_targets(const at::Tensor& targets, int64_t V) {
  if (!targets.device().is_cpu() || targets.numel() == 0) return;
  const int64_t largest = targets.max().item<int64_t>();
  TORCH_CHECK(largest < V, "distill_loss targets: expected ids below ", V, ", got ", largest);
}

void check_inputs(const DistillLossInput& in, const DistillLossOptions& options) {
  TORCH_CHECK(in.student_hidden.defined() && in.student_hidden.dim() == 2 &&
                  in.student_head.defined() && in.student_head.dim() == 2,
              "distill_loss: expected student_hidden (M, D) and student_head (V, D)");
  const int64_t M = in.student_hidden.size(0), V = in.student_head.size(0);
  check_model("student", in.student_hidden, in.student_head, M, V);
  if (in.teacher_head.defined() || in.teacher_hidden.defined() || options.kl_weight != 0.0) {
    check_model("teacher", in.teacher_hidden, in.teacher_head, M, V);
  }
  TORCH_CHECK(in.teacher_head.defined() || options.ce_weight != 0.0,
              "distill_loss: expected a teacher or a cross-entropy weight, got neither");
  detail::check_shape("distill_loss kl_weights", in.kl_weights, {M});
  TORCH_CHECK(options.chunk_tokens > 0, "distill_loss chunk_tokens: expected > 0, got ",
              options.chunk_tokens);
  TORCH_CHECK(options.temperature > 0.0, "distill_loss temperature: expected > 0, got ",
              options.temperature);
  if (options.ce_weight == 0.0) return;
  detail::check_shape("distill_loss targets", in.targets, {M});
  detail::check_dtype("distill_loss targets", in.targets, at::kLong);
  detail::check_shape("distill_loss ce_weights", in.ce_weights, {M});
  check_targets(in.targets, V);
}

}  // namespace

DistillLossOutput distill_loss(const DistillLossInput& in, const DistillLossOptions& options) {
  check_inputs(in, options);
  const auto out = DistillFunction::apply(in.student_hidden, in.student_head, in, options);
  return {out[0], out[1], out[2], out[3]};
}

}  // namespace zebra
