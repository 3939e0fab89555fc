#include "ops/kept.h"

#include <c10/util/Exception.h>
#include <torch/nn/functional/linear.h>

namespace zebra {

namespace {

struct Scope {
  KeptTensors* keeping = nullptr;
  const KeptTensors* replayed = nullptr;
  size_t next = 0;  // of `replayed`
};

// One a thread: autograd may run a block's backward in a thread of its own.
Scope& scope() {
  thread_local Scope of_thread;
  return of_thread;
}

// A linear map whose output is there already; its gradients are those that autograd derives for
// torch::nn::Linear, product by product, so that they have the same bits.
class LinearAgain : public torch::autograd::Function<LinearAgain> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                            const at::Tensor& value) {
    ctx->save_for_backward({x, weight});
    ctx->saved_data["bias"] = bias.has_value();
    return value.detach();
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &x = saved[0], &weight = saved[1];
    const auto grad = grads[0].reshape({-1, weight.size(0)});  // (M, F)
    torch::autograd::variable_list result(4);
    if (ctx->needs_input_grad(0)) result[0] = grad.mm(weight).view(x.sizes());
    if (ctx->needs_input_grad(1)) result[1] = grad.t().mm(x.reshape({-1, x.size(-1)}));
    if (ctx->saved_data["bias"].toBool() && ctx->needs_input_grad(2)) {
      result[2] = at::sum_to(grads[0], weight.sizes().slice(0, 1));
    }
    return result;
  }
};

at::Tensor linear_again(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                        const at::Tensor& value) {
  return LinearAgain::apply(x, weight, bias.defined() ? std::optional(bias) : std::nullopt, value);
}

}  // namespace

KeepScope::KeepScope(KeptTensors& kept) {
  TORCH_CHECK(scope().keeping == nullptr && !replaying(), "kept: a scope within a scope");
  scope().keeping = &kept;
}

KeepScope::~KeepScope() { scope().keeping = nullptr; }

ReplayScope::ReplayScope(const KeptTensors& kept) {
  TORCH_CHECK(scope().keeping == nullptr && !replaying(), "kept: a scope within a scope");
  scope() = {.replayed = &kept};
}

ReplayScope::~ReplayScope() { scope() = {}; }

bool replaying() { return scope().replayed != nullptr; }

std::vector<at::Tensor> keep(const std::function<std::vector<at::Tensor>()>& compute) {
  Scope& own = scope();
  if (own.replayed != nullptr) return own.replayed->at(own.next++);
  auto result = compute();
  if (own.keeping != nullptr) {
    // Detached: what a block returns becomes the output of a node of the graph, which the second
    // run must not reach.
    auto& kept = own.keeping->emplace_back();
    for (const auto& tensor : result) kept.push_back(tensor.detach());
  }
  return result;
}

at::Tensor kept_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  const auto values = keep([&]() -> std::vector<at::Tensor> {
    return {torch::nn::functional::linear(x, weight, bias)};
  });
  return replaying() ? linear_again(x, weight, bias, values[0]) : values[0];
}

at::Tensor unread_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) {
  if (!replaying()) return torch::nn::functional::linear(x, weight, bias);
  auto sizes = x.sizes().vec();
  sizes.back() = weight.size(0);
  return linear_again(x, weight, bias,
                      at::zeros({1}, x.options().requires_grad(false)).expand(sizes));
}

}  // namespace zebra
