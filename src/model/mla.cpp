#include <algorithm>
#include <cmath>

#include "model/cache.h"
#include "model/project.h"
#include "zebra/mixers.h"

namespace zebra {

namespace {

constexpr double kLatentNormEps = 1e-6;  // published modules' default, not the model's eps

}  // namespace

MlaImpl::MlaImpl(const MlaOptions& options) : options_(options) {
  const auto& o = options_;
  const int64_t D = o.hidden_size, N = o.num_heads, G = o.num_kv_heads;
  const int64_t Hn = o.qk_nope_head_dim, Hr = o.qk_rope_head_dim, Hv = o.v_head_dim;
  q_a_proj = register_module("q_a_proj", make_linear(D, o.q_lora_rank, o.bias));
  q_b_proj = register_module("q_b_proj", make_linear(o.q_lora_rank, N * (Hn + Hr), false));
  kv_a_proj_with_mqa =
      register_module("kv_a_proj_with_mqa", make_linear(D, o.kv_lora_rank + Hr, o.bias));
  kv_b_proj = register_module("kv_b_proj", make_linear(o.kv_lora_rank, G * (Hn + Hv), false));
  out_proj = register_module("out_proj", make_linear(N * Hv, D, o.bias));
  if (o.latent_norm) {
    q_a_layernorm = register_module("q_a_layernorm", RmsNorm(o.q_lora_rank, kLatentNormEps));
    kv_a_layernorm = register_module("kv_a_layernorm", RmsNorm(o.kv_lora_rank, kLatentNormEps));
  }
}

MlaImpl::Query MlaImpl::query(const at::Tensor& x, const SequenceContext& context) {
  const int64_t B = x.size(0), T = x.size(1);
  const int64_t Hn = options_.qk_nope_head_dim, Hr = options_.qk_rope_head_dim;
  auto low = project(q_a_proj, x);  // (B, T, Rq)
  if (options_.latent_norm) low = q_a_layernorm(low);
  const auto q = project(q_b_proj, low)
                     .view({B, T, options_.num_heads, Hn + Hr})
                     .split_with_sizes({Hn, Hr}, -1);
  const auto rotated = apply_rope(q[1], context.mla_rope, RopePairing::kInterleaved);
  return {q[0], rotated};  // (B, T, N, Hn), (B, T, N, Hr)
}

at::Tensor MlaImpl::latent(const at::Tensor& x, const SequenceContext& context) {
  const int64_t Rkv = options_.kv_lora_rank, Hr = options_.qk_rope_head_dim;
  const auto low = project(kv_a_proj_with_mqa, x).split_with_sizes({Rkv, Hr}, -1);
  auto shared = low[0];  // (B, T, Rkv)
  if (options_.latent_norm) shared = kv_a_layernorm(shared.contiguous());
  const auto key = low[1].unsqueeze(2);  // (B, T, 1, Hr)
  const auto rotated = apply_rope(key, context.mla_rope, RopePairing::kInterleaved).squeeze(2);
  return torch::cat({shared, rotated}, -1);  // (B, T, Rkv + Hr)
}

double MlaImpl::scale() const {
  const int64_t H = options_.qk_nope_head_dim + options_.qk_rope_head_dim;
  return 1.0 / std::sqrt(static_cast<double>(H));
}

MlaImpl::KeyValue MlaImpl::expand(const at::Tensor& latent) {
  const int64_t B = latent.size(0), S = latent.size(1);
  const int64_t G = options_.num_kv_heads, Rkv = options_.kv_lora_rank;
  const int64_t Hn = options_.qk_nope_head_dim, Hr = options_.qk_rope_head_dim;
  const int64_t Hv = options_.v_head_dim;
  const auto parts = latent.split_with_sizes({Rkv, Hr}, -1);
  const auto kv = kv_b_proj(parts[0]).view({B, S, G, Hn + Hv}).split_with_sizes({Hn, Hv}, -1);
  const auto shared = parts[1].unsqueeze(2).expand({B, S, G, Hr});
  return {torch::cat({kv[0], shared}, -1), kv[1]};  // (B, S, G, Hn + Hr), (B, S, G, Hv)
}

// Per query and position, a head multiplies 2 Rkv + Hr numbers in the latent space against
// Hn + Hr + Hv expanded ones; expanding a position costs Rkv G (Hn + Hv), once for all queries.
bool MlaImpl::expanding_costs_less(int64_t queries) const {
  const auto& o = options_;
  const int64_t saved = 2 * o.kv_lora_rank - o.qk_nope_head_dim - o.v_head_dim;
  const int64_t once = o.kv_lora_rank * o.num_kv_heads * (o.qk_nope_head_dim + o.v_head_dim);
  return queries * o.num_heads * saved > once;
}

// scores = (W_uk^T q_nope) . latent + q_rope . k_rope; the values are expanded after the weighted
// sum.
at::Tensor MlaImpl::absorbed(const Query& q, const CachedTokens& latents, const CachePlace& place) {
  const int64_t B = q.nope.size(0), T = q.nope.size(1), N = options_.num_heads;
  const int64_t G = options_.num_kv_heads, g = N / G, Rkv = options_.kv_lora_rank;
  const int64_t Hn = options_.qk_nope_head_dim, Hv = options_.v_head_dim;
  const auto up = kv_b_proj->weight.view({G, Hn + Hv, Rkv});
  const auto up_key = up.narrow(1, 0, Hn);                         // (G, Hn, Rkv)
  const auto up_value = up.narrow(1, Hn, Hv);                      // (G, Hv, Rkv)
  const auto by_group = [&](const at::Tensor& x, int64_t width) {  // (B, T, N, width)
    return x.reshape({B * T, G, g, width}).transpose(0, 1).reshape({G, B * T * g, width});
  };
  const auto by_token = [&](const at::Tensor& x, int64_t width) {  // (G, B * T * g, width)
    return x.view({G, B * T, g, width}).transpose(0, 1).reshape({B, T, N, width});
  };
  const auto q_latent = by_token(torch::bmm(by_group(q.nope, Hn), up_key), Rkv);
  const auto mixed = cached_attention({.q = torch::cat({q_latent, q.rope}, -1),
                                       .keys = latents,
                                       .values = {},
                                       .groups = 1,
                                       .value_width = Rkv,
                                       .scale = scale(),
                                       .first = place.first});  // (B, T, N, Rkv)
  return by_token(torch::bmm(by_group(mixed, Rkv), up_value.transpose(1, 2)), Hv);
}

at::Tensor MlaImpl::attend_cached(const Query& q, const CachedTokens& latents,
                                  const CachePlace& place) {
  const int64_t T = q.nope.size(1), G = options_.num_kv_heads, Hv = options_.v_head_dim;
  if (!expanding_costs_less(T)) return absorbed(q, latents, place);
  const int64_t S = *std::max_element(place.first.begin(), place.first.end()) + T;
  const auto kv = expand(get_tokens(latents, S, q.nope.scalar_type()));
  const auto as_store = [](const at::Tensor& x) {  // (B, S, G, H)
    return CachedTokens{.values = x.flatten(2).contiguous(), .scales = {}, .parts = {}};
  };
  return cached_attention({.q = torch::cat({q.nope, q.rope}, -1),
                           .keys = as_store(kv.key),
                           .values = as_store(kv.value),
                           .groups = G,
                           .value_width = Hv,
                           .scale = scale(),
                           .first = place.first});
}

at::Tensor MlaImpl::forward(const at::Tensor& x, const SequenceContext& context,
                            LayerCache* cache) {
  const int64_t B = x.size(0), T = x.size(1);
  const auto q = query(x, context);
  const auto fresh = latent(x, context);  // (B, T, Rkv + Hr)
  auto* own = cache == nullptr ? nullptr : &cache_of<TokenCache>(cache, "mla");
  if (own != nullptr) own->put({fresh}, context.place);
  at::Tensor y;  // (B, T, N, Hv)
  if (own == nullptr || context.place.starts()) {
    const auto kv = expand(fresh);
    y = causal_attention(torch::cat({q.nope, q.rope}, -1), kv.key, kv.value, scale(),
                         context.segments);
  } else {
    y = attend_cached(q, own->stores[0], context.place);
  }
  return project(out_proj,
                 y.reshape({B, T, options_.num_heads * options_.v_head_dim}));  // (B, T, D)
}

std::unique_ptr<LayerCache> MlaImpl::make_cache(const CacheOptions& options) const {
  const std::vector<int64_t> latent = {options_.kv_lora_rank, options_.qk_rope_head_dim};
  return std::make_unique<TokenCache>(options, std::vector<std::vector<int64_t>>{latent});
}

}  // namespace zebra
