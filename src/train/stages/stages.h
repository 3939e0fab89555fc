// The stages of a run in their order. Each reads model folders of earlier stages and writes its
// own.
#pragma once

#include <string>
#include <vector>

#include "train/job.h"

namespace zebra {

struct StageResult {
  double seconds = 0;
};

struct Stage {
  std::string name;
  bool (*wanted)(const Recipe& recipe);
  // The part of the recipe that the stage's result depends on, beside what earlier stages depend
  // on.
  void (*select)(const Recipe& from, Recipe& to);
  StageResult (*run)(Job& job, uint64_t key);
  bool on_all_ranks = false;  // otherwise rank 0 does it while the others wait
};

StageResult run_pretrain(Job& job, uint64_t key);  // stages/pretrain
StageResult run_init(Job& job, uint64_t key);      // stages/init/{mla,mamba2}, init_report.json
StageResult run_ild(Job& job, uint64_t key);       // stages/ild/{mla,mamba2}
StageResult run_smart(Job& job, uint64_t key);     // stages/smart/smart.json
StageResult run_compose(Job& job, uint64_t key);   // stages/compose
StageResult run_distill(Job& job, uint64_t key);   // stages/distill
StageResult run_dpo(Job& job, uint64_t key);       // stages/dpo
StageResult run_eval(Job& job, uint64_t key);      // summary.json, report.html

// All stages, in order.
const std::vector<Stage>& run_stages();

// The MLA layers of the hybrid: the recipe's list, or what the smart stage chose.
std::vector<int64_t> chosen_mla_layers(const Job& job);

// The folder that a pure student ("mla" or "mamba2") comes from: ild when the recipe has it, else
// init.
std::filesystem::path student_folder(const Job& job, const std::string& student);

}  // namespace zebra
