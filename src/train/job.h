// What all stages of a run share: the recipe, the run folder, and the models, tokenizer and data
// that it names.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "train/metrics.h"
#include "train/recipe_data.h"
#include "train/run_folder.h"
#include "zebra/dataset.h"
#include "zebra/init.h"
#include "zebra/model.h"
#include "zebra/recipe.h"
#include "zebra/tokenizer.h"

namespace zebra {

class Job {
 public:
  Job(const Recipe& recipe, const std::filesystem::path& root);

  const Recipe& recipe;
  RunFolder folder;
  const at::Device device;
  const at::ScalarType dtype;
  MetricsWriter metrics;

  std::filesystem::path input(const std::string& path) const;  // relative paths start at the root

  // Makes all text and pairs of the recipe into tokens, once; later calls find them done.
  // `replace`: tokens in the run folder that were made from something else are made again, not
  // refused.
  void prepare(bool replace);

  // Loaded when first asked for, then kept.
  const Tokenizer& tokenizer();
  const TokenDataset& train_data();
  const TokenDataset& validation_data();
  PreferenceDataset train_pairs();  // of the dpo stage
  PreferenceDataset held_out_pairs();
  CausalLm base();  // frozen: the given base, or what the pretrain stage made
  CausalLm
  teacher();  // frozen; the base when the recipe names none. ConfigError for another vocabulary

  CausalLm load(const std::filesystem::path& model_folder) const;  // trainable
  void save(const std::filesystem::path& model_folder, const CausalLm& model) const;

  // Options of a hybrid of the base with these kinds of layers.
  ModelOptions hybrid_options(const std::vector<MixerKind>& layers);
  std::vector<MixerKind> pure_layers(
      MixerKind kind);  // `kind` everywhere but at the recipe's attention layers
  std::vector<MixerKind> hybrid_layers(const std::vector<int64_t>& mla_layers);
  bool needs_student(
      MixerKind kind);  // whether any layer of the hybrid can come from this pure student

  std::filesystem::path base_folder() const;
  // Hash of every file that the recipe names: base, teacher, tokenizer, text, pairs.
  uint64_t inputs_hash();

 private:
  // The recipe's data as they are prepared; each store belongs to the plan at its place.
  struct Prepared {
    DataPlans plans;
    std::vector<std::shared_ptr<const TokenStore>> train, validation, pairs, held_out_pairs;
    uint64_t hash = 0;  // of all texts
  };
  const Prepared& prepared();
  PreferenceDataset preferences(const std::vector<std::shared_ptr<const TokenStore>>& stores);

  std::filesystem::path root_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<Prepared> prepared_;
  std::unique_ptr<TokenDataset> train_, validation_;
  CausalLm base_{nullptr}, teacher_{nullptr};
};

at::Device parse_device(
    const std::string& name);  // cpu, cuda, cuda:N; ConfigError when there is none
at::ScalarType parse_dtype(const std::string& name);  // fp32, bf16, fp16

// The recipe's shape of MLA and Mamba2 layers over a base Llama.
ModelOptions hybrid_shape(const ModelOptions& base, const HybridRecipe& hybrid);

}  // namespace zebra
