#include <chrono>

#include "train/stages/stages.h"
#include "zebra/init.h"

namespace zebra {

std::filesystem::path student_folder(const Job& job, const std::string& student) {
  return job.folder.stage(job.recipe.stages.ild ? "ild" : "init") / student;
}

StageResult run_compose(Job& job, uint64_t /*key*/) {
  const auto began = std::chrono::steady_clock::now();
  const auto load = [&](MixerKind kind, const char* name) {
    return job.needs_student(kind) ? job.load(student_folder(job, name)) : CausalLm(nullptr);
  };
  const auto options = job.hybrid_options(job.hybrid_layers(chosen_mla_layers(job)));
  const auto hybrid = compose(job.base(), load(MixerKind::kMla, "mla"),
                              load(MixerKind::kMamba2, "mamba2"), options);
  job.save(job.folder.stage("compose"), hybrid);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  return {spent.count()};
}

}  // namespace zebra
