// Causal convolution with SiLU: pre_t = bias + sum_k weight_k v_{t-K+1+k}, y = pre sigmoid(pre).
// Backward with g = dy silu'(pre), pre being computed again: dv_t = sum_k weight_k g_{t+K-1-k},
// dweight_k = sum_t g_t v_{t-K+1+k}, dbias = sum_t g_t.
#include "ops/cpu/kernels.h"
#include "ops/cpu/launch.h"
#include "ops/mamba2.h"
#include "ops/ssd.h"
#include "zebra/ops.h"

namespace zebra {

namespace detail {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct ConvTensors {
  at::Tensor x, weight, bias, state, segments;
};

// How many earlier tokens (the state's included) each token may see, at most K - 1. (B, T) int32
at::Tensor visible_before(const at::Tensor& segments, int64_t K) {
  const int64_t T = segments.size(1);
  const at::Tensor starts = segment_starts(segments);  // (B, T)
  const at::Tensor positions = at::arange(T, segments.options());
  // The latest start at or before each token; K before the first token where there is none.
  const at::Tensor marks = at::where(starts, positions, at::full_like(positions, -K));
  const at::Tensor latest = T > 0 ? std::get<0>(at::cummax(marks, 1)) : marks;
  return (positions - latest).clamp_max(K - 1).to(at::kInt);
}

// The last K inputs of the last token's segment, newest last. (B, C, K)
at::Tensor next_state(const ConvTensors& in) {
  const int64_t B = in.x.size(0), T = in.x.size(1), C = in.x.size(2), K = in.weight.size(1);
  const int64_t taken = std::min(T, K);
  const at::Tensor newest = in.x.narrow(1, T - taken, taken).transpose(1, 2);  // (B, C, taken)
  const at::Tensor older = in.state.defined()
                               ? in.state.to(in.x.scalar_type()).narrow(2, taken, K - taken)
                               : at::zeros({B, C, K - taken}, in.x.options());
  const at::Tensor state = at::cat({older, newest}, 2);  // (B, C, K)
  if (!in.segments.defined() || T == 0) return state;
  const at::Tensor runs = segment_starts(in.segments).to(at::kLong).cumsum(1);
  at::Tensor run_of = at::zeros({B, K}, runs.options());  // what came before is run 0
  run_of.narrow(1, K - taken, taken).copy_(runs.narrow(1, T - taken, taken));
  return state * (run_of == runs.narrow(1, T - 1, 1)).unsqueeze(1).to(state.scalar_type());
}

// ---- CPU kernels --------------------------------------------------------------------------------

// The inputs as the kernels want them; keeps the memory that the pointers lead to alive.
template <class Real>
struct ConvKernelInputs {
  at::Tensor x, weight, bias, history, reach;
  ConvInputs<Real> kernel;

