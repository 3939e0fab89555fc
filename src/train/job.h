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

#include "base/stopwatch.h"
#include "base/watchdog.h"
#include "train/metrics.h"
#include "train/recipe_data.h"
#include "train/run_folder.h"
#include "zebra/checkpoint.h"
#include "zebra/dataset.h"
#include "zebra/dist.h"
#include "zebra/init.h"
#include "zebra/model.h"
#include "zebra/recipe.h"
#include "zebra/tokenizer.h"

namespace zebra {

class Job {
 public:
  // recipe and group outlive the job; every rank makes one.
  Job(const Recipe& recipe, const std::filesystem::path& root,
      std::unique_ptr<RunFolder> run_folder, Group& group);

  const Recipe& recipe;
  Group& group;
  RunFolder& folder;
  const at::Device device;
  const at::ScalarType dtype;
  MetricsWriter metrics;  // of rank 0; what others write is lost

  // How this process talks with the job's other ranks: from the training, and from the thread that
  // writes checkpoints.
  RankExchange ranks, saver_ranks;

  const Stopwatch since_start;

  // Tells the watchdog, if there is one, what the job is at.
  void doing(const std::string& what);
  std::unique_ptr<Watchdog> watchdog;

  std::filesystem::path trace_file(const std::string& stage, int64_t step) const;

  std::filesystem::path input(const std::string& path) const;  // relative paths start at the root

  // What eval runs: names of tasks and paths of YAML files, and the folder of their rows.
  std::vector<std::string> eval_tasks() const;
  std::string eval_data() const;

  // What needs no model to be loaded: refuses a teacher, a hybrid's shape or files of the eval
  // stage that will not do, makes all text and pairs of the recipe into tokens, once (later calls
  // find them done), and refuses what is too short. `replace`: tokens in the run folder that were
  // made from something else are made again, not refused.
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

  std::vector<CausalLm> frozen_models() const;     // base and teacher, those that are loaded
  std::filesystem::path tokenizer_source() const;  // folder or file that models get theirs from

  // Shares the blocks of a frozen model out over the ranks where the recipe says so, until
  // `forget_shared` (after which it is loaded again when asked for).
  void share_frozen(CausalLm model);
  void forget_shared();

  CausalLm load(const std::filesystem::path& model_folder) const;  // trainable
  // For rank 0, while the others wait for its signs of life (Group::led).
  void save(const std::filesystem::path& model_folder, const CausalLm& model) const;

  // Options of a hybrid of the base with these kinds of layers.
  ModelOptions hybrid_options(const std::vector<MixerKind>& layers);
  // `kind` everywhere but at the recipe's attention layers.
  std::vector<MixerKind> pure_layers(MixerKind kind) const;
  std::vector<MixerKind> hybrid_layers(const std::vector<int64_t>& mla_layers) const;
  // Whether any layer of the hybrid can come from this pure student.
  bool needs_student(MixerKind kind) const;

  std::filesystem::path base_folder() const;
  // Hash of the files that the recipe names and this stage is the first to read.
  uint64_t inputs_hash(const std::string& stage);

 private:
  // The recipe's data as they are prepared; each store belongs to the plan at its place.
  struct Prepared {
    DataPlans plans;
    std::vector<std::shared_ptr<const TokenStore>> train, validation, pairs, held_out_pairs;
    uint64_t train_hash = 0, validation_hash = 0, pairs_hash = 0, held_out_pairs_hash = 0;
  };
  const Prepared& prepared();
  bool has_teacher() const;  // another than the base
  void check_teacher();
  ModelOptions base_options() const;
  void check_base() const;                                // that sequences and the hybrid fit it
  std::vector<std::filesystem::path> eval_files() const;  // choices, and what tasks read
  void check_eval() const;  // that choices, tasks and the first rows of these can be read
  PreferenceDataset preferences(const std::vector<std::shared_ptr<const TokenStore>>& stores);

  std::unique_ptr<RunFolder> folder_;
  std::filesystem::path root_;
  std::unique_ptr<Tokenizer> tokenizer_;
  std::optional<Prepared> prepared_;
  std::unique_ptr<TokenDataset> train_, validation_;
  CausalLm base_{nullptr}, teacher_{nullptr};
  bool shares_frozen_ = false;
};

at::Device parse_device(
    const std::string& name);  // cpu, cuda, cuda:N; ConfigError when there is none
// The same for a rank among several on a machine: cuda becomes cuda:LOCAL_RANK.
at::Device device_of_rank(const std::string& name, const RankInfo& rank);
at::ScalarType parse_dtype(const std::string& name);  // fp64, fp32, bf16, fp16

// The recipe's shape of MLA and Mamba2 layers over a base Llama.
ModelOptions hybrid_shape(const ModelOptions& base, const HybridRecipe& hybrid);

}  // namespace zebra
