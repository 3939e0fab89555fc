// The three kinds of sequence mixer. Each has one forward for training and generation: the cache is
// an argument.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "zebra/cache.h"
#include "zebra/layers.h"
#include "zebra/ops.h"

namespace zebra {

enum class MixerKind { kAttention, kMla, kMamba2 };

// What all layers of one forward pass share.
struct SequenceContext {
  at::Tensor segments;  // undefined or (B, T) int64
  RopeTable rope;       // for attention heads
  RopeTable mla_rope;   // for the rotary part of MLA heads
  CachePlace place;     // with caches only
};

class Mixer : public torch::nn::Module {
 public:
  // x: (B, T, D) -> (B, T, D). With a cache (of this mixer's own make), x continues the cached
  // sequence.
  virtual at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                             LayerCache* cache) = 0;
  virtual std::unique_ptr<LayerCache> make_cache(const CacheOptions& options) const = 0;
  virtual MixerKind kind() const = 0;
};

// ---- attention
// -------------------------------------------------------------------------------------------------------

struct AttentionOptions {
  int64_t hidden_size = 2048;  // D
  int64_t num_heads = 32;      // N
  int64_t num_kv_heads = 8;    // G
  int64_t head_dim = 64;       // H
  bool bias = false;
};

// What is kept by token, and no state beside it.
class TokenCache : public LayerCache {
 public:
  TokenCache(const CacheOptions& options, std::vector<std::vector<int64_t>> parts);
  int64_t bytes_per_token() const override;
  int64_t state_bytes() const override { return 0; }
  int64_t reserved_bytes() const override;
  void keep(const std::vector<int64_t>& /*counts*/) override {}
  std::unique_ptr<LayerCache> select(const std::vector<int64_t>& rows) const override;
  void append(const LayerCache& other) override;
  std::vector<at::Tensor> states() const override { return {}; }
  void restore(const std::vector<at::Tensor>& /*states*/) override {}

  // fresh: one (B, T, W) for each store.
  void put(const std::vector<at::Tensor>& fresh, const CachePlace& place);

  std::vector<CachedTokens> stores;  // keys (rotated) and values; or latents with rotated rope keys

 private:
  CacheOptions options_;
};

class AttentionImpl : public Mixer {
 public:
  explicit AttentionImpl(const AttentionOptions& options);
  at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                     LayerCache* cache) override;
  std::unique_ptr<LayerCache> make_cache(const CacheOptions& options) const override;
  MixerKind kind() const override { return MixerKind::kAttention; }

  torch::nn::Linear q_proj{nullptr}, k_proj{nullptr}, v_proj{nullptr}, o_proj{nullptr};

 private:
  AttentionOptions options_;
};

// ---- MLA
// -------------------------------------------------------------------------------------------------------------

struct MlaRanks {
  int64_t q_lora_rank = 1344;  // Rq
  int64_t kv_lora_rank = 128;  // Rkv
};

struct MlaOptions {
  int64_t hidden_size = 2048;     // D
  int64_t num_heads = 32;         // N
  int64_t num_kv_heads = 8;       // G: heads that kv_b makes; equal to num_heads in the full form
  int64_t q_lora_rank = 1344;     // Rq
  int64_t kv_lora_rank = 128;     // Rkv
  int64_t qk_nope_head_dim = 32;  // Hn
  int64_t qk_rope_head_dim = 32;  // Hr
  int64_t v_head_dim = 64;        // Hv
  bool latent_norm = false;       // RMSNorm (eps 1e-6) on both latents
  bool bias = false;              // on q_a, kv_a and out
  int64_t rank_divisor = 8;       // ranks are multiples of it
  RopeOptions rope;               // of the rotary part
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) with grouped key/value
// up-projections, as Zebra-Llama has it.
class MlaImpl : public Mixer {
 public:
  explicit MlaImpl(const MlaOptions& options);
  // Without a cache, and for the first piece of one, keys and values are expanded; later pieces
  // attend in the latent space (absorbed), reading Rkv + Hr values a token, unless they are so long
  // that expanding costs less.
  at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                     LayerCache* cache) override;
  std::unique_ptr<LayerCache> make_cache(const CacheOptions& options) const override;
  MixerKind kind() const override { return MixerKind::kMla; }
  const MlaOptions& options() const { return options_; }

  torch::nn::Linear q_a_proj{nullptr}, q_b_proj{nullptr}, kv_a_proj_with_mqa{nullptr},
      kv_b_proj{nullptr}, out_proj{nullptr};
  RmsNorm q_a_layernorm{nullptr}, kv_a_layernorm{nullptr};  // null without latent_norm

 private:
  struct Query {
    at::Tensor nope, rope;  // (B, T, N, Hn), (B, T, N, Hr) rotated
  };
  Query query(const at::Tensor& x, const SequenceContext& context);
  at::Tensor latent(const at::Tensor& x, const SequenceContext& context);  // (B, T, Rkv + Hr)
  struct KeyValue {
    at::Tensor key, value;  // (B, S, G, Hn + Hr), (B, S, G, Hv)
  };
  KeyValue expand(const at::Tensor& latent);  // (B, S, Rkv + Hr)
  at::Tensor attend_cached(const Query& q, const CachedTokens& latents, const CachePlace& place);
  at::Tensor absorbed(const Query& q, const CachedTokens& latents, const CachePlace& place);
  bool expanding_costs_less(int64_t queries) const;
  double scale() const;

  MlaOptions options_;
};