  explicit ConvKernelInputs(const ConvTensors& in) {
    const int64_t K = in.weight.size(1);
    x = in.x.stride(2) == 1 || in.x.size(2) == 1 ? in.x : in.x.contiguous();
    weight = in.weight.to(x.scalar_type()).t().contiguous();  // (K, C)
    if (in.bias.defined()) bias = in.bias.to(x.scalar_type()).contiguous();
    if (in.state.defined()) {
      history = in.state.to(x.scalar_type()).narrow(2, 1, K - 1).transpose(1, 2).contiguous();
    }
    if (in.segments.defined()) reach = visible_before(in.segments, K).contiguous();
    kernel.B = x.size(0);
    kernel.T = x.size(1);
    kernel.C = x.size(2);
    kernel.K = K;
    kernel.x = rows_of<Real>(x);
    kernel.weight = weight.const_data_ptr<Real>();
    kernel.bias = data_or_null<Real>(bias);
    kernel.history = data_or_null<Real>(history);
    kernel.reach = data_or_null<int32_t>(reach);
  }
};

template <class Real>
at::Tensor kernel_forward(const ConvTensors& in) {
  const ConvKernelInputs<Real> inputs(in);
  const ConvInputs<Real>& s = inputs.kernel;
  at::Tensor y = at::empty({s.B, s.T, s.C}, in.x.options());
  const ConvForward<Real> args{.in = s, .y = y.mutable_data_ptr<Real>()};
  for_items(s.B * s.blocks(), std::min(s.T, kConvTokens) * s.C * 16,
            [&](int64_t begin, int64_t end) { kernels<Real>().conv_forward(args, begin, end); });
  return y;
}

// Gradients of x, weight and bias.
template <class Real>
variable_list kernel_backward(const ConvTensors& in, const at::Tensor& y_gradient) {
  const ConvKernelInputs<Real> inputs(in);
  const ConvInputs<Real>& s = inputs.kernel;
  const at::Tensor dy = y_gradient.contiguous();
  const int64_t items = s.B * s.blocks();
  at::Tensor dx = at::empty({s.B, s.T, s.C}, in.x.options());
  at::Tensor partial = at::zeros({items, s.K + 1, s.C}, in.x.options());
  const ConvBackward<Real> args{.in = s,
                                .dy = dy.const_data_ptr<Real>(),
                                .dx = dx.mutable_data_ptr<Real>(),
                                .partial = partial.mutable_data_ptr<Real>()};
  for_items(items, std::min(s.T, kConvTokens) * s.C * 32, [&](int64_t begin, int64_t end) {
    Scratch<Real> scratch(conv_backward_scratch(s));
    kernels<Real>().conv_backward(args, begin, end, scratch.data());
  });
  const at::Tensor sums = partial.sum(0);                              // (K + 1, C)
  const at::Tensor dweight = sums.narrow(0, 0, s.K).t().contiguous();  // (C, K)
  at::Tensor dbias;
  if (in.bias.defined()) dbias = sums.select(0, s.K).to(in.bias.scalar_type());
  return {dx, dweight.to(in.weight.scalar_type()), dbias};
}

struct CpuConv {
  static at::Tensor forward(const ConvTensors& in) {
    return in.x.scalar_type() == at::kDouble ? kernel_forward<double>(in)
                                             : kernel_forward<float>(in);
  }
  static variable_list backward(const ConvTensors& in, const at::Tensor& dy) {
    return in.x.scalar_type() == at::kDouble ? kernel_backward<double>(in, dy)
                                             : kernel_backward<float>(in, dy);
  }
};

// ---- LibTorch's operations ----------------------------------------------------------------------

struct AnyConv {
  // Inputs with the K - 1 before the first, in the accumulation type. (B, K - 1 + T, C)
  static at::Tensor extended(const ConvTensors& in) {
    const int64_t K = in.weight.size(1);
    const at::ScalarType type = accumulation_type(in.x.scalar_type());
    const at::Tensor x = in.x.to(type);
    if (!in.state.defined()) return at::constant_pad_nd(x, {0, 0, K - 1, 0});
    return at::cat({in.state.to(type).narrow(2, 1, K - 1).transpose(1, 2), x}, 1);
  }

  // (B, T, 1): which tokens see the one `back` before them; undefined where all do.
  static at::Tensor mask(const ConvTensors& in, int64_t back) {
    if (!in.segments.defined() || back == 0) return {};
    return visible_before(in.segments, in.weight.size(1)).ge(back).unsqueeze(-1);
  }

  static at::Tensor activation(const ConvTensors& in, const at::Tensor& x) {
    const int64_t T = in.x.size(1), K = in.weight.size(1);
    const at::Tensor weight = in.weight.to(x.scalar_type());
    at::Tensor pre = at::zeros({in.x.size(0), T, in.x.size(2)}, x.options());
    if (in.bias.defined()) pre += in.bias.to(x.scalar_type());
    for (int64_t k = 0; k < K; ++k) {
      const at::Tensor seen = mask(in, K - 1 - k);
      const at::Tensor tap = x.narrow(1, k, T);
      pre.addcmul_(seen.defined() ? tap * seen : tap, weight.select(1, k));
    }
    return pre;  // (B, T, C)
  }

  static at::Tensor forward(const ConvTensors& in) {
    return at::silu(activation(in, extended(in))).to(in.x.scalar_type());
  }

