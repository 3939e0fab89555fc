#include "zebra/trainer.h"

#include <algorithm>
#include <thread>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/signals.h"
#include "train/job.h"
#include "train/stages/stages.h"
#include "zebra/error.h"

namespace zebra {

namespace {

bool has_hybrid(const Recipe& recipe) { return recipe.hybrid && recipe.base; }

}  // namespace

// The order of the stages, when each is wanted, and which recipe keys its result depends on.
const std::vector<Stage>& run_stages() {
  static const std::vector<Stage> all = {
      {"pretrain", [](const Recipe& r) { return r.stages.pretrain.has_value(); },
       [](const Recipe& from, Recipe& to) {
         to.new_model = from.new_model;
         to.hybrid = from.hybrid;
         to.data = from.data;
         to.stages.pretrain = from.stages.pretrain;
       },
       run_pretrain},
      {"init", has_hybrid,
       [](const Recipe& from, Recipe& to) {
         to.base = from.base;
         to.hybrid = from.hybrid;
         to.init = from.init;
         to.data = from.data;
       },
       run_init},
      {"ild", [](const Recipe& r) { return has_hybrid(r) && r.stages.ild.has_value(); },
       [](const Recipe& from, Recipe& to) { to.stages.ild = from.stages.ild; }, run_ild},
      {"smart", [](const Recipe& r) { return has_hybrid(r) && r.hybrid->smart_count.has_value(); },
       [](const Recipe&, Recipe&) {}, run_smart},
      {"compose", has_hybrid, [](const Recipe&, Recipe&) {}, run_compose},
      {"distill", [](const Recipe& r) { return r.stages.distill.has_value(); },
       [](const Recipe& from, Recipe& to) {
         to.teacher = from.teacher;
         to.stages.distill = from.stages.distill;
       },
       run_distill},
      {"dpo", [](const Recipe& r) { return r.stages.dpo.has_value(); },
       [](const Recipe& from, Recipe& to) { to.stages.dpo = from.stages.dpo; }, run_dpo},
      {"eval", [](const Recipe&) { return true; },
       [](const Recipe& from, Recipe& to) { to.eval = from.eval; }, run_eval},
  };
  return all;
}

namespace {

// Hash of what a stage's result depends on: the inputs' contents, earlier stages, its own part of
// the recipe.
uint64_t stage_key(const Stage& stage, const Recipe& recipe, uint64_t before) {
  Recipe part;
  part.seed = recipe.seed;
  part.dtype = recipe.dtype;
  stage.select(recipe, part);
  part.data.cache.clear();  // where tokens lie changes no result
  Hasher hasher;
  hasher.add(before);
  hasher.add(stage.name);
  hasher.add(write_recipe(part));
  return hasher.value();
}

bool listed(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

void check_names(const RunOptions& options) {
  auto asked = options.only;
  if (!options.from.empty()) asked.push_back(options.from);
  for (const auto& name : asked) {
    if (listed(stage_names(), name)) continue;
    const auto nearest = nearest_name(name, stage_names());
    throw ConfigError(str("stage ", name, ": there is none of this name",
                          nearest.empty() ? "" : str("; did you mean ", nearest, "?")));
  }
}

// Whether a stage is already done. Its record must be of the same inputs and settings.
bool complete(const Job& job, const std::string& name, uint64_t key) {
  const auto record = job.folder.record(name);
  if (!record) return false;
  if (record->key == key) return true;
  throw ConfigError(str(job.folder.root().string(), ": stage ", name,
                        " was made from other inputs or "
                        "settings; run with --from ",
                        name, " to make it again, or choose another output"));
}

void run_stage(Job& job, const Stage& stage, uint64_t key) {
  log_info(str("stage ", stage.name));
  const auto result = stage.run(job, key);
  job.folder.complete(stage.name, {.key = key, .seconds = result.seconds});
  if (stop_requested()) throw StoppedError(str("stopped after stage ", stage.name));
}

void use_threads(int64_t threads) {
  const auto all = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : all));
}

}  // namespace

const std::vector<std::string>& stage_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> all;
    for (const auto& stage : run_stages()) all.push_back(stage.name);
    return all;
  }();
  return names;
}

void run_recipe(const Recipe& recipe, const RunOptions& options) {
  check_names(options);
  use_threads(recipe.threads);
  install_stop_handlers();
  Job job(recipe, options.root);
  write_file_atomic(job.folder.resolved_recipe(), write_recipe(recipe));
  log_to_file(job.folder.log());

  job.prepare(/*replace=*/options.fresh || !options.from.empty());
  bool redo = options.fresh;
  std::string missing;  // an earlier stage that is neither complete nor asked for
  uint64_t key = job.inputs_hash();
  for (const auto& stage : run_stages()) {
    if (!stage.wanted(recipe)) continue;
    key = stage_key(stage, recipe, key);
    redo = redo || stage.name == options.from;
    const bool asked = options.only.empty() || listed(options.only, stage.name);
    if (redo && asked) job.folder.discard(stage.name);
    if (complete(job, stage.name, key)) {
      log_info(str("stage ", stage.name, ": complete"));
    } else if (!asked) {
      missing = stage.name;
    } else if (!missing.empty()) {
      throw ConfigError(
          str("stage ", stage.name, " needs stage ", missing, ", which is not complete"));
    } else {
      run_stage(job, stage, key);
    }
  }
}

}  // namespace zebra
