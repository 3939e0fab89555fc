#include <algorithm>

#include "ops/basic.h"
#include "ops/cpu_basic/row_kernels.h"

namespace zebra {

namespace {

struct Pair {
  at::Tensor first, second;  // (B, T, N, H/2)
};

// The two members of every pair as an input of this pairing holds them.
Pair split(const at::Tensor& x, RopePairing pairing) {
  const int64_t half = x.size(-1) / 2;
  if (pairing == RopePairing::kHalfSplit) {
    return {x.narrow(-1, 0, half), x.narrow(-1, half, half)};
  }
  const at::Tensor pairs = x.unflatten(-1, {half, 2});  // (B, T, N, H/2, 2)
  return {pairs.select(-1, 0), pairs.select(-1, 1)};
}

Pair rotate(const Pair& pair, const at::Tensor& cos, const at::Tensor& sin) {
  return {pair.first * cos - pair.second * sin, pair.second * cos + pair.first * sin};
}

// Cosines or sines that broadcast over heads. (B or 1, T, 1, H/2)
at::Tensor over_heads(const at::Tensor& table, at::ScalarType dtype) {
  return table.to(dtype).unsqueeze(2);
}

}  // namespace

namespace detail {

at::Tensor rope_aten(const at::Tensor& x, const RopeTable& table, RopePairing pairing) {
  const at::ScalarType type = compute_type(x.scalar_type());
  const Pair out =
      rotate(split(x.to(type), pairing), over_heads(table.cos, type), over_heads(table.sin, type));
  return at::cat({out.first, out.second}, -1).to(x.scalar_type());
}

// The inverse rotation of the half-split gradient, put back in the order of the input.
at::Tensor rope_aten_backward(const at::Tensor& dy, const RopeTable& table, RopePairing pairing) {
  const at::ScalarType type = compute_type(dy.scalar_type());
  const Pair out = rotate(split(dy.to(type), RopePairing::kHalfSplit), over_heads(table.cos, type),
                          over_heads(table.sin, type).neg());
  const at::Tensor dx = pairing == RopePairing::kHalfSplit
                            ? at::cat({out.first, out.second}, -1)
                            : at::stack({out.first, out.second}, -1).flatten(-2);
  return dx.to(dy.scalar_type());
}

}  // namespace detail

namespace {

detail::PairLayout layout_of(RopePairing pairing, int64_t H) {
  return pairing == RopePairing::kHalfSplit ? detail::PairLayout{1, H / 2}
                                            : detail::PairLayout{2, 1};
}

at::Tensor rotate_cpu(const at::Tensor& x, const RopeTable& table, detail::PairLayout from,
                      detail::PairLayout to, double direction) {
  const int64_t B = x.size(0), T = x.size(1), N = x.size(2), H = x.size(3);
  const at::Tensor in = detail::with_dense_rows(x);
  const at::Tensor cos = table.cos.to(x.scalar_type()).contiguous();
  const at::Tensor sin = table.sin.to(x.scalar_type()).contiguous();
  const at::Tensor y = at::empty({B, T, N, H}, x.options());
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "apply_rope", [&] {
    const detail::RopeArgs<scalar_t> args{in.const_data_ptr<scalar_t>(),
                                          in.stride(0),
                                          in.stride(1),
                                          in.stride(2),
                                          y.data_ptr<scalar_t>(),
                                          cos.const_data_ptr<scalar_t>(),
                                          sin.const_data_ptr<scalar_t>(),
                                          cos.size(0) == 1 ? 0 : T * H / 2,
                                          T,
                                          N,
                                          H,
                                          from,
                                          to,
                                          static_cast<scalar_t>(direction)};
    const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, N * H));
    at::parallel_for(0, B * T, grain,
                     [&](int64_t begin, int64_t end) { detail::rope_rows(args, begin, end); });
  });
  return y;
}

class RopeFunction : public torch::autograd::Function<RopeFunction> {
 public:
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& x,
                            const RopeTable& table, RopePairing pairing) {
    ctx->save_for_backward({table.cos, table.sin});
    ctx->saved_data["pairing"] = static_cast<int64_t>(pairing);
    if (!detail::has_cpu_kernel(x)) return detail::rope_aten(x, table, pairing);
    const int64_t H = x.size(3);
    return rotate_cpu(x, table, layout_of(pairing, H), layout_of(RopePairing::kHalfSplit, H), 1.0);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const RopeTable table{saved[0], saved[1]};
    const auto pairing = static_cast<RopePairing>(ctx->saved_data["pairing"].toInt());
    const at::Tensor& dy = grads[0];
    const int64_t H = dy.size(3);
    const at::Tensor dx = detail::has_cpu_kernel(dy)
                              ? rotate_cpu(dy, table, layout_of(RopePairing::kHalfSplit, H),
                                           layout_of(pairing, H), -1.0)
                              : detail::rope_aten_backward(dy, table, pairing);
    return {dx, at::Tensor(), at::Tensor()};
  }
};

void check_table(const char* subject, const at::Tensor& table, const at::Tensor& x) {
  const int64_t B = x.size(0), T = x.size(1), half = x.size(3) / 2;
  TORCH_CHECK(table.defined() && table.dim() == 3 && (table.size(0) == B || table.size(0) == 1) &&
                  table.size(1) == T && table.size(2) == half,
              subject, ": expected shape (", B, " or 1, ", T, ", ", half, "), got ",
              table.defined() ? table.sizes() : at::IntArrayRef());
  detail::check_device(subject, table, x.device());
}

}  // namespace

at::Tensor apply_rope(const at::Tensor& x, const RopeTable& table, RopePairing pairing) {
  TORCH_CHECK(x.dim() == 4 && x.size(3) % 2 == 0,
              "apply_rope x: expected shape (B, T, N, H) with even H, got ", x.sizes());
  check_table("apply_rope cos", table.cos, x);
  check_table("apply_rope sin", table.sin, x);
  return RopeFunction::apply(x, table, pairing);
}

}  // namespace zebra
