#include <algorithm>

#include "ops/basic.h"
#include "ops/logit_losses.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Tokens {
  at::Tensor hidden;   // (M, D)
  at::Tensor head;     // (V, D)
  at::Tensor targets;  // (M)
  int64_t chunk_tokens;
};

// Calls use(begin, count, hidden, loss input with logits and targets) for each chunk.
template <class Use>
void for_each_chunk(const Tokens& tokens, Use&& use) {
  const int64_t M = tokens.hidden.size(0);
  const auto wide =
      tokens.hidden.options().dtype(detail::compute_type(tokens.hidden.scalar_type()));
  const at::Tensor logits =
      at::empty({std::min(M, tokens.chunk_tokens), tokens.head.size(0)}, wide);
  for (int64_t begin = 0; begin < M; begin += tokens.chunk_tokens) {
    const int64_t count = std::min(tokens.chunk_tokens, M - begin);
    const at::Tensor hidden = tokens.hidden.narrow(0, begin, count);
    detail::LogitLossInput in;
    in.student = logits.narrow(0, 0, count);
    in.targets = tokens.targets.narrow(0, begin, count);
    detail::logits_into(in.student, hidden, tokens.head);
    use(begin, count, hidden, in);
  }
}

at::Tensor forward_chunks(const Tokens& tokens) {
  const auto wide =
      tokens.hidden.options().dtype(detail::compute_type(tokens.hidden.scalar_type()));
  const at::Tensor nll = at::empty({tokens.hidden.size(0)}, wide);
  const at::Tensor unused_scale = at::ones_like(nll);
  for_each_chunk(tokens,
                 [&](int64_t begin, int64_t count, const at::Tensor&, detail::LogitLossInput& in) {
                   in.ce_scale = unused_scale.narrow(0, begin, count);
                   nll.narrow(0, begin, count).copy_(detail::logit_losses(in).ce);
                 });
  return nll;
}

struct Grads {
  at::Tensor dhidden;  // (M, D) or undefined
  at::Tensor dhead;    // (V, D) in the compute type, or undefined
};

// Makes each chunk's logits again. dnll: (M)
void add_gradients(const Tokens& tokens, const at::Tensor& dnll, const Grads& grads) {
  for_each_chunk(tokens, [&](int64_t begin, int64_t count, const at::Tensor& hidden,
                             detail::LogitLossInput& in) {
    in.ce_scale = dnll.narrow(0, begin, count);
    in.gradient = true;
    detail::logit_losses(in);
    if (grads.dhidden.defined()) {
      grads.dhidden.narrow(0, begin, count).copy_(detail::hidden_gradient(in.student, tokens.head));
    }
    if (grads.dhead.defined()) detail::add_head_gradient(grads.dhead, in.student, hidden);
  });
}

class TokenNllFunction : public torch::autograd::Function<TokenNllFunction> {
 public:
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& hidden, const at::Tensor& head,
                            const at::Tensor& targets, int64_t chunk_tokens) {
    ctx->save_for_backward({hidden, head, targets});
    ctx->saved_data["chunk_tokens"] = chunk_tokens;
    return forward_chunks({hidden.detach(), head.detach(), targets.contiguous(), chunk_tokens});
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& out_grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &hidden = saved[0], &head = saved[1];
    const at::Tensor dnll = out_grads[0].contiguous();
    Grads grads;
    if (ctx->needs_input_grad(0)) grads.dhidden = at::empty_like(hidden);
    if (ctx->needs_input_grad(1)) grads.dhead = at::zeros(head.sizes(), dnll.options());
    add_gradients({hidden.detach(), head.detach(), saved[2].contiguous(),
                   ctx->saved_data["chunk_tokens"].toInt()},
                  dnll, grads);
    variable_list result(4);
    result[0] = grads.dhidden;
    if (grads.dhead.defined()) result[1] = grads.dhead.to(head.scalar_type());
    return result;
  }
};

// On a GPU an index that is out of range fails inside LibTorch; a check here would wait for it.
void check_targets(const at::Tensor& targets, int64_t V) {
  if (!targets.device().is_cpu() || targets.numel() == 0) return;
  const int64_t least = targets.min().item<int64_t>(), most = targets.max().item<int64_t>();
  TORCH_CHECK(least >= 0 && most < V, "token_nll targets: expected ids in [0, ", V, "), got ",
              least < 0 ? least : most);
}

}  // namespace

at::Tensor token_nll(const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                     int64_t chunk_tokens) {
  TORCH_CHECK(hidden.dim() == 2, "token_nll hidden: expected shape (M, D), got ", hidden.sizes());
  TORCH_CHECK(head.dim() == 2 && head.size(1) == hidden.size(1),
              "token_nll head: expected shape (V, ", hidden.size(1), "), got ", head.sizes());
  detail::check_dtype("token_nll head", head, hidden.scalar_type());
  detail::check_shape("token_nll targets", targets, {hidden.size(0)});
  detail::check_dtype("token_nll targets", targets, at::kLong);
  TORCH_CHECK(chunk_tokens > 0, "token_nll chunk_tokens: expected > 0, got ", chunk_tokens);
  check_targets(targets, head.size(0));
  return TokenNllFunction::apply(hidden, head, targets, chunk_tokens);
}

}  // namespace zebra
