#include "ops/cached_attention.h"

#include <algorithm>
#include <numeric>

#include "ops/cpu/kernels.h"
#include "ops/cpu/launch.h"

namespace zebra {

// ---- the store ----------------------------------------------------------------------------------

namespace {

constexpr double kLargestInt8 = 127;

struct Quantised {
  at::Tensor values;  // (B, T, W) int8
  at::Tensor scales;  // (B, T, parts) float32
};

// Each part of a token by its own largest magnitude.
Quantised quantise(const at::Tensor& fresh, const std::vector<int64_t>& parts) {
  std::vector<at::Tensor> values, scales;
  for (const at::Tensor& part : fresh.to(at::kFloat).split_with_sizes(parts, -1)) {
    const at::Tensor scale = part.abs().amax(-1, /*keepdim=*/true) / kLargestInt8;  // (B, T, 1)
    const at::Tensor safe = at::where(scale > 0, scale, at::ones_like(scale));
    values.push_back((part / safe).round().to(at::kChar));
    scales.push_back(scale);
  }
  return {at::cat(values, -1), at::cat(scales, -1)};
}

void put_rows(const at::Tensor& into, const at::Tensor& fresh, const std::vector<int64_t>& first) {
  const int64_t T = fresh.size(1);
  const bool even =
      std::all_of(first.begin(), first.end(), [&](int64_t f) { return f == first[0]; });
  if (even) {
    into.narrow(1, first[0], T).copy_(fresh);
    return;
  }
  for (int64_t b = 0; b < fresh.size(0); ++b) {
    into.select(0, b).narrow(0, first[static_cast<size_t>(b)], T).copy_(fresh.select(0, b));
  }
}

at::Tensor grown(const at::Tensor& old, at::IntArrayRef sizes, const at::TensorOptions& options) {
  at::Tensor made = at::zeros(sizes, options);
  if (old.defined()) made.narrow(1, 0, old.size(1)).copy_(old);
  return made;
}

}  // namespace

int64_t CachedTokens::bytes_per_token() const {
  if (!values.defined()) return 0;
  const int64_t numbers = values.size(2) * values.element_size();
  return numbers + (scales.defined() ? scales.size(2) * scales.element_size() : 0);
}

void reserve_tokens(CachedTokens& store, int64_t batch, int64_t tokens, int64_t block_tokens,
                    const at::TensorOptions& options) {
  if (store.room() >= tokens) return;
  const int64_t W = std::accumulate(store.parts.begin(), store.parts.end(), int64_t{0});
  const int64_t S = (tokens + block_tokens - 1) / block_tokens * block_tokens;
  store.values = grown(store.values, {batch, S, W}, options);
  if (options.dtype() != at::kChar) return;
  const auto parts = static_cast<int64_t>(store.parts.size());
  store.scales = grown(store.scales, {batch, S, parts}, options.dtype(at::kFloat));
}

void put_tokens(CachedTokens& store, const at::Tensor& fresh, const std::vector<int64_t>& first) {
  if (!store.scales.defined()) return put_rows(store.values, fresh, first);
  const Quantised quantised = quantise(fresh, store.parts);
  put_rows(store.values, quantised.values, first);
  put_rows(store.scales, quantised.scales, first);
}

at::Tensor get_tokens(const CachedTokens& store, int64_t count, at::ScalarType dtype) {
  const at::Tensor values = store.values.narrow(1, 0, count);
  if (!store.scales.defined()) return values.to(dtype);
  const auto whole = values.to(dtype).split_with_sizes(store.parts, -1);
  const at::Tensor scales = store.scales.narrow(1, 0, count).to(dtype);
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < whole.size(); ++i) {
    parts.push_back(whole[i] * scales.narrow(-1, static_cast<int64_t>(i), 1));
  }
  return at::cat(parts, -1);
}

// ---- any device and dtype -----------------------------------------------------------------------

