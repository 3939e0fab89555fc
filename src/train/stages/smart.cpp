// SMART: how much the divergence from the base falls when one layer of the all-Mamba2 student
// becomes MLA decides which do.
#include "train/smart.h"

#include <chrono>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/signals.h"
#include "train/stages/stages.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

namespace {

std::filesystem::path smart_file(const Job& job) {
  return job.folder.stage("smart") / "smart.json";
}

// The all-Mamba2 student with one block taken from the MLA student; blocks are shared, not copied.
CausalLm with_mla_layer(Job& job, const CausalLm& mamba2, const CausalLm& mla, int64_t layer) {
  auto kinds = job.pure_layers(MixerKind::kMamba2);
  kinds.at(layer) = MixerKind::kMla;
  std::vector<Block> blocks;
  for (int64_t i = 0; i < static_cast<int64_t>(kinds.size()); ++i) {
    blocks.push_back(i == layer ? mla->block(i) : mamba2->block(i));
  }
  return CausalLm(job.hybrid_options(kinds), *job.base(), std::move(blocks));
}

double divergence(Job& job, CausalLm model) {
  auto base = job.base();
  return score_text(model, &base, job.train_data(), job.recipe.eval.batch_size,
                    job.recipe.hybrid->smart_sequences)
      .kl_per_token;
}

}  // namespace

StageResult run_smart(Job& job, uint64_t /*key*/) {
  const auto began = std::chrono::steady_clock::now();
  const auto mla = job.load(student_folder(job, "mla"));
  const auto mamba2 = job.load(student_folder(job, "mamba2"));
  const int64_t L = mamba2->options().num_layers();
  std::vector<Block> blocks;
  for (int64_t i = 0; i < L; ++i) blocks.push_back(mamba2->block(i));
  const double reference =
      divergence(job, CausalLm(mamba2->options(), *job.base(), std::move(blocks)));
  std::vector<double> swapped, sensitivity;
  for (int64_t i = 0; i < L; ++i) {
    throw_if_stopped(str("smart: layer ", i));
    const bool swap = mamba2->options().layers[i] == MixerKind::kMamba2;
    swapped.push_back(swap ? divergence(job, with_mla_layer(job, mamba2, mla, i)) : reference);
    sensitivity.push_back(reference - swapped.back());
    log_info(str("smart: layer ", i, ": KL ", reference, " -> ", swapped.back()));
  }
  const auto chosen = smart_layers(sensitivity, *job.recipe.hybrid->smart_count);
  std::filesystem::create_directories(smart_file(job).parent_path());
  const nlohmann::json json = {{"kl_all_mamba2", reference},
                               {"kl_with_mla_layer", swapped},
                               {"sensitivity", sensitivity},
                               {"chosen", chosen}};
  write_file_atomic(smart_file(job), json.dump(2) + "\n");
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  return {spent.count()};
}

std::vector<int64_t> chosen_mla_layers(const Job& job) {
  if (!job.recipe.hybrid->smart_count) return job.recipe.hybrid->mla_layers;
  const auto path = smart_file(job);
  return require<std::vector<int64_t>>(read_json(path), "chosen", path.string());
}

}  // namespace zebra
