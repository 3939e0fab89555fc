// The three kinds of sequence mixer. Each has one forward for training and generation: the cache is
// an argument.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>
#include <string>

#include "zebra/layers.h"
#include "zebra/ops.h"

namespace zebra {

enum class MixerKind { kAttention, kMla, kMamba2 };

// What all layers of one forward pass share.
struct SequenceContext {
  at::Tensor segments;  // undefined or (B, T) int64
  RopeTable rope;       // for attention heads
  RopeTable mla_rope;   // for the rotary part of MLA heads
};

// State of one layer for one batch of sequences.
class LayerCache {
 public:
  virtual ~LayerCache() = default;
  virtual int64_t bytes() const = 0;  // memory that is in use
};

class Mixer : public torch::nn::Module {
 public:
  // x: (B, T, D) -> (B, T, D). With a cache (of this mixer's own make), x continues the cached
  // sequence.
  virtual at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                             LayerCache* cache) = 0;
  virtual std::unique_ptr<LayerCache> make_cache(int64_t batch) const = 0;
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

struct AttentionCache : LayerCache {
  at::Tensor key, value;  // (B, S, G, H) each, rotated keys; undefined before the first token
  int64_t bytes() const override;
};

class AttentionImpl : public Mixer {
 public:
  explicit AttentionImpl(const AttentionOptions& options);
  at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                     LayerCache* cache) override;
  std::unique_ptr<LayerCache> make_cache(int64_t batch) const override;
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

struct MlaCache : LayerCache {
  at::Tensor latent;  // (B, S, Rkv + Hr): the latent (after its norm) and the rotated rope key;
                      // undefined at first
  int64_t bytes() const override;
};

// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) with grouped key/value
// up-projections, as Zebra-Llama has it.
class MlaImpl : public Mixer {
 public:
  explicit MlaImpl(const MlaOptions& options);
  // Without a cache, and for the first piece of one, keys and values are expanded; later pieces
  // attend in the latent space (absorbed), reading Rkv + Hr values a token.
  at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                     LayerCache* cache) override;
  std::unique_ptr<LayerCache> make_cache(int64_t batch) const override;
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
  at::Tensor expanded(const Query& q, const at::Tensor& latent, const SequenceContext& context);
  at::Tensor absorbed(const Query& q, const at::Tensor& latent);

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

struct Mamba2Cache : LayerCache {
  at::Tensor conv;  // (B, C, K) last inputs of the convolution, newest last; undefined before the
                    // first token
  at::Tensor ssm;   // (B, N, P, Z) float32
  int64_t bytes() const override;
};

// Mamba2 with the heads of a grouped-query attention layer: x, B narrower than C (MambaInLlama,
// arXiv 2408.15237).
class Mamba2Impl : public Mixer {
 public:
  explicit Mamba2Impl(const Mamba2Options& options);
  at::Tensor forward(const at::Tensor& x, const SequenceContext& context,
                     LayerCache* cache) override;
  std::unique_ptr<LayerCache> make_cache(int64_t batch) const override;
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
