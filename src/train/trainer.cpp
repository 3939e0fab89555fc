#include "zebra/trainer.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <optional>
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

// What training depends on: held-out text may change later.
DataRecipe training_data(const Recipe& recipe) {
  auto data = recipe.data;
  data.validation.clear();
  return data;
}

// One that is the base may be named or not.
std::optional<ModelSource> other_teacher(const Recipe& recipe) {
  const bool is_base = recipe.teacher && recipe.base && recipe.teacher->model == recipe.base->model;
  return is_base ? std::nullopt : recipe.teacher;
}

}  // namespace

// The order of the stages, when each is wanted, and which recipe keys its result depends on.
const std::vector<Stage>& run_stages() {
  static const std::vector<Stage> all = {
      {"pretrain", [](const Recipe& r) { return r.stages.pretrain.has_value(); },
       [](const Recipe& from, Recipe& to) {
         to.new_model = from.new_model;
         to.hybrid = from.hybrid;
         to.data = training_data(from);
         to.stages.pretrain = from.stages.pretrain;
       },
       run_pretrain, /*on_all_ranks=*/true},
      {"init", has_hybrid,
       [](const Recipe& from, Recipe& to) {
         to.base = from.base;
         to.hybrid = from.hybrid;
         to.init = from.init;
         to.data = training_data(from);
       },
       run_init},
      {"ild", [](const Recipe& r) { return has_hybrid(r) && r.stages.ild.has_value(); },
       [](const Recipe& from, Recipe& to) { to.stages.ild = from.stages.ild; }, run_ild,
       /*on_all_ranks=*/true},
      {"smart", [](const Recipe& r) { return has_hybrid(r) && r.hybrid->smart_count.has_value(); },
       [](const Recipe&, Recipe&) {}, run_smart},
      {"compose", has_hybrid, [](const Recipe&, Recipe&) {}, run_compose},
      {"distill", [](const Recipe& r) { return r.stages.distill.has_value(); },
       [](const Recipe& from, Recipe& to) {
         to.teacher = other_teacher(from);
         to.stages.distill = from.stages.distill;
       },
       run_distill, /*on_all_ranks=*/true},
      {"dpo", [](const Recipe& r) { return r.stages.dpo.has_value(); },
       [](const Recipe& from, Recipe& to) { to.stages.dpo = from.stages.dpo; }, run_dpo,
       /*on_all_ranks=*/true},
      {"eval", [](const Recipe&) { return true; },
       [](const Recipe& from, Recipe& to) {
         to.eval = from.eval;
         to.data = from.data;
       },
       run_eval,
       /*on_all_ranks=*/true},
  };
  return all;
}

