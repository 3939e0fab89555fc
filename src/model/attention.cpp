#include <cmath>

#include "model/cache.h"
#include "model/project.h"
#include "zebra/mixers.h"

namespace zebra {

AttentionImpl::AttentionImpl(const AttentionOptions& options) : options_(options) {
  const int64_t D = options.hidden_size, H = options.head_dim;
  const int64_t N = options.num_heads, G = options.num_kv_heads;
  const auto linear = [&](int64_t in, int64_t out) {
    return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(options.bias));
  };
  q_proj = register_module("q_proj", linear(D, N * H));
  k_proj = register_module("k_proj", linear(D, G * H));
  v_proj = register_module("v_proj", linear(D, G * H));
  o_proj = register_module("o_proj", linear(N * H, D));
}

at::Tensor AttentionImpl::forward(const at::Tensor& x, const SequenceContext& context,
                                  LayerCache* cache) {
  const int64_t B = x.size(0), T = x.size(1), H = options_.head_dim;
  const int64_t N = options_.num_heads, G = options_.num_kv_heads;
  auto q = project(q_proj, x).view({B, T, N, H});
  auto k = project(k_proj, x).view({B, T, G, H});
  auto v = project(v_proj, x).view({B, T, G, H});
  q = apply_rope(q, context.rope, RopePairing::kHalfSplit);
  k = apply_rope(k, context.rope, RopePairing::kHalfSplit);
  const double scale = 1.0 / std::sqrt(static_cast<double>(H));
  const auto out = [&](const at::Tensor& y) {
    return project(o_proj, y.reshape({B, T, N * H}));  // (B, T, D)
  };
  if (cache == nullptr) return out(causal_attention(q, k, v, scale, context.segments));

  auto& own = cache_of<TokenCache>(cache, "attention");
  own.put({k.flatten(2), v.flatten(2)}, context.place);  // (B, T, G * H)
  if (context.place.starts()) return out(causal_attention(q, k, v, scale, /*segments=*/{}));
  return out(cached_attention({.q = q,
                               .keys = own.stores[0],
                               .values = own.stores[1],
                               .groups = G,
                               .value_width = H,
                               .scale = scale,
                               .first = context.place.first}));
}

std::unique_ptr<LayerCache> AttentionImpl::make_cache(const CacheOptions& options) const {
  const std::vector<int64_t> heads(static_cast<size_t>(options_.num_kv_heads), options_.head_dim);
  return std::make_unique<TokenCache>(options, std::vector{heads, heads});
}

}  // namespace zebra
