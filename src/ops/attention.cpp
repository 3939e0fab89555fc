#include <algorithm>
#include <unordered_set>

#include "ops/basic.h"
#include "ops/cpu_basic/attention_kernel.h"
#include "ops/kept.h"

namespace zebra {

// ---- LibTorch's fused attention -----------------------------------------------------------------

namespace {

// True where a query may see a key: (T, S), or (B, 1, T, S) with segments. Undefined: all of them.
at::Tensor visible(int64_t T, int64_t S, const at::Tensor& segments, const at::Device& device) {
  if (T == 1 && !segments.defined()) return {};
  const auto options = at::TensorOptions(at::kLong).device(device);
  const at::Tensor query = at::arange(S - T, S, options).unsqueeze(1);  // (T, 1)
  const at::Tensor causal = at::arange(S, options).le(query);           // (T, S)
  if (!segments.defined()) return causal;
  const at::Tensor of_query = segments.narrow(1, S - T, T).unsqueeze(2);  // (B, T, 1)
  const at::Tensor same = of_query.eq(segments.unsqueeze(1));             // (B, T, S)
  return same.logical_and(causal).unsqueeze(1);                           // (B, 1, T, S)
}

// (B, T, N, H) -> (B, N, T, width), zeros behind H: fused kernels want equal head sizes.
at::Tensor heads_first(const at::Tensor& x, int64_t width) {
  const at::Tensor padded = x.size(3) == width ? x : at::constant_pad_nd(x, {0, width - x.size(3)});
  return padded.transpose(1, 2);
}

}  // namespace

namespace detail {

at::Tensor attention_sdpa(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                          double scale, const at::Tensor& segments) {
  const int64_t T = q.size(1), S = k.size(1), width = std::max(q.size(3), v.size(3));
  const bool causal = T == S && T > 1 && !segments.defined();
  const at::Tensor mask = causal ? at::Tensor() : visible(T, S, segments, q.device());
  const at::Tensor y = at::scaled_dot_product_attention(
      heads_first(q, width), heads_first(k, width), heads_first(v, width),
      mask.defined() ? std::optional<at::Tensor>(mask) : std::nullopt, /*dropout_p=*/0.0, causal,
      scale, /*enable_gqa=*/q.size(2) != k.size(2));  // (B, N, T, width)
  return y.transpose(1, 2).narrow(3, 0, v.size(3));   // (B, T, N, Hv)
}

}  // namespace detail

// ---- our CPU kernel for small heads -------------------------------------------------------------

namespace {

// Up to which head size the kernel is the faster one: of packed sequences it skips what is masked.
constexpr int64_t kSmallHead = 16, kSmallPackedHead = 32;

// The first position of each position's segment, (B, S); undefined when a segment comes back after
// another one has begun, for then no range of keys describes what a query sees.
at::Tensor first_positions(const at::Tensor& segments) {
  const at::Tensor ids = segments.contiguous();
  const at::Tensor first = at::empty_like(ids);
  const int64_t S = ids.size(1);
  for (int64_t b = 0; b < ids.size(0); ++b) {
    const int64_t* const id = ids.const_data_ptr<int64_t>() + b * S;
    int64_t* const out = first.data_ptr<int64_t>() + b * S;
    std::unordered_set<int64_t> seen;
    for (int64_t s = 0; s < S; ++s) {
      const bool begins = s == 0 || id[s] != id[s - 1];
      if (begins && !seen.insert(id[s]).second) return {};
      out[s] = begins ? s : out[s - 1];
    }
  }
  return first;
}

detail::HeadStrides strides_of(const at::Tensor& x) {
  return {x.stride(0), x.stride(1), x.stride(2)};
}

struct KernelInput {
  at::Tensor q, k, v;  // rows dense
  at::Tensor first;    // (B, S) int64 or undefined
  double scale;
};

template <class T>
detail::AttentionArgs<T> kernel_args(const KernelInput& in) {
  detail::AttentionArgs<T> args{};
  args.queries = in.q.size(1);
  args.keys = in.k.size(1);
  args.heads = in.q.size(2);
  args.groups = in.k.size(2);
  args.width = in.q.size(3);
  args.value_width = in.v.size(3);
  args.scale = static_cast<T>(in.scale);
  args.q = in.q.const_data_ptr<T>();
  args.k = in.k.const_data_ptr<T>();
  args.v = in.v.const_data_ptr<T>();
  args.q_strides = strides_of(in.q);
  args.k_strides = strides_of(in.k);
  args.v_strides = strides_of(in.v);
  args.first = in.first.defined() ? in.first.const_data_ptr<int64_t>() : nullptr;
  return args;
}

// -> (B, T, N, Hv), and the logarithms of the softmax's sums (B, N, T)
std::vector<at::Tensor> attend(const KernelInput& in) {
  const int64_t B = in.q.size(0), T = in.q.size(1), N = in.q.size(2), G = in.k.size(2);
  const at::Tensor out = at::empty({B, T, N, in.v.size(3)}, in.q.options());
  const at::Tensor lse = at::empty({B, N, T}, in.q.options());
  AT_DISPATCH_FLOATING_TYPES(in.q.scalar_type(), "causal_attention", [&] {
    auto args = kernel_args<scalar_t>(in);
    args.out = out.data_ptr<scalar_t>();
    args.lse = lse.data_ptr<scalar_t>();
    at::parallel_for(0, B * G, 1, [&](int64_t begin, int64_t end) {
      detail::attention_forward_tasks(args, begin, end);
    });
  });
  return {out, lse};
}

// Autograd takes no undefined tensor as an argument.
std::optional<at::Tensor> if_defined(const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor) : std::nullopt;
}

class SmallHeadAttention : public torch::autograd::Function<SmallHeadAttention> {
 public:
  // Autograd wants the tensors one by one. NOLINTNEXTLINE(readability-function-size)
  static at::Tensor forward(torch::autograd::AutogradContext* ctx, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v,
                            const std::optional<at::Tensor>& begins, double scale) {
    const at::Tensor first = begins.value_or(at::Tensor());
    const KernelInput in{detail::with_dense_rows(q), detail::with_dense_rows(k),
                         detail::with_dense_rows(v), first, scale};
    const auto results = keep([&] { return attend(in); });
    const at::Tensor out = results[0].detach(), lse = results[1];
    ctx->save_for_backward({in.q, in.k, in.v, first, out, lse});
    ctx->saved_data["scale"] = scale;
    return out;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* ctx,
                                                 const torch::autograd::variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const KernelInput in{saved[0], saved[1], saved[2], saved[3],
                         ctx->saved_data["scale"].toDouble()};
    const at::Tensor dout = grads[0].contiguous(), &out = saved[4], &lse = saved[5];
    const at::Tensor dq = at::empty(in.q.sizes(), in.q.options());
    const at::Tensor dk = at::empty(in.k.sizes(), in.k.options());
    const at::Tensor dv = at::empty(in.v.sizes(), in.v.options());
    AT_DISPATCH_FLOATING_TYPES(dq.scalar_type(), "causal_attention_backward", [&] {
      auto args = kernel_args<scalar_t>(in);
      args.out = out.data_ptr<scalar_t>();
      args.lse = lse.data_ptr<scalar_t>();
      args.dout = dout.const_data_ptr<scalar_t>();
      args.dq = dq.data_ptr<scalar_t>();
      args.dk = dk.data_ptr<scalar_t>();
      args.dv = dv.data_ptr<scalar_t>();
      at::parallel_for(0, in.k.size(0) * args.groups, 1, [&](int64_t begin, int64_t end) {
        detail::attention_backward_tasks(args, begin, end);
      });
    });
    return {dq, dk, dv, at::Tensor(), at::Tensor()};
  }
};

}  // namespace