// ---- Mamba2
// ----------------------------------------------------------------------------------------------------------

struct Mamba2Options {
  int64_t hidden_size = 2048;  // D
  int64_t num_heads = 32;      // N
  int64_t num_kv_heads = 8;    // G: heads of x and B
  int64_t head_dim = 64;       // P = Z
  int64_t d_conv = 4;          // K
  int64_t chunk_size = 256;    // L of the published kernels; any length gives the same numbers
  bool repeat_kv_before_conv = false;
  bool conv_bias = true;
  bool bias = false;  // on in_proj and out_proj
  double norm_eps = 1e-5;
};

// Each piece puts new tensors in the places of the old, so that whoever holds a state keeps it.
class Mamba2Cache : public LayerCache {
 public:
  Mamba2Cache(const CacheOptions& options, int64_t conv_width);
  int64_t bytes_per_token() const override { return 0; }
  int64_t state_bytes() const override;
  int64_t reserved_bytes() const override { return state_bytes(); }
  void keep(const std::vector<int64_t>& counts) override;
  std::unique_ptr<LayerCache> select(const std::vector<int64_t>& rows) const override;
  void append(const LayerCache& other) override;
  std::vector<at::Tensor> states() const override { return {conv, ssm}; }
  void restore(const std::vector<at::Tensor>& states) override;

  // What states are kept in that were computed in this type.
  at::ScalarType state_type(at::ScalarType computed) const;

  at::Tensor conv;  // (B, C, K) last inputs of the convolution, newest last; undefined before the
                    // first token
  at::Tensor ssm;   // (B, N, P, Z) float32 (float64 for a float64 model), or bfloat16

  // What a tentative piece may add: the scan's inputs, and those of the convolution (B, T, C).
  struct Waiting {
    SsdInput scan;
    at::Tensor conv_inputs;
  };
  std::optional<Waiting> waiting;

 private:
  CacheOptions options_;
  int64_t conv_width_;  // K
};

// Mamba2 with the heads of a grouped-query attention layer: x, B narrower than C (MambaInLlama,
// arXiv 2408.15237).
class Mamba2Impl : public Mixer {
 public:
  explicit Mamba2Impl(const Mamba2Options& options);
  at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                     LayerCache* cache) override;
  std::unique_ptr<LayerCache> make_cache(const CacheOptions& options) const override;
  MixerKind kind() const override { return MixerKind::kMamba2; }
  const Mamba2Options& options() const { return options_; }
  int64_t conv_channels() const;  // C of the convolution

  torch::nn::Linear in_proj{nullptr}, out_proj{nullptr};
  std::shared_ptr<torch::nn::Module> conv1d;  // holds weight (C, 1, K) and bias (C)
  at::Tensor conv_weight, conv_bias;          // conv1d's, for use
  at::Tensor dt_bias, A_log, D;               // (N) each
  RmsNorm norm{nullptr};                      // weight (N * P), applied per head

 private:
  Mamba2Options options_;
};

}  // namespace zebra
