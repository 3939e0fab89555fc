#include <algorithm>

#include "ops/basic.h"
#include "ops/cpu_basic/row_kernels.h"

namespace zebra {

namespace detail {

// Llama's form: normalise in the compute type, round to x's dtype, then times weight.
RmsNormResult rms_norm_aten(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const at::Tensor wide = x.to(compute_type(x.scalar_type()));
  const at::Tensor rstd = wide.square().mean(-1, /*keepdim=*/true).add_(eps).rsqrt_();  // (..., 1)
  const at::Tensor normal = (wide * rstd).to(x.scalar_type());
  return {(normal * weight).to(x.scalar_type()), rstd};
}

RmsNormGrads rms_norm_aten_backward(const at::Tensor& dy, const at::Tensor& x,
                                    const at::Tensor& weight, const at::Tensor& rstd) {
  const at::ScalarType type = rstd.scalar_type();
  const at::Tensor wide_dy = dy.to(type);
  const at::Tensor normal = x.to(type) * rstd;
  const at::Tensor g = wide_dy * weight.to(type);
  const at::Tensor along = (g * normal).mean(-1, /*keepdim=*/true);  // (..., 1)
  const int64_t D = x.size(-1);
  return {((g - normal * along) * rstd).to(x.scalar_type()),
          (wide_dy * normal).reshape({-1, D}).sum(0).to(weight.scalar_type())};
}

}  // namespace detail

namespace {

int64_t row_grain(int64_t D) { return std::max<int64_t>(1, 16384 / D); }

detail::RmsNormResult forward_cpu(const at::Tensor& x, const at::Tensor& weight, double eps) {
  const int64_t D = x.size(-1), rows = x.numel() / D;
  auto shape = x.sizes().vec();
  shape.back() = 1;
  const at::Tensor dense = x.contiguous(), w = weight.contiguous();
  const detail::RmsNormResult result{at::empty_like(dense), at::empty(shape, x.options())};
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm", [&] {
    detail::RmsNormArgs<scalar_t> args{};
    args.x = dense.const_data_ptr<scalar_t>();
    args.weight = w.const_data_ptr<scalar_t>();
    args.y = result.y.data_ptr<scalar_t>();
    args.rstd = result.rstd.data_ptr<scalar_t>();
    args.D = D;
    args.eps = eps;
    at::parallel_for(0, rows, row_grain(D), [&](int64_t begin, int64_t end) {
      detail::rms_norm_forward_rows(args, begin, end);
    });
  });
  return result;
}

// The weight's gradient is summed in blocks of rows whose number depends on the shape alone, so the
// result does not depend on the number of threads.
detail::RmsNormGrads backward_cpu(const at::Tensor& dy, const at::Tensor& x,
                                  const at::Tensor& weight, const at::Tensor& rstd) {
  const int64_t D = x.size(-1), rows = x.numel() / D;
  const int64_t blocks = std::clamp<int64_t>(rows / 64, 1, 32);
  const at::Tensor dense = x.contiguous(), w = weight.contiguous(), g = dy.contiguous();
  const detail::RmsNormGrads grads{at::empty_like(dense), at::zeros({D}, x.options())};
  const at::Tensor partial = at::empty({blocks, D}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm_backward", [&] {
    detail::RmsNormArgs<scalar_t> args{};
    args.x = dense.const_data_ptr<scalar_t>();
    args.weight = w.const_data_ptr<scalar_t>();
    args.rstd = rstd.data_ptr<scalar_t>();
    args.dy = g.const_data_ptr<scalar_t>();
    args.dx = grads.dx.data_ptr<scalar_t>();
    args.D = D;
    scalar_t* const sums = partial.data_ptr<scalar_t>();
    at::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        detail::rms_norm_backward_rows(args, b * rows / blocks, (b + 1) * rows / blocks,
                                       sums + b * D);
      }
    });
    scalar_t* const dweight = grads.dweight.data_ptr<scalar_t>();
    for (int64_t b = 0; b < blocks; ++b) {
      for (int64_t d = 0; d < D; ++d) dweight[d] += sums[b * D + d];
    }
  });
  return grads;
}

bool use_kernel(const at::Tensor& x, const at::Tensor& weight) {
  return detail::has_cpu_kernel(x) && weight.scalar_type() == x.scalar_type();
}

class RmsNormFunction : public torch::autograd::Function<RmsNormFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const at::Tensor& weight, double eps) {
    const auto result =
        use_kernel(x, weight) ? forward_cpu(x, weight, eps) : detail::rms_norm_aten(x, weight, eps);
    ctx->save_for_backward({x, weight, result.rstd});
    return result.y;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto result =
        use_kernel(saved[0], saved[1])
            ? backward_cpu(grads[0], saved[0], saved[1], saved[2])
            : detail::rms_norm_aten_backward(grads[0], saved[0], saved[1], saved[2]);
    return {result.dx, result.dweight, at::Tensor()};
  }
};

}  // namespace

at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps) {
  TORCH_CHECK(x.dim() >= 1 && x.size(-1) > 0, "rms_norm x: expected shape (..., D), got ",
              x.sizes());
  detail::check_shape("rms_norm weight", weight, {x.size(-1)});
  detail::check_device("rms_norm weight", weight, x.device());
  return RmsNormFunction::apply(x, weight, eps);
}

}  // namespace zebra
