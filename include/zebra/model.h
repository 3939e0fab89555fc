// A causal language model whose layers are attention, MLA or Mamba2 blocks inside Llama's shell.
// Parameter names are those of the checkpoint files (Hugging Face Llama, published hybrids):
// model.layers.3.mla.kv_b_proj.weight.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "zebra/cache.h"
#include "zebra/layers.h"
#include "zebra/mixers.h"

namespace zebra {

struct ModelOptions {
  int64_t vocab_size = 128256;       // V
  int64_t hidden_size = 2048;        // D
  int64_t intermediate_size = 8192;  // F
  int64_t num_heads = 32;            // N
  int64_t num_kv_heads = 8;          // G
  int64_t head_dim = 64;             // H
  int64_t max_position_embeddings = 131072;
  double rms_norm_eps = 1e-5;
  RopeOptions rope;  // of attention layers
  bool attention_bias = false;
  bool mlp_bias = false;
  bool tie_word_embeddings =
      true;  // the head is the embedding; there is no lm_head.weight parameter then
  double initializer_range = 0.02;
  int64_t bos_token_id = 1;
  std::vector<int64_t> eos_token_ids = {2};

  std::vector<MixerKind> layers;  // one kind a layer; its length is the depth
  MlaOptions mla;                 // used where layers[i] is kMla
  std::vector<std::optional<MlaRanks>>
      mla_ranks;         // empty, or one a layer: ranks that replace mla's in that layer
  Mamba2Options mamba2;  // used where layers[i] is kMamba2

  int64_t num_layers() const { return static_cast<int64_t>(layers.size()); }
  MlaOptions mla_of_layer(int64_t layer) const;  // mla with this layer's ranks
  bool is_llama() const;                         // every layer is attention
  void validate() const;                         // throws ConfigError
};

struct BlockOutput {
  at::Tensor hidden;     // (B, T, D) what the next block reads
  at::Tensor mixer_out;  // (B, T, D) the mixer's output before the residual sum
};

// Pre-norm residual block: h += mixer(norm(h)); h += mlp(norm(h)).
class BlockImpl : public torch::nn::Module {
 public:
  BlockImpl(const ModelOptions& options, int64_t layer);
  BlockOutput forward(const at::Tensor& hidden, const SequenceContext& context, LayerCache* cache);

  RmsNorm input_layernorm{nullptr}, post_attention_layernorm{nullptr};
  std::shared_ptr<Mixer> mixer;  // registered as self_attn, mla or mamba
  Mlp mlp{nullptr};
};
TORCH_MODULE(Block);

// Runs a block in place of its plain forward: where training recomputes blocks in the backward or
// spreads their parameters over ranks, it does so here, and the model knows nothing of it.
class BlockRunner {
 public:
  virtual ~BlockRunner() = default;
  virtual BlockOutput run(int64_t layer, Block& block, const at::Tensor& hidden,
                          const SequenceContext& context) = 0;
};

// Collects what ILD compares.
struct HiddenStates {
  std::vector<at::Tensor>
      hidden;  // L + 1 of (B, T, D): inputs of the blocks, then the final norm's output
  std::vector<at::Tensor> mixer_out;  // L of (B, T, D)
};

class CausalLmImpl : public torch::nn::Module {
 public:
  // Weights are random (Llama's scheme; Mamba2's own for its parts) from torch's default generator.
  explicit CausalLmImpl(const ModelOptions& options);

  // input_ids: (B, T) int64 -> hidden states after the final norm (B, T, D).
  // segments: undefined or (B, T) int64, see ops.h. cache: nullptr, or grows by T (then segments
  // must be undefined).
  at::Tensor forward(const at::Tensor& input_ids, const at::Tensor& segments,
                     ModelCache* cache = nullptr);

  // forward with a cache where row b has counts[b] <= T tokens and padding behind them, whose
  // outputs mean nothing.
  at::Tensor extend(const at::Tensor& input_ids, const std::vector<int64_t>& counts,
                    ModelCache& cache);

  // forward with a cache that then waits for keep(): how many tokens of each row it shall hold.
  at::Tensor propose(const at::Tensor& input_ids, ModelCache& cache);

  // A model out of existing blocks, which it shares with whoever holds them (nothing is copied).
  // `shell` gives embedding, final norm and head; blocks[i] must be of kind options.layers[i].
  CausalLmImpl(const ModelOptions& options, const CausalLmImpl& shell, std::vector<Block> blocks);

  // The same as forward, keeping every layer's tensors.
  HiddenStates forward_all(const at::Tensor& input_ids, const at::Tensor& segments);

  at::Tensor embed(const at::Tensor& input_ids);  // (B, T) -> (B, T, D)
  // One block without a cache, by the runner where one is set. hidden: (B, T, D)
  BlockOutput run_block(int64_t layer, const at::Tensor& hidden, const SequenceContext& context);
  SequenceContext context(const at::Tensor& input_ids, const at::Tensor& segments,
                          int64_t offset) const;
  at::Tensor head_weight() const;  // (V, D), the embedding when tied
  at::Tensor logits(const at::Tensor& hidden)
      const;  // (..., D) -> (..., V) float32 (float64 for a float64 model)

  ModelCache make_cache(int64_t batch, const CacheOptions& options = {}) const;

  const ModelOptions& options() const { return options_; }
  Block block(int64_t layer) const;
  RmsNorm final_norm() const;
  void set_block_runner(std::shared_ptr<BlockRunner> runner);  // nullptr: plain forwards again

 private:
  void make_rope();
  at::Tensor forward_cached(const at::Tensor& input_ids, CachePlace place, ModelCache& cache);
  SequenceContext context_at(const at::Tensor& positions) const;  // (B or 1, T) int64

  ModelOptions options_;
  std::shared_ptr<torch::nn::Module>
      model_;  // holds embed_tokens, layers, norm under the prefix "model."
  torch::nn::Embedding embed_tokens_{nullptr};
  std::vector<Block> blocks_;
  RmsNorm norm_{nullptr};
  torch::nn::Linear lm_head_{nullptr};  // null when tied
  RopeFrequencies attention_rope_, mla_rope_;
  std::shared_ptr<BlockRunner> runner_;
};
TORCH_MODULE(CausalLm);

// Parameters of a model with these options, counted without making it. Tied heads count once.
int64_t count_parameters(const ModelOptions& options);

// Cache sizes in values (not bytes), docs/math/mla_svd.md: what grows with every token, and what
// does not.
struct CacheSize {
  int64_t kv_values_per_token = 0;  // keys and values, or latents and rope keys, over all layers
  int64_t kv_parts_per_token = 0;   // scales that these need when they are int8
  int64_t state_values_per_sequence = 0;  // convolution and SSM states
  int64_t ssm_values_per_sequence = 0;    // the SSM states among them
};
CacheSize cache_size(const ModelOptions& options);

// The same in bytes, which is what ModelCache::bytes() counts.
struct CacheBytes {
  int64_t per_token = 0, per_sequence = 0;
  int64_t of(int64_t tokens) const { return per_token * tokens + per_sequence; }
};
CacheBytes cache_bytes(const ModelOptions& options, const CacheOptions& cache,
                       at::ScalarType model_dtype);

// The same model with attention in every layer.
ModelOptions as_llama(ModelOptions options);

}  // namespace zebra
