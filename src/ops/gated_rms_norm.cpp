// y = n w with n = q rstd, q = x silu(gate), rstd = 1 / sqrt(mean(q^2) + eps) over each group.
// Backward with dn = dy w: dq = rstd (dn - n mean(dn n)), dx = dq silu(gate),
// dgate = dq x silu'(gate), dw = sum over the rows of dy n; q and rstd are computed again.
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

struct NormTensors {
  at::Tensor x, gate, weight;
  int64_t group_size;
  double eps;
};

// ---- CPU kernels --------------------------------------------------------------------------------

// The inputs as the kernels want them; keeps the memory that the pointers lead to alive.
template <class Real>
struct NormKernelInputs {
  at::Tensor x, gate, weight;
  GatedNormInputs<Real> kernel;

  explicit NormKernelInputs(const NormTensors& in) {
    const int64_t D = in.weight.size(0);
    const auto rows = [D](const at::Tensor& tensor) {
      const at::Tensor flat = tensor.reshape({-1, D});
      return flat.stride(1) == 1 || D == 1 ? flat : flat.contiguous();
    };
    x = rows(in.x);
    gate = rows(in.gate);
    weight = in.weight.to(x.scalar_type()).contiguous();
    kernel = {.rows = x.size(0), .D = D, .group_size = in.group_size};
    kernel.x = x.const_data_ptr<Real>();
    kernel.gate = gate.const_data_ptr<Real>();
    kernel.x_stride = x.stride(0);
    kernel.gate_stride = gate.stride(0);
    kernel.weight = weight.const_data_ptr<Real>();
    kernel.eps = static_cast<Real>(in.eps);
  }
};

template <class Real>
at::Tensor kernel_forward(const NormTensors& in) {
  const NormKernelInputs<Real> inputs(in);
  const GatedNormInputs<Real>& s = inputs.kernel;
  at::Tensor y = at::empty(in.x.sizes(), in.x.options());
  const GatedNormForward<Real> args{.in = s, .y = y.mutable_data_ptr<Real>()};
  for_items(s.rows, s.D * 16, [&](int64_t begin, int64_t end) {
    Scratch<Real> scratch(gated_norm_scratch(s));
    kernels<Real>().gated_norm_forward(args, begin, end, scratch.data());
  });
  return y;
}

template <class Real>
variable_list kernel_backward(const NormTensors& in, const at::Tensor& y_gradient) {
  constexpr int64_t kMostBlocks = 64;  // partial sums of dw; never a function of the thread count
  const NormKernelInputs<Real> inputs(in);
  const GatedNormInputs<Real>& s = inputs.kernel;
  const int64_t rows_per_block = std::max<int64_t>(16, (s.rows + kMostBlocks - 1) / kMostBlocks);
  const int64_t blocks = (s.rows + rows_per_block - 1) / rows_per_block;
  const at::Tensor dy = y_gradient.contiguous();
  at::Tensor dx = at::empty(in.x.sizes(), in.x.options());
  at::Tensor dgate = at::empty(in.x.sizes(), in.x.options());
  at::Tensor partial = at::zeros({blocks, s.D}, in.x.options());
  const GatedNormBackward<Real> args{.in = s,
                                     .rows_per_block = rows_per_block,
                                     .dy = dy.const_data_ptr<Real>(),
                                     .dx = dx.mutable_data_ptr<Real>(),
                                     .dgate = dgate.mutable_data_ptr<Real>(),
                                     .partial = partial.mutable_data_ptr<Real>()};
  for_items(blocks, rows_per_block * s.D * 32, [&](int64_t begin, int64_t end) {
    Scratch<Real> scratch(gated_norm_scratch(s));
    kernels<Real>().gated_norm_backward(args, begin, end, scratch.data());
  });
  return {dx, dgate, partial.sum(0).to(in.weight.scalar_type())};
}

struct CpuNorm {
  static at::Tensor forward(const NormTensors& in) {
    return in.x.scalar_type() == at::kDouble ? kernel_forward<double>(in)
                                             : kernel_forward<float>(in);
  }
  static variable_list backward(const NormTensors& in, const at::Tensor& dy) {
    return in.x.scalar_type() == at::kDouble ? kernel_backward<double>(in, dy)
                                             : kernel_backward<float>(in, dy);
  }
};

// ---- LibTorch's operations ----------------------------------------------------------------------

struct AnyNorm {
  // (rows, groups, group_size) in the accumulation type.
  static at::Tensor grouped(const at::Tensor& tensor, const NormTensors& in) {
    const int64_t groups = in.weight.size(0) / in.group_size;
    return tensor.to(accumulation_type(in.x.scalar_type())).reshape({-1, groups, in.group_size});
  }
  static at::Tensor grouped_weight(const NormTensors& in) {
    return in.weight.to(accumulation_type(in.x.scalar_type())).view({-1, in.group_size});
  }
  static at::Tensor inverse_rms(const at::Tensor& q, double eps) {
    return at::rsqrt(q.square().mean(-1, /*keepdim=*/true) + eps);  // (rows, groups, 1)
  }