namespace {

// Hash of what a stage's result depends on: earlier stages, the files that it is the first to read
// (`inputs`), its own part of the recipe.
uint64_t stage_key(const Stage& stage, const Recipe& recipe, uint64_t before, uint64_t inputs) {
  Recipe part;
  part.seed = recipe.seed;
  part.dtype = recipe.dtype;
  // Of what may change between two runs, this alone can change the result.
  if (recipe.stability.on_spike == OnSpike::kSkip) part.stability = recipe.stability;
  stage.select(recipe, part);
  part.data.cache.clear();  // where tokens lie changes no result
  Hasher hasher;
  hasher.add(before);
  hasher.add(inputs);
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

// Whether a stage is already done. Its record must be of the same inputs and settings, and its
// files as they were written.
bool complete(const Job& job, const std::string& name, uint64_t key) {
  const auto record = job.folder.record(name);
  if (!record) return false;
  if (record->key == key) {
    job.folder.verify(name);
    return true;
  }
  if (name == "eval") return false;  // it only measures, and does so again
  throw ConfigError(str(job.folder.root().string(), ": stage ", name,
                        " was made from other inputs or "
                        "settings; run with --from ",
                        name, " to make it again, or choose another output"));
}

// So many ranks of one machine share its cores, unless the recipe says how many threads each has.
void use_threads(int64_t threads, int64_t sharing) {
  const auto cores = static_cast<int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const int64_t share = std::max<int64_t>(1, cores / sharing);
  at::set_num_threads(static_cast<int>(threads > 0 ? threads : share));
}

// What rank 0 does alone: it has all cores, and rounds alike whatever the number of ranks.
StageResult run_alone(Job& job, const Stage& stage, uint64_t key) {
  StageResult result;
  use_threads(job.recipe.threads, /*sharing=*/1);
  job.group.led([&] { result = stage.run(job, key); });
  use_threads(job.recipe.threads, job.group.info().local_world);
  return result;
}

void run_stage(Job& job, const Stage& stage, uint64_t key) {
  log_info(str("stage ", stage.name));
  // Here, where nothing can be refused any more for what was made from another recipe.
  if (job.group.leads()) write_file_atomic(job.folder.resolved_recipe(), write_recipe(job.recipe));
  job.doing(str("stage ", stage.name));
  StageResult result;
  if (stage.on_all_ranks) {
    result = stage.run(job, key);
    job.forget_shared();
  } else {
    result = run_alone(job, stage, key);
  }
  job.group.led([&] {
    job.folder.complete(stage.name, {.key = key, .seconds = result.seconds},
                        job.recipe.checkpoint.keep_every);
    if (stop_requested()) {
      throw StoppedError(str("after stage ", stage.name, ": stopped by ", stop_reason()));
    }
  });
}

// Ranks that share a machine's cores have fewer threads each, and MKL's products would round
// differently. On Intel's processors it can do without, from its first call on; the user may have
// said how. False on others.
bool make_products_alike() {
  if (!__builtin_cpu_is("intel") || !__builtin_cpu_supports("avx2")) return false;
  const bool wide = __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
                    __builtin_cpu_supports("avx512vl");
  ::setenv("MKL_CBWR", wide ? "AVX512,STRICT" : "AVX2,STRICT", /*overwrite=*/0);
  return true;
}

// What is to be done about a stage. Rank 0 looks, for all.
enum class Due { kRun, kNot, kMissing };

Due due(Job& job, const std::string& name, uint64_t key, bool asked, bool redo) {
  const auto look = [&]() -> std::string {
    if (redo && asked) job.folder.discard(name);
    if (complete(job, name, key)) return "complete";
    return asked ? "run" : "missing";
  };
  const std::string found = job.group.led_text(look);
  return found == "run" ? Due::kRun : found == "missing" ? Due::kMissing : Due::kNot;
}

void run_stages_of(Job& job, const RunOptions& options) {
  job.group.led([&] { job.prepare(/*replace=*/options.fresh || !options.from.empty()); });
  bool redo = options.fresh;
  std::string missing;  // an earlier stage that is neither complete nor asked for
  uint64_t key = 0;
  for (const auto& stage : run_stages()) {
    if (!stage.wanted(job.recipe)) continue;
    const auto inputs =
        job.group.led_text([&] { return std::to_string(job.inputs_hash(stage.name)); });
    key = stage_key(stage, job.recipe, key, std::stoull(inputs));
    redo = redo || stage.name == options.from;
    const bool asked = options.only.empty() || listed(options.only, stage.name);
    switch (due(job, stage.name, key, asked, redo)) {
      case Due::kNot:
        log_info(str("stage ", stage.name, ": complete"));
        break;
      case Due::kMissing:
        missing = stage.name;
        break;
      case Due::kRun:
        if (!missing.empty()) {
          throw ConfigError(
              str("stage ", stage.name, " needs stage ", missing, ", which is not complete"));
        }
        run_stage(job, stage, key);
    }
  }
}

// Rank 0 makes the folder and takes its lock before the others look into it.
std::unique_ptr<Job> make_job(const Recipe& recipe, const RunOptions& options, Group& group) {
  std::unique_ptr<RunFolder> folder;
  const auto open = [&] { folder = std::make_unique<RunFolder>(recipe.output, group.rank()); };
  group.led(open);
  if (!group.leads()) open();
  log_to_file(folder->log());
  if (!group.leads()) log_to_files_only();
  return std::make_unique<Job>(recipe, options.root, std::move(folder), group);
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
  Group alone;
  run_recipe(recipe, options, alone);
}

void run_recipe(const Recipe& recipe, const RunOptions& options, Group& group) {
  check_names(options);
  use_threads(recipe.threads, group.info().local_world);
  const bool alike = !recipe.parallel.bit_equal || make_products_alike();
  install_stop_handlers();
  set_time_limit(recipe.time_limit_minutes);
  group.set_timeout(std::chrono::seconds(recipe.parallel.timeout_seconds));
  const auto job = make_job(recipe, options, group);
  const auto& health = recipe.health;
  job->watchdog = std::make_unique<Watchdog>(
      WatchdogOptions{.hang_seconds = 60 * health.hang_timeout_minutes,
                      .heartbeat_seconds = health.heartbeat_seconds,
                      .heartbeat = job->folder.heartbeat(),
                      .who = group.size() == 1 ? recipe.name : str("rank ", group.rank())});
  if (group.size() > 1) {
    log_info(str(group.size(), " ranks, sharding ", enum_name(recipe.parallel.sharding),
                 recipe.parallel.bit_equal ? ", bit_equal" : ""));
  }
  if (!alike && recipe.threads == 0) {
    log_warning(
        "parallel.bit_equal: on this processor products may round differently with fewer threads; "
        "set threads to the same number for every number of ranks");
  }
  run_stages_of(*job, options);
}

}  // namespace zebra
