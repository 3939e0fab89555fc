#include "ops/basic.h"
#include "ops/cpu_basic/row_kernels.h"

namespace zebra {

namespace detail {

SwigluGrads swiglu_aten_backward(const at::Tensor& dy, const at::Tensor& gate,
                                 const at::Tensor& up) {
  return {at::silu_backward(dy * up, gate), at::silu(gate).mul_(dy)};
}

}  // namespace detail

namespace {

constexpr int64_t kGrain = 16384;

at::Tensor forward_cpu(const at::Tensor& gate, const at::Tensor& up) {
  const at::Tensor y = at::empty_like(gate);
  AT_DISPATCH_FLOATING_TYPES(gate.scalar_type(), "swiglu", [&] {
    detail::SwigluArgs<scalar_t> args{};
    args.gate = gate.const_data_ptr<scalar_t>();
    args.up = up.const_data_ptr<scalar_t>();
    args.y = y.data_ptr<scalar_t>();
    at::parallel_for(0, gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
      detail::swiglu_forward_range(args, begin, end);
    });
  });
  return y;
}

detail::SwigluGrads backward_cpu(const at::Tensor& dy, const at::Tensor& gate,
                                 const at::Tensor& up) {
  const detail::SwigluGrads grads{at::empty_like(gate), at::empty_like(up)};
  AT_DISPATCH_FLOATING_TYPES(gate.scalar_type(), "swiglu_backward", [&] {
    detail::SwigluArgs<scalar_t> args{};
    args.gate = gate.const_data_ptr<scalar_t>();
    args.up = up.const_data_ptr<scalar_t>();
    args.dy = dy.const_data_ptr<scalar_t>();
    args.dgate = grads.dgate.data_ptr<scalar_t>();
    args.dup = grads.dup.data_ptr<scalar_t>();
    at::parallel_for(0, gate.numel(), kGrain, [&](int64_t begin, int64_t end) {
      detail::swiglu_backward_range(args, begin, end);
    });
  });
  return grads;
}

class SwigluFunction : public torch::autograd::Function<SwigluFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& gate,
                            const at::Tensor& up) {
    ctx->save_for_backward({gate, up});
    if (detail::has_cpu_kernel(gate)) return forward_cpu(gate.contiguous(), up.contiguous());
    return at::silu(gate).mul_(up);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const at::Tensor &dy = grads[0], &gate = saved[0], &up = saved[1];
    const auto result = detail::has_cpu_kernel(gate)
                            ? backward_cpu(dy.contiguous(), gate.contiguous(), up.contiguous())
                            : detail::swiglu_aten_backward(dy, gate, up);
    return {result.dgate, result.dup};
  }
};

}  // namespace

at::Tensor swiglu(const at::Tensor& gate, const at::Tensor& up) {
  detail::check_shape("swiglu up", up, gate.sizes());
  detail::check_dtype("swiglu up", up, gate.scalar_type());
  detail::check_device("swiglu up", up, gate.device());
  return SwigluFunction::apply(gate, up);
}

}  // namespace zebra
