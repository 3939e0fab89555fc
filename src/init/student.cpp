#include "base/progress.h"
#include "base/rng.h"
#include "base/signals.h"
#include "init/mixers.h"
#include "zebra/error.h"

namespace zebra {

namespace {

const char* kind_name(MixerKind kind) {
  switch (kind) {
    case MixerKind::kAttention:
      return "attention";
    case MixerKind::kMla:
      return "mla";
    case MixerKind::kMamba2:
      return "mamba2";
  }
  return "?";
}

// Everything outside the mixers is the base's, so it must have the base's sizes.
void check_shell(const ModelOptions& base, const ModelOptions& student) {
  if (!base.is_llama()) throw ConfigError("base: expected a Llama, got a model with other layers");
  require_same("student layers", student.num_layers(), base.num_layers());
  require_same("student vocab_size", student.vocab_size, base.vocab_size);
  require_same("student hidden_size", student.hidden_size, base.hidden_size);
  require_same("student intermediate_size", student.intermediate_size, base.intermediate_size);
  require_same("student mlp_bias", student.mlp_bias, base.mlp_bias);
  if (student.tie_word_embeddings && !base.tie_word_embeddings) {
    throw ConfigError("student tie_word_embeddings: expected false, as the base's, got true");
  }
}

// Every parameter of `to` becomes a copy of that of the same name in `from`, dtype and device
// included; names for which `skip` says so are left alone.
template <class Skip>
void copy_parameters(torch::nn::Module& to, const torch::nn::Module& from, const std::string& where,
                     Skip skip) {
  const at::NoGradGuard no_grad;
  const auto sources = from.named_parameters();
  for (auto& item : to.named_parameters()) {
    if (skip(item.key())) continue;
    const at::Tensor* source = sources.find(item.key());
    if (source == nullptr || source->sizes() != item.value().sizes()) {
      throw ConfigError(zebra::str(where, item.key(), ": expected shape ", item.value().sizes(),
                                   ", got ",
                                   source ? zebra::str(source->sizes()) : "no such weight"));
    }
    item.value().set_data(source->detach().clone());
  }
}

// A copy of the base's embedding, final norm and head for the student to take over. Its one layer
// is of no use.
CausalLm copied_shell(const CausalLm& base, ModelOptions options) {
  const bool untie = !options.tie_word_embeddings && base->options().tie_word_embeddings;
  options.layers = {MixerKind::kAttention};
  options.mla_ranks.clear();
  CausalLm shell(options);
  copy_parameters(*shell, *base, "", [&](const std::string& name) {
    return name.starts_with("model.layers.") || (untie && name == "lm_head.weight");
  });
  if (untie) {
    shell->named_parameters()["lm_head.weight"].set_data(base->head_weight().detach().clone());
  }
  return shell;
}

const AttentionImpl& attention_of(const Block& block) {
  const auto* attention = dynamic_cast<const AttentionImpl*>(block->mixer.get());
  TORCH_CHECK(attention != nullptr, "init: expected an attention layer");
  return *attention;
}

// One layer, mixer and all.
LayerInitReport init_layer(Block student, const Block& base, const MixerInit& from,
                           const InitOptions& init) {
  const std::string where = str("layer ", from.random.layer, ": ");
  LayerInitReport report{.layer = from.random.layer, .kind = student->mixer->kind(), .svd = {}};
  const auto is_new_mixer = [](const std::string& name) {
    return name.starts_with("mla.") || name.starts_with("mamba.");
  };
  copy_parameters(*student, *base, where, is_new_mixer);
  if (auto* mla = dynamic_cast<MlaImpl*>(student->mixer.get())) {
    if (mla->options().latent_norm) {
      for (auto* norm : {&mla->q_a_layernorm, &mla->kv_a_layernorm}) {
        put((*norm)->weight, at::ones_like((*norm)->weight), from.base.q_proj->weight);
      }
    }
    report.svd = init_mixer(*mla, from, init.mla);
  } else if (auto* mamba2 = dynamic_cast<Mamba2Impl*>(student->mixer.get())) {
    init_mixer(*mamba2, from, init.mamba2);
  }
  return report;
}

}  // namespace

InitResult init_student(const CausalLm& base, const ModelOptions& options,
                        const InitOptions& init) {
  check_shell(base->options(), options);
  options.validate();
  const KeepDefaultGenerator keep;
  InitResult result;
  std::vector<Block> blocks;
  Progress progress("init: layers", options.num_layers(), /*tokens_per_step=*/0);
  for (int64_t layer = 0; layer < options.num_layers(); ++layer) {
    throw_if_stopped(str("init: layer ", layer));
    progress.update(layer, "");
    const MixerInit from{.base = attention_of(base->block(layer)),
                         .base_kv_heads = base->options().num_kv_heads,
                         .random = {.seed = init.seed, .layer = layer}};
    blocks.emplace_back(options, layer);
    result.layers.push_back(init_layer(blocks.back(), base->block(layer), from, init));
  }
  result.model = CausalLm(options, *copied_shell(base, options), std::move(blocks));
  return result;
}

std::vector<std::optional<MlaRanks>> energy_ranks(const CausalLm& base, const MlaOptions& options,
                                                  const EnergyRankOptions& energy) {
  if (!energy.q_energy && !energy.kv_energy) return {};
  const at::NoGradGuard no_grad;
  const int64_t L = base->options().num_layers(), G = base->options().num_kv_heads;
  const auto rank = [&](const at::Tensor& matrix, double share) {
    return energy_rank(at::linalg_svdvals(matrix), share, options.rank_divisor, energy.power);
  };
  std::vector<std::optional<MlaRanks>> ranks(static_cast<size_t>(L));
  Progress progress("init: energies of layers", L, /*tokens_per_step=*/0);
  for (int64_t layer = 0; layer < L; ++layer) {
    throw_if_stopped(str("init: energies of layer ", layer));
    progress.update(layer, "");
    if (energy.fixed_ends && (layer == 0 || layer == L - 1)) continue;
    const AttentionWeights weights = weights_of(attention_of(base->block(layer)));
    MlaRanks own{.q_lora_rank = options.q_lora_rank, .kv_lora_rank = options.kv_lora_rank};
    if (energy.q_energy) {
      const bool wide = weights.q.scalar_type() == at::kDouble;
      own.q_lora_rank = rank(wide ? weights.q : weights.q.to(at::kFloat), *energy.q_energy);
    }
    if (energy.kv_energy) {
      own.kv_lora_rank = rank(stacked_kv(weights, G, options.num_kv_heads), *energy.kv_energy);
    }
    ranks[layer] = own;
  }
  return ranks;
}

std::vector<double> mixer_output_errors(const CausalLm& base, const CausalLm& student,
                                        const at::Tensor& input_ids) {
  const at::NoGradGuard no_grad;
  CausalLm teacher = base, pupil = student;  // the same models; forward is not const
  const auto base_context = teacher->context(input_ids, /*segments=*/{}, /*offset=*/0);
  const auto student_context = pupil->context(input_ids, /*segments=*/{}, /*offset=*/0);
  std::vector<double> errors;
  at::Tensor hidden = teacher->embed(input_ids);  // (B, T, D)
  for (int64_t layer = 0; layer < base->options().num_layers(); ++layer) {
    Block block = student->block(layer);
    const at::Tensor normed = block->input_layernorm(hidden);
    const at::Tensor got = block->mixer->forward(normed, student_context, /*cache=*/nullptr);
    const BlockOutput expected =
        base->block(layer)->forward(hidden, base_context, /*cache=*/nullptr);
    const at::Tensor wanted = expected.mixer_out.to(at::kDouble);
    errors.push_back(((got.to(at::kDouble) - wanted).norm() / wanted.norm()).item<double>());
    hidden = expected.hidden;
  }
  return errors;
}

namespace {

// The model that gives a layer of this kind, checked to have one there.
const CausalLm& source_of(MixerKind kind, int64_t layer, const CausalLm& source,
                          const ModelOptions& options) {
  const std::string where = str("compose: layer ", layer, ": ");
  if (source.is_empty()) {
    throw ConfigError(str(where, "expected a student with ", kind_name(kind), " layers, got none"));
  }
  if (source->options().num_layers() != options.num_layers()) {
    throw ConfigError(str(where, "expected a student of ", options.num_layers(), " layers, got ",
                          source->options().num_layers()));
  }
  const MixerKind got = source->options().layers[layer];
  if (got != kind) {
    throw ConfigError(
        str(where, "expected ", kind_name(kind), " in the student, got ", kind_name(got)));
  }
  return source;
}

}  // namespace

CausalLm compose(const CausalLm& base, const CausalLm& mla, const CausalLm& mamba2,
                 const ModelOptions& options) {
  check_shell(base->options(), options);
  options.validate();
  const KeepDefaultGenerator keep;
  std::vector<Block> blocks;
  for (int64_t layer = 0; layer < options.num_layers(); ++layer) {
    const MixerKind kind = options.layers[layer];
    const CausalLm& student = kind == MixerKind::kMla      ? mla
                              : kind == MixerKind::kMamba2 ? mamba2
                                                           : base;
    const CausalLm& source = source_of(kind, layer, student, options);
    blocks.emplace_back(options, layer);
    copy_parameters(*blocks.back(), *source->block(layer), str("compose: layer ", layer, ": "),
                    [](const std::string& /*name*/) { return false; });
  }
  return CausalLm(options, *copied_shell(base, options), std::move(blocks));
}

}  // namespace zebra