namespace detail {

namespace {

int64_t tokens_seen(const CachedAttentionInput& in) {
  return *std::max_element(in.first.begin(), in.first.end()) + in.q.size(1);
}

// True where a query may see a position. (B, 1, T, S)
at::Tensor visible(const CachedAttentionInput& in, int64_t S) {
  const auto options = at::TensorOptions(at::kLong).device(in.q.device());
  const at::Tensor first = at::tensor(in.first, at::kLong).to(in.q.device()).view({-1, 1, 1, 1});
  const at::Tensor query = first + at::arange(in.q.size(1), options).view({1, 1, -1, 1});
  return at::arange(S, options).le(query);
}

}  // namespace

// Values that are the beginning of their keys are not cut out: the whole key is mixed, and the rest
// of the result dropped. Unequal widths are padded, which fused kernels want.
at::Tensor cached_attention_any(const CachedAttentionInput& in) {
  const int64_t B = in.q.size(0), H = in.q.size(3), G = in.groups, S = tokens_seen(in);
  const auto heads = [&](const CachedTokens& store, int64_t width) {
    const at::Tensor tokens = get_tokens(store, S, in.q.scalar_type());  // (B, S, G * width)
    return tokens.view({B, S, G, width}).transpose(1, 2);                // (B, G, S, width)
  };
  const at::Tensor k = heads(in.keys, H);
  at::Tensor q = in.q.transpose(1, 2), keys = k, v = k;  // (B, N, T, H)
  if (in.values.values.defined()) {
    v = heads(in.values, in.value_width);
    const int64_t wide = std::max(H, in.value_width);
    const auto padded = [&](const at::Tensor& x) {
      return x.size(3) == wide ? x : at::constant_pad_nd(x, {0, wide - x.size(3)});
    };
    q = padded(q);
    keys = padded(k);
    v = padded(v);
  }
  const at::Tensor y = at::scaled_dot_product_attention(
      q, keys, v, visible(in, S), /*dropout_p=*/0.0, /*is_causal=*/false, in.scale,
      /*enable_gqa=*/in.q.size(2) != G);                  // (B, N, T, width)
  return y.narrow(3, 0, in.value_width).transpose(1, 2);  // (B, T, N, Hv)
}

// ---- CPU kernel ---------------------------------------------------------------------------------

namespace {

bool kernel_reads(const CachedTokens& store, at::ScalarType dtype) {
  const at::ScalarType type = store.values.scalar_type();
  return type == dtype || type == at::kBFloat16 || type == at::kChar;
}

StoredTokens stored(const CachedTokens& store) {
  const at::ScalarType type = store.values.scalar_type();
  return {.data = store.values.const_data_ptr(),
          .scales = store.scales.defined() ? store.scales.const_data_ptr<float>() : nullptr,
          .type = type == at::kChar       ? StoredType::kInt8
                  : type == at::kBFloat16 ? StoredType::kBfloat16
                                          : StoredType::kReal,
          .room = store.room(),
          .width = store.values.size(2),
          .parts = store.parts.data(),
          .part_count = static_cast<int64_t>(store.parts.size())};
}

// The pieces of a row, each with its own maximum, as one: out = sum_i w_i mixed_i / sum_i w_i sum_i
// with w_i = exp(largest_i - the greatest of them).
template <class Real>
void merge_pieces(const CachedAttention<Real>& args, int64_t b, Real* out) {
  const int64_t repeat = args.N / args.G, R = args.rows();
  for (int64_t row = 0; row < args.T * args.N; ++row) {
    const int64_t t = row / args.N, n = row % args.N, g = n / repeat;
    const int64_t r = t * repeat + n % repeat;
    const auto at = [&](int64_t piece) { return ((b * args.G + g) * args.pieces + piece) * R + r; };
    const int64_t pieces = args.pieces_of(b);
    Real largest = args.largest[at(0)], sum = 0;
    for (int64_t i = 1; i < pieces; ++i) largest = std::max(largest, args.largest[at(i)]);
    Real* const y = out + row * args.Hv;
    std::fill_n(y, args.Hv, Real{0});
    for (int64_t i = 0; i < pieces; ++i) {
      const Real weight = std::exp(args.largest[at(i)] - largest);
      sum += weight * args.sums[at(i)];
      const Real* const mixed = args.mixed + at(i) * args.Hv;
      for (int64_t h = 0; h < args.Hv; ++h) y[h] += weight * mixed[h];
    }
    for (int64_t h = 0; h < args.Hv; ++h) y[h] /= sum;
  }
}

template <class Real>
at::Tensor run_kernel(const CachedAttentionInput& in) {
  const at::Tensor q = with_dense_tokens(in.q);
  const int64_t B = q.size(0), T = q.size(1), N = q.size(2);
  const CachedTokens& values = in.values.values.defined() ? in.values : in.keys;
  CachedAttention<Real> args;
  args.B = B;
  args.T = T;
  args.N = N;
  args.G = in.groups;
  args.H = q.size(3);
  args.Hv = in.value_width;
  args.scale = static_cast<Real>(in.scale);
  args.pieces = (tokens_seen(in) + kAttentionPiece - 1) / kAttentionPiece;
  args.q = rows_of<Real>(q);
  args.first = in.first.data();
  args.keys = stored(in.keys);
  args.values = stored(values);
  const int64_t items = B * args.G * args.pieces, R = args.rows();
  const at::Tensor mixed = at::empty({items, R, args.Hv}, q.options());
  const at::Tensor statistics = at::empty({2, items, R}, q.options());
  args.mixed = mixed.mutable_data_ptr<Real>();
  args.largest = statistics.mutable_data_ptr<Real>();
  args.sums = args.largest + items * R;
  for_items(items, 2 * kAttentionPiece * R * (args.H + args.Hv), [&](int64_t begin, int64_t end) {
    Scratch<Real> scratch(cached_attention_scratch(args));
    kernels<Real>().cached_attention(args, begin, end, scratch.data());
  });
  at::Tensor out = at::empty({B, T, N, args.Hv}, q.options());
  auto* const y = out.mutable_data_ptr<Real>();
  for_items(B, T * N * args.Hv * args.pieces, [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) merge_pieces(args, b, y + b * T * N * args.Hv);
  });
  return out;
}

}  // namespace

