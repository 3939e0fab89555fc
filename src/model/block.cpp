#include "zebra/model.h"

namespace zebra {

namespace {

AttentionOptions attention_options(const ModelOptions& options) {
  return {.hidden_size = options.hidden_size,
          .num_heads = options.num_heads,
          .num_kv_heads = options.num_kv_heads,
          .head_dim = options.head_dim,
          .bias = options.attention_bias};
}

struct NamedMixer {
  const char* name;  // prefix of its tensors in checkpoints
  std::shared_ptr<Mixer> mixer;
};

// The registry of kinds: a further kind of mixer is one line here.
NamedMixer make_mixer(const ModelOptions& options, int64_t layer) {
  switch (options.layers.at(layer)) {
    case MixerKind::kAttention:
      return {"self_attn", std::make_shared<AttentionImpl>(attention_options(options))};
    case MixerKind::kMla:
      return {"mla", std::make_shared<MlaImpl>(options.mla_of_layer(layer))};
    case MixerKind::kMamba2:
      return {"mamba", std::make_shared<Mamba2Impl>(options.mamba2)};
  }
  TORCH_CHECK(false, "layer ", layer, ": unknown kind of mixer");
}

}  // namespace

BlockImpl::BlockImpl(const ModelOptions& options, int64_t layer) {
  const int64_t D = options.hidden_size;
  input_layernorm = register_module("input_layernorm", RmsNorm(D, options.rms_norm_eps));
  auto [name, made] = make_mixer(options, layer);
  mixer = register_module(name, made);
  post_attention_layernorm =
      register_module("post_attention_layernorm", RmsNorm(D, options.rms_norm_eps));
  mlp = register_module("mlp", Mlp(MlpOptions{.hidden_size = D,
                                              .intermediate_size = options.intermediate_size,
                                              .bias = options.mlp_bias}));
}

BlockOutput BlockImpl::forward(const at::Tensor& hidden, const SequenceContext& context,
                               LayerCache* cache) {
  const auto mixed = mixer->forward(input_layernorm(hidden), context, cache);  // (B, T, D)
  const auto middle = hidden + mixed;
  return {middle + mlp(post_attention_layernorm(middle)), mixed};
}

}  // namespace zebra