  static at::Tensor forward(const NormTensors& in) {
    const at::Tensor q = grouped(in.x, in) * at::silu(grouped(in.gate, in));
    return (q * inverse_rms(q, in.eps) * grouped_weight(in))
        .to(in.x.scalar_type())
        .view(in.x.sizes());
  }

  static variable_list backward(const NormTensors& in, const at::Tensor& y_gradient) {
    const at::Tensor x = grouped(in.x, in), z = grouped(in.gate, in);
    const at::Tensor dy = grouped(y_gradient, in), swish = at::silu(z), q = x * swish;
    const at::Tensor rstd = inverse_rms(q, in.eps), n = q * rstd;
    const at::Tensor dn = dy * grouped_weight(in);
    const at::Tensor dq = rstd * (dn - n * (dn * n).mean(-1, /*keepdim=*/true));
    const auto shaped = [&](const at::Tensor& t, const at::Tensor& like) {
      return t.to(like.scalar_type()).view(like.sizes());
    };
    return {shaped(dq * swish, in.x), shaped(at::silu_backward(dq * x, z), in.gate),
            shaped((dy * n).sum(0), in.weight)};
  }
};

// ---- autograd -----------------------------------------------------------------------------------

template <class Implementation>
class NormFunction : public torch::autograd::Function<NormFunction<Implementation>> {
 public:
  // `leaves`: x, gate and weight, where autograd can see them.
  static at::Tensor forward(AutogradContext* context, at::TensorList /*leaves*/,
                            const NormTensors& in) {
    context->save_for_backward({in.x, in.gate, in.weight});
    context->saved_data["group_size"] = in.group_size;
    context->saved_data["eps"] = in.eps;
    return Implementation::forward(in);
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    TORCH_CHECK(!at::GradMode::is_enabled(),
                "gated_rms_norm: expected no second derivative to be asked for");
    const variable_list saved = context->get_saved_variables();
    const NormTensors in{saved.at(0), saved.at(1), saved.at(2),
                         context->saved_data["group_size"].toInt(),
                         context->saved_data["eps"].toDouble()};
    variable_list result = Implementation::backward(in, gradients.at(0));
    result.emplace_back();  // the argument that is no tensor
    return result;
  }
};

template <class Implementation>
at::Tensor run(const NormTensors& in) {
  const std::vector<at::Tensor> leaves{in.x, in.gate, in.weight};
  if (wants_gradient(leaves)) {
    return NormFunction<Implementation>::apply(at::TensorList(leaves), in);
  }
  const at::NoGradGuard no_grad;
  return Implementation::forward(in);
}

void check(const NormTensors& in) {
  const auto shape_of = [](const at::Tensor& t) {
    return t.defined() ? t.sizes() : at::IntArrayRef();
  };
  TORCH_CHECK(in.x.defined() && in.x.dim() > 0 && at::isFloatingType(in.x.scalar_type()),
              "gated_rms_norm x: expected numbers of shape (..., D), got ", shape_of(in.x));
  const int64_t D = in.x.size(-1);
  TORCH_CHECK(in.gate.defined() && in.gate.sizes() == in.x.sizes() &&
                  in.gate.scalar_type() == in.x.scalar_type(),
              "gated_rms_norm gate: expected x's shape ", in.x.sizes(), " and dtype ",
              in.x.scalar_type(), ", got ", shape_of(in.gate));
  TORCH_CHECK(in.weight.defined() && in.weight.sizes() == at::IntArrayRef({D}),
              "gated_rms_norm weight: expected shape (", D, "), got ", shape_of(in.weight));
  TORCH_CHECK(in.group_size > 0 && D % in.group_size == 0,
              "gated_rms_norm group_size: expected a divisor of ", D, ", got ", in.group_size);
  TORCH_CHECK(in.gate.device() == in.x.device() && in.weight.device() == in.x.device(),
              "gated_rms_norm: expected every tensor on x's device ", in.x.device());
}

}  // namespace

at::Tensor gated_rms_norm_cpu(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                              int64_t group_size, double eps) {
  return run<CpuNorm>({x, gate, weight, group_size, eps});
}

at::Tensor gated_rms_norm_any(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                              int64_t group_size, double eps) {
  return run<AnyNorm>({x, gate, weight, group_size, eps});
}

}  // namespace detail

at::Tensor gated_rms_norm(const at::Tensor& x, const at::Tensor& gate, const at::Tensor& weight,
                          int64_t group_size, double eps) {
  detail::check({x, gate, weight, group_size, eps});
  const at::ScalarType dtype = x.scalar_type();
  const bool kernel = x.is_cpu() && (dtype == at::kFloat || dtype == at::kDouble);
  return kernel ? detail::gated_rms_norm_cpu(x, gate, weight, group_size, eps)
                : detail::gated_rms_norm_any(x, gate, weight, group_size, eps);
}

}  // namespace zebra