at::Tensor cached_attention_cpu(const CachedAttentionInput& in) {
  return in.q.scalar_type() == at::kDouble ? run_kernel<double>(in) : run_kernel<float>(in);
}

}  // namespace detail

// ---- the operation ------------------------------------------------------------------------------

namespace {

void check_store(const char* name, const CachedTokens& store, const at::Tensor& q, int64_t width) {
  TORCH_CHECK(
      store.values.dim() == 3 && store.values.size(0) == q.size(0) && store.values.size(2) == width,
      "cached_attention ", name, ": expected shape (", q.size(0), ", S, ", width, "), got ",
      store.values.sizes());
  TORCH_CHECK(store.values.device() == q.device(), "cached_attention ", name, ": expected device ",
              q.device(), ", got ", store.values.device());
  TORCH_CHECK(store.values.is_contiguous(), "cached_attention ", name, ": expected a dense tensor");
}

void check(const CachedAttentionInput& in) {
  TORCH_CHECK(in.q.dim() == 4, "cached_attention q: expected shape (B, T, N, H), got ",
              in.q.sizes());
  TORCH_CHECK(in.groups > 0 && in.q.size(2) % in.groups == 0,
              "cached_attention: expected heads that are a multiple of the groups, got ",
              in.q.size(2), " and ", in.groups);
  TORCH_CHECK(static_cast<int64_t>(in.first.size()) == in.q.size(0),
              "cached_attention first: expected ", in.q.size(0), " positions, got ",
              in.first.size());
  check_store("keys", in.keys, in.q, in.groups * in.q.size(3));
  if (in.values.values.defined()) {
    check_store("values", in.values, in.q, in.groups * in.value_width);
  } else {
    TORCH_CHECK(in.groups == 1 && in.value_width <= in.q.size(3),
                "cached_attention: expected one group whose values begin its keys");
  }
  const int64_t seen = *std::max_element(in.first.begin(), in.first.end()) + in.q.size(1);
  TORCH_CHECK(seen <= in.keys.room(), "cached_attention: expected room for ", seen, " tokens, got ",
              in.keys.room());
}

}  // namespace

at::Tensor cached_attention(const CachedAttentionInput& in) {
  constexpr int64_t kManyRows = 256;  // from here on the fused kernels' large products win
  check(in);
  const at::NoGradGuard no_grad;
  const at::ScalarType dtype = in.q.scalar_type();
  const bool kernel = in.q.is_cpu() && (dtype == at::kFloat || dtype == at::kDouble) &&
                      detail::kernel_reads(in.keys, dtype) &&
                      in.q.size(1) * (in.q.size(2) / in.groups) <= kManyRows;
  return kernel ? detail::cached_attention_cpu(in) : detail::cached_attention_any(in);
}

}  // namespace zebra