  static variable_list backward(const ConvTensors& in, const at::Tensor& dy) {
    const int64_t T = in.x.size(1), K = in.weight.size(1);
    const at::Tensor x = extended(in);
    const at::Tensor flow = at::silu_backward(dy.to(x.scalar_type()), activation(in, x));
    at::Tensor dx = at::zeros_like(x);  // (B, K - 1 + T, C)
    const at::Tensor weight = in.weight.to(x.scalar_type());
    std::vector<at::Tensor> dweight;
    for (int64_t k = 0; k < K; ++k) {
      const at::Tensor seen = mask(in, K - 1 - k);
      const at::Tensor reaching = seen.defined() ? flow * seen : flow;
      dx.narrow(1, k, T).addcmul_(reaching, weight.select(1, k));
      dweight.push_back((reaching * x.narrow(1, k, T)).sum(at::IntArrayRef({0, 1})));
    }
    at::Tensor dbias;
    if (in.bias.defined()) dbias = flow.sum(at::IntArrayRef({0, 1})).to(in.bias.scalar_type());
    return {dx.narrow(1, K - 1, T).to(in.x.scalar_type()),
            at::stack(dweight, 1).to(in.weight.scalar_type()), dbias};
  }
};

// ---- autograd -----------------------------------------------------------------------------------

template <class Implementation>
class ConvFunction : public torch::autograd::Function<ConvFunction<Implementation>> {
 public:
  // `leaves`: x, weight and, if there is one, bias, where autograd can see them.
  static at::Tensor forward(AutogradContext* context, at::TensorList leaves,
                            const ConvTensors& in) {
    context->save_for_backward({in.x, in.weight, in.bias, in.state, in.segments});
    context->saved_data["leaves"] = static_cast<int64_t>(leaves.size());
    return Implementation::forward(in);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "causal_conv1d: expected no second derivative to be asked for");
    const variable_list saved = context->get_saved_variables();
    const ConvTensors in{saved.at(0), saved.at(1), saved.at(2), saved.at(3), saved.at(4)};
    variable_list result = Implementation::backward(in, gradients.at(0));
    result.resize(static_cast<size_t>(context->saved_data["leaves"].toInt()));
    result.emplace_back();  // the argument that is no tensor
    return result;
  }
};

template <class Implementation>
ConvOutput run(const ConvTensors& in) {
  std::vector<at::Tensor> leaves{in.x, in.weight};
  if (in.bias.defined()) leaves.push_back(in.bias);
  const bool differentiate = wants_gradient(leaves);
  ConvOutput output;
  if (differentiate) {
    output.y = ConvFunction<Implementation>::apply(at::TensorList(leaves), in);
  }
  const at::NoGradGuard no_grad;
  if (!differentiate) output.y = Implementation::forward(in);
  output.state = next_state(in);
  return output;
}

void check(const ConvTensors& in) {
  const auto shape_of = [](const at::Tensor& t) {
    return t.defined() ? t.sizes() : at::IntArrayRef();
  };
  TORCH_CHECK(in.x.defined() && in.x.dim() == 3 && at::isFloatingType(in.x.scalar_type()),
              "causal_conv1d x: expected numbers of shape (B, T, C), got ", shape_of(in.x));
  const int64_t B = in.x.size(0), T = in.x.size(1), C = in.x.size(2);
  TORCH_CHECK(in.weight.defined() && in.weight.dim() == 2 && in.weight.size(0) == C &&
                  in.weight.size(1) > 0,
              "causal_conv1d weight: expected shape (", C, ", K), got ", shape_of(in.weight));
  const int64_t K = in.weight.size(1);
  TORCH_CHECK(!in.bias.defined() || in.bias.sizes() == at::IntArrayRef({C}),
              "causal_conv1d bias: expected shape (", C, "), got ", shape_of(in.bias));
  TORCH_CHECK(!in.state.defined() || in.state.sizes() == at::IntArrayRef({B, C, K}),
              "causal_conv1d state: expected shape ", at::IntArrayRef({B, C, K}), ", got ",
              shape_of(in.state));
  TORCH_CHECK(!in.segments.defined() || (in.segments.sizes() == at::IntArrayRef({B, T}) &&
                                         in.segments.scalar_type() == at::kLong),
              "causal_conv1d segments: expected int64 of shape ", at::IntArrayRef({B, T}), ", got ",
              shape_of(in.segments));
  for (const at::Tensor& tensor : {in.weight, in.bias, in.state, in.segments}) {
    TORCH_CHECK(!tensor.defined() || tensor.device() == in.x.device(),
                "causal_conv1d: expected every tensor on x's device ", in.x.device(),
                ", got one on ", tensor.device());
  }
}

}  // namespace

ConvOutput causal_conv1d_cpu(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& state, const at::Tensor& segments) {
  return run<CpuConv>({x, weight, bias, state, segments});
}

ConvOutput causal_conv1d_any(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                             const at::Tensor& state, const at::Tensor& segments) {
  return run<AnyConv>({x, weight, bias, state, segments});
}

}  // namespace detail

ConvOutput causal_conv1d(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias,
                         const at::Tensor& state, const at::Tensor& segments) {
  detail::check({x, weight, bias, state, segments});
  const at::ScalarType dtype = x.scalar_type();
  const bool kernel = x.is_cpu() && (dtype == at::kFloat || dtype == at::kDouble) &&
                      weight.size(1) <= detail::kMaxConvWidth;
  return kernel ? detail::causal_conv1d_cpu(x, weight, bias, state, segments)
                : detail::causal_conv1d_any(x, weight, bias, state, segments);
}

}  // namespace zebra
