#include <chrono>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/log.h"
#include "train/stages/stages.h"
#include "zebra/error.h"
#include "zebra/init.h"

namespace zebra {

namespace {

nlohmann::json report_row(const LayerInitReport& layer, double output_error) {
  nlohmann::json row = {{"layer", layer.layer}, {"output_error", output_error}};
  if (layer.kind == MixerKind::kMla) {
    row["kind"] = "mla";
    row["q_rank"] = layer.svd.q_rank;
    row["kv_rank"] = layer.svd.kv_rank;
    row["q_energy"] = layer.svd.q_energy;
    row["kv_energy"] = layer.svd.kv_energy;
    row["q_error"] = layer.svd.q_error;
    row["kv_error"] = layer.svd.kv_error;
  } else {
    row["kind"] = "mamba2";
  }
  return row;
}

// Makes one pure student, saves it and adds its layers to the report.
void make_student(Job& job, MixerKind kind, const std::string& name, nlohmann::json& report) {
  log_info(str("init: ", name, " student"));
  const auto options = job.hybrid_options(job.pure_layers(kind));
  const auto made = init_student(job.base(), options,
                                 {.mla = job.recipe.init.mla,
                                  .mamba2 = job.recipe.init.mamba2,
                                  .seed = static_cast<uint64_t>(job.recipe.seed)});
  job.save(job.folder.stage("init") / name, made.model);

  const auto& data = job.train_data();
  const int64_t count = std::min(job.recipe.init.calibration_sequences, data.size());
  std::vector<double> errors(options.layers.size(), 0.0);
  if (count > 0) {
    const auto batch = data.sequential(0, count);
    errors = mixer_output_errors(job.base(), made.model, batch.input_ids.to(job.device));
  }
  for (const auto& layer : made.layers) {
    if (layer.kind == kind) report["layers"].push_back(report_row(layer, errors.at(layer.layer)));
  }
}

}  // namespace

StageResult run_init(Job& job, uint64_t /*key*/) {
  const auto began = std::chrono::steady_clock::now();
  nlohmann::json report = {{"layers", nlohmann::json::array()}};
  if (job.needs_student(MixerKind::kMla)) make_student(job, MixerKind::kMla, "mla", report);
  if (job.needs_student(MixerKind::kMamba2))
    make_student(job, MixerKind::kMamba2, "mamba2", report);
  write_file_atomic(job.folder.root() / "init_report.json", report.dump(2) + "\n");
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  return {spent.count()};
}

}  // namespace zebra
