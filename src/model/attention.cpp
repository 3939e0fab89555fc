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
  if (cache != nullptr) {
    auto& own = cache_of<AttentionCache>(cache, "attention");
    own.key = k = append_tokens(own.key, k);      // (B, S, G, H)
    own.value = v = append_tokens(own.value, v);  // (B, S, G, H)
  }
  const double scale = 1.0 / std::sqrt(static_cast<double>(H));
  const auto y = causal_attention(q, k, v, scale, context.segments);  // (B, T, N, H)
  return project(o_proj, y.reshape({B, T, N * H}));                   // (B, T, D)
}

std::unique_ptr<LayerCache> AttentionImpl::make_cache(int64_t /*batch*/) const {
  return std::make_unique<AttentionCache>();
}

int64_t AttentionCache::bytes() const { return bytes_of(key) + bytes_of(value); }

}  // namespace zebra