namespace detail {

at::Tensor attention_small_heads(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 double scale, const at::Tensor& segments) {
  const at::Tensor first = segments.defined() ? first_positions(segments) : at::Tensor();
  TORCH_CHECK(
      first.defined() == segments.defined(),
      "causal_attention segments: expected each segment in one piece, got one that returns");
  return SmallHeadAttention::apply(q, k, v, if_defined(first), scale);
}

}  // namespace detail

// ---- the operation ------------------------------------------------------------------------------

namespace {

void check_inputs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                  const at::Tensor& segments) {
  TORCH_CHECK(q.dim() == 4, "causal_attention q: expected shape (B, T, N, H), got ", q.sizes());
  TORCH_CHECK(k.dim() == 4, "causal_attention k: expected shape (B, S, G, H), got ", k.sizes());
  TORCH_CHECK(v.dim() == 4, "causal_attention v: expected shape (B, S, G, Hv), got ", v.sizes());
  const int64_t B = q.size(0), S = k.size(1), G = k.size(2);
  detail::check_shape("causal_attention k", k, {B, S, G, q.size(3)});
  detail::check_shape("causal_attention v", v, {B, S, G, v.size(3)});
  TORCH_CHECK(G > 0 && q.size(2) % G == 0,
              "causal_attention: expected query heads that are a multiple of the key heads, got ",
              q.size(2), " and ", G);
  TORCH_CHECK(S >= q.size(1), "causal_attention: expected at least as many keys as queries, got ",
              S, " keys and ", q.size(1), " queries");
  for (const at::Tensor& tensor : {k, v}) {
    detail::check_dtype("causal_attention k and v", tensor, q.scalar_type());
    detail::check_device("causal_attention k and v", tensor, q.device());
  }
  if (!segments.defined()) return;
  detail::check_shape("causal_attention segments", segments, {B, S});
  detail::check_dtype("causal_attention segments", segments, at::kLong);
  detail::check_device("causal_attention segments", segments, q.device());
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            double scale, const at::Tensor& segments) {
  check_inputs(q, k, v, segments);
  const int64_t limit = segments.defined() ? kSmallPackedHead : kSmallHead;
  if (detail::has_cpu_kernel(q) && std::max(q.size(3), v.size(3)) <= limit) {
    const at::Tensor first = segments.defined() ? first_positions(segments) : at::Tensor();
    if (first.defined() == segments.defined()) {
      return SmallHeadAttention::apply(q, k, v, if_defined(first), scale);
    }
  }
  return detail::attention_sdpa(q, k, v, scale, segments);
}

}  // namespace zebra
