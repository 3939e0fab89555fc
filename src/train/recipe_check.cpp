#include "train/recipe_check.h"

#include <algorithm>
#include <charconv>

#include "train/recipe_fields.h"
#include "zebra/chat_template.h"
#include "zebra/tasks.h"

namespace zebra {

namespace {

// Rules on the keys below one path.
class Rules {
 public:
  Rules(RecipeNotes& notes, std::string path) : notes_(notes), path_(std::move(path)) {}

  Rules below(const std::string& key) const { return {notes_, at(key)}; }
  std::string at(const std::string& key) const { return join_key(path_, key); }

  void fail(const std::string& key, const std::string& message) const {
    notes_.fail(at(key), message);
  }
  bool placed(const std::string& key) const { return notes_.placed(at(key)); }
  bool readable(const std::string& key) const { return !notes_.failed(at(key)); }

  template <class T>
  void expect(bool holds, const std::string& key, const std::string& expected, const T& got) const {
    notes_.expect(holds, at(key), expected, got);
  }
  template <class T>
  void at_least(const std::string& key, const T& got, const T& least) const {
    expect(got >= least, key, str("at least ", least), got);
  }
  void positive(const std::string& key, double got) const {
    expect(got > 0, key, "more than 0", got);
  }
  void share(const std::string& key, double got) const {
    expect(got >= 0 && got <= 1, key, "0 to 1", got);
  }
  // REQUIRES: divisor > 0
  void multiple(const std::string& key, int64_t got, int64_t divisor) const {
    expect(got > 0 && got % divisor == 0, key, str("a positive multiple of ", divisor), got);
  }
  void filled(const std::string& key, const std::string& got) const {
    if (got.empty()) fail(key, "expected a text, got an empty one");
  }

 private:
  RecipeNotes& notes_;
  std::string path_;
};

void check_schedule(const ScheduleOptions& schedule, const Rules& rules) {
  rules.share("warmup_ratio", schedule.warmup_ratio);
  rules.share("min_ratio", schedule.min_ratio);
  rules.share("decay_ratio", schedule.decay_ratio);
  const double sum = schedule.warmup_ratio + schedule.decay_ratio;
  if (schedule.kind != ScheduleKind::kWsd || !rules.readable("warmup_ratio")) return;
  rules.expect(sum <= 1, "decay_ratio", "at most 1 together with warmup_ratio", sum);
}

void check_optimizer(const OptimizerOptions& optimizer, const Rules& rules) {
  rules.positive("learning_rate", optimizer.learning_rate);
  rules.expect(optimizer.beta1 >= 0 && optimizer.beta1 < 1, "beta1", "0 to below 1",
               optimizer.beta1);
  rules.expect(optimizer.beta2 >= 0 && optimizer.beta2 < 1, "beta2", "0 to below 1",
               optimizer.beta2);
  rules.positive("eps", optimizer.eps);
  rules.at_least("weight_decay", optimizer.weight_decay, 0.0);
  rules.at_least("clip_norm", optimizer.clip_norm, 0.0);
  check_schedule(optimizer.schedule, rules.below("schedule"));
}

// batch_size, micro_batch_size and optimizer, which every stage has.
template <class Stage>
void check_batches(const Stage& stage, const Rules& rules) {
  rules.at_least<int64_t>("batch_size", stage.batch_size, 1);
  rules.at_least<int64_t>("micro_batch_size", stage.micro_batch_size, 0);
  if (stage.micro_batch_size > 0 && rules.readable("micro_batch_size")) {
    rules.expect(stage.batch_size % stage.micro_batch_size == 0, "batch_size",
                 str("a multiple of micro_batch_size, which is ", stage.micro_batch_size),
                 stage.batch_size);
  }
  check_optimizer(stage.optimizer, rules.below("optimizer"));
}

// Two weights, of which one must count.
void check_weights(const Rules& rules, const std::pair<const char*, double>& first,
                   const std::pair<const char*, double>& second) {
  rules.at_least(first.first, first.second, 0.0);
  rules.at_least(second.first, second.second, 0.0);
  if (first.second == 0 && second.second == 0) {
    rules.fail(first.first, str("expected more than 0 here or in ", second.first, ", got 0"));
  }
}

void check_ild(const Recipe& recipe, const Rules& rules) {
  const auto& ild = *recipe.stages.ild;
  rules.at_least("tokens", ild.tokens, 0.0);
  check_batches(ild, rules);
  check_weights(rules, {"hidden_weight", ild.hidden_weight}, {"mixer_weight", ild.mixer_weight});
}

void check_distill(const Recipe& recipe, const Rules& rules) {
  const auto& distill = *recipe.stages.distill;
  rules.at_least("tokens", distill.tokens, 0.0);
  check_batches(distill, rules);
  check_weights(rules, {"kl_weight", distill.kl_weight}, {"ce_weight", distill.ce_weight});
  rules.positive("kl.temperature", distill.kl.temperature);
  rules.at_least<int64_t>("kl.chunk_tokens", distill.kl.chunk_tokens, 1);
}

void check_paths(const std::vector<std::string>& paths, const std::string& key,
                 const Rules& rules) {
  for (size_t i = 0; i < paths.size(); ++i) {
    rules.filled(join_key(key, std::to_string(i)), paths[i]);
  }
}

void check_dpo(const Recipe& recipe, const Rules& rules) {
  const auto& dpo = *recipe.stages.dpo;
  rules.positive("epochs", dpo.epochs);
  check_batches(dpo, rules);
  rules.positive("beta", dpo.beta);
  if (dpo.train.empty()) rules.fail("train", "expected at least one file of pairs, got none");
  check_paths(dpo.train, "train", rules);
  check_paths(dpo.validation, "validation", rules);
  rules.at_least<int64_t>("max_length", dpo.max_length, 2);
  rules.at_least<int64_t>("max_prompt_length", dpo.max_prompt_length, 1);
  if (!rules.readable("max_length")) return;
  rules.expect(dpo.max_prompt_length < dpo.max_length, "max_prompt_length",
               str("less than max_length, which is ", dpo.max_length), dpo.max_prompt_length);
}

// What a stage needs elsewhere in the recipe.
void check_needs(const Recipe& recipe, const Rules& rules) {
  const auto converts = [&](const std::string& stage, bool wanted) {
    if (!wanted) return;
    if (!recipe.base) rules.fail(stage, "the stage needs base.model, which is missing");
    if (!recipe.hybrid) rules.fail(stage, "the stage needs hybrid, which is missing");
  };
  const auto& stages = recipe.stages;
  converts("stages.ild", stages.ild.has_value());
  converts("stages.distill", stages.distill.has_value());
  converts("stages.dpo", stages.dpo.has_value());
  if (stages.pretrain && !recipe.new_model) {
    rules.fail("stages.pretrain", "the stage needs new_model, which is missing");
  }
  if (recipe.new_model && !stages.pretrain) {
    rules.fail("new_model", "needs stages.pretrain, which is missing");
  }
  if (recipe.hybrid && recipe.hybrid->smart_count && !(stages.ild && recipe.base)) {
    rules.fail("hybrid.mla_layers", "select: smart needs stages.ild, which is missing");
  }
}

void check_models(const Recipe& recipe, const Rules& rules) {
  if (recipe.base && recipe.new_model) {
    rules.fail("new_model", "expected either base or new_model, got both");
  }
  if (!recipe.base && !recipe.new_model) {
    rules.fail("base", "the key is missing (or new_model, for a model from random weights)");
  }
  if (recipe.base) {
    rules.filled("base.model", recipe.base->model);
    if (!recipe.hybrid) rules.fail("hybrid", "the key is missing: base is to become a hybrid");
  }
  if (recipe.teacher) rules.filled("teacher.model", recipe.teacher->model);
}

void check_new_model(const NewModelRecipe& model, const Rules& rules) {
  rules.at_least<int64_t>("vocab_size", model.vocab_size, 0);
  const std::pair<const char*, int64_t> sizes[] = {{"hidden_size", model.hidden_size},
                                                   {"intermediate_size", model.intermediate_size},
                                                   {"num_layers", model.num_layers},
                                                   {"num_kv_heads", model.num_kv_heads}};
  for (const auto& size : sizes) rules.at_least<int64_t>(size.first, size.second, 1);
  if (rules.readable("num_kv_heads")) {
    rules.multiple("num_heads", model.num_heads, model.num_kv_heads);
  }
  rules.multiple("head_dim", model.head_dim, 2);
  rules.at_least<int64_t>("max_position_embeddings", model.max_position_embeddings, 1);
  rules.positive("rope_theta", model.rope_theta);
  rules.positive("initializer_range", model.initializer_range);
  rules.filled("tokenizer", model.tokenizer);
}

void check_layers(const std::vector<int64_t>& layers, const std::string& key, const Rules& rules) {
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto entry = join_key(key, std::to_string(i));
    rules.at_least<int64_t>(entry, layers[i], 0);
    if (i == 0) continue;
    rules.expect(layers[i] > layers[i - 1], entry,
                 str("ascending layers without repeats, hence more than ", layers[i - 1]),
                 layers[i]);
  }
}

void check_depth(const Recipe& recipe, const std::vector<int64_t>& layers, const std::string& key,
                 const Rules& rules) {
  if (!recipe.new_model) return;  // the depth of a base is known when it is loaded
  const int64_t depth = recipe.new_model->num_layers;
  for (size_t i = 0; i < layers.size(); ++i) {
    rules.expect(layers[i] < depth, join_key(key, std::to_string(i)),
                 str("less than new_model.num_layers, which is ", depth), layers[i]);
  }
}

void check_layer_choice(const Recipe& recipe, const Rules& rules) {
  const auto& hybrid = *recipe.hybrid;
  check_layers(hybrid.mla_layers, "mla_layers", rules);
  check_layers(hybrid.attention_layers, "attention_layers", rules);
  check_depth(recipe, hybrid.mla_layers, "mla_layers", rules);
  check_depth(recipe, hybrid.attention_layers, "attention_layers", rules);
  for (const int64_t layer : hybrid.attention_layers) {
    const auto& mla = hybrid.mla_layers;
    if (std::find(mla.begin(), mla.end(), layer) == mla.end()) continue;
    rules.fail("attention_layers", str("layer ", layer, " stands in mla_layers as well"));
  }
  if (!hybrid.smart_count) return;
  rules.at_least<int64_t>("mla_layers.count", *hybrid.smart_count, 1);
  rules.at_least<int64_t>("smart_sequences", hybrid.smart_sequences, 1);
  if (hybrid.attention_layers.empty()) return;
  rules.fail("attention_layers",
             "expected none with mla_layers {select: smart}, which may pick any");
}

void check_mla(const MlaRecipe& mla, const Rules& rules) {
  rules.at_least<int64_t>("rank_divisor", mla.rank_divisor, 1);
  if (rules.readable("rank_divisor")) {
    rules.multiple("q_lora_rank", mla.q_lora_rank, mla.rank_divisor);
    rules.multiple("kv_lora_rank", mla.kv_lora_rank, mla.rank_divisor);
  }
  rules.at_least<int64_t>("qk_nope_head_dim", mla.qk_nope_head_dim, 0);
  rules.multiple("qk_rope_head_dim", mla.qk_rope_head_dim, 2);
  rules.at_least<int64_t>("v_head_dim", mla.v_head_dim, 1);
  rules.expect(mla.rope == "yarn" || mla.rope == "default", "rope", "yarn or default", mla.rope);
  rules.at_least("rope_factor", mla.rope_factor, 1.0);
  rules.at_least<int64_t>("rope_original_max_position", mla.rope_original_max_position, 0);
  const auto energy = [&](const char* key, const std::optional<double>& value) {
    if (value) rules.expect(*value > 0 && *value <= 1, key, "more than 0, at most 1", *value);
  };
  energy("q_energy", mla.q_energy);
  energy("kv_energy", mla.kv_energy);
}

void check_sources(const std::vector<DataSource>& sources, const std::string& key,
                   const Rules& rules) {
  if (sources.empty()) rules.fail(key, "expected at least one source, got none");
  for (size_t i = 0; i < sources.size(); ++i) {
    rules.filled(join_key(key, std::to_string(i)) + ".path", sources[i].path);
  }
}

// Weights stand at every source of a mixture or at none.
void check_mixture(const std::vector<DataSource>& sources, const Rules& rules) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto at = rules.below("train." + std::to_string(i));
    at.positive("epochs", sources[i].epochs);
    if (sources[i].weight) at.positive("weight", *sources[i].weight);
    if (sources[i].weight.has_value() == sources[0].weight.has_value()) continue;
    at.fail("weight", "expected a weight at every source or at none");
  }
}

void check_validation(const DataRecipe& data, const Rules& rules) {
  const double split = data.validation_split;
  rules.expect(split >= 0 && split < 1, "validation_split", "0 to below 1", split);
  if (split > 0 && !data.validation.empty()) {
    rules.fail("validation_split", "expected either this or validation, got both");
  } else if (split == 0 && data.validation.empty() && !rules.placed("validation")) {
    rules.fail("validation", "the key is missing (or validation_split)");
  } else if (split == 0) {
    check_sources(data.validation, "validation", rules);
  }
  for (size_t i = 0; i < data.validation.size(); ++i) {
    const auto at = rules.below("validation." + std::to_string(i));
    if (data.validation[i].weight) at.fail("weight", "held-out text is not mixed");
    if (data.validation[i].epochs != 1) at.fail("epochs", "held-out text is not mixed");
  }
}

void check_data(const DataRecipe& data, const Rules& rules) {
  rules.at_least<int64_t>("sequence_length", data.sequence_length, 2);
  rules.at_least<int64_t>("packing_window", data.packing_window, 1);
  if (data.recut && data.packing != Packing::kConcat) {
    rules.fail("recut", str("expected packing concat, got ", enum_name(data.packing)));
  }
  if (data.packing == Packing::kBestFit && data.bos == BosPlacement::kSequence) {
    rules.fail("bos", "expected document or none with packing best_fit, got sequence");
  }
  auto names = ChatTemplate::names();
  names.insert(names.begin(), "auto");
  if (std::find(names.begin(), names.end(), data.chat_template) == names.end()) {
    std::string known;
    for (const auto& name : names) known += (known.empty() ? "" : ", ") + name;
    rules.fail("chat_template", str("expected one of ", known, ", got ", data.chat_template));
  }
  check_sources(data.train, "train", rules);
  check_mixture(data.train, rules);
  check_validation(data, rules);
}

bool is_device(const std::string& name) {
  if (name == "cpu" || name == "cuda") return true;
  if (!name.starts_with("cuda:")) return false;
  int index = 0;
  const char* begin = name.data() + 5;
  const char* end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, index);
  return error == std::errc() && stop == end && index >= 0;
}

void check_running(const Recipe& recipe, const Rules& rules) {
  const auto checkpoint = rules.below("checkpoint");
  checkpoint.at_least<int64_t>("every_steps", recipe.checkpoint.every_steps, 0);
  checkpoint.at_least("every_minutes", recipe.checkpoint.every_minutes, 0.0);
  checkpoint.at_least<int64_t>("keep", recipe.checkpoint.keep, 1);
  checkpoint.at_least<int64_t>("keep_every", recipe.checkpoint.keep_every, 0);
  if (recipe.checkpoint.every_steps == 0 && recipe.checkpoint.every_minutes == 0) {
    checkpoint.fail("every_steps", "expected more than 0 here or in every_minutes, got 0");
  }
  const auto health = rules.below("health");
  health.at_least("hang_timeout_minutes", recipe.health.hang_timeout_minutes, 0.0);
  health.at_least("heartbeat_seconds", recipe.health.heartbeat_seconds, 0.0);
  health.at_least<int64_t>("replay_every", recipe.health.replay_every, 0);
  health.at_least<int64_t>("compare_weights_every", recipe.health.compare_weights_every, 0);
  health.at_least<int64_t>("slow_ranks_every", recipe.health.slow_ranks_every, 0);
  rules.at_least<int64_t>("metrics.trace_step", recipe.metrics.trace_step, 0);
  rules.at_least("metrics.peak_tflops", recipe.metrics.peak_tflops, 0.0);
  rules.at_least("time_limit_minutes", recipe.time_limit_minutes, 0.0);
}

void check_machine(const Recipe& recipe, const Rules& rules) {
  rules.expect(is_device(recipe.device), "device", "cpu, cuda or cuda:N", recipe.device);
  rules.expect(recipe.dtype == "fp32" || recipe.dtype == "bf16" || recipe.dtype == "fp64", "dtype",
               "fp32, bf16 or fp64", recipe.dtype);
  rules.at_least<int64_t>("threads", recipe.threads, 0);
}

void check_parallel(const ParallelRecipe& parallel, const Rules& rules) {
  rules.at_least<int64_t>("timeout_seconds", parallel.timeout_seconds, 1);
  rules.at_least<int64_t>("max_restarts", parallel.max_restarts, 0);
  if (parallel.offload_inputs && parallel.recompute == Recompute::kNone) {
    rules.fail("offload_inputs", "expected recompute smart or full, got none");
  }
}

void check_stability(const StabilityRecipe& stability, const Rules& rules) {
  rules.at_least<int64_t>("max_skips_in_row", stability.max_skips_in_row, 0);
  rules.at_least("spike_zscore", stability.spike_zscore, 0.0);
  rules.at_least<int64_t>("spike_window", stability.spike_window, 8);
}

void check_stages(const Recipe& recipe, const Rules& rules) {
  const auto stages = rules.below("stages");
  if (recipe.stages.pretrain) {
    stages.below("pretrain").at_least("tokens", recipe.stages.pretrain->tokens, 0.0);
    check_batches(*recipe.stages.pretrain, stages.below("pretrain"));
  }
  if (recipe.stages.ild) check_ild(recipe, stages.below("ild"));
  if (recipe.stages.distill) check_distill(recipe, stages.below("distill"));
  if (recipe.stages.dpo) check_dpo(recipe, stages.below("dpo"));
}

void check_tasks(const EvalRecipe& eval, const Rules& rules) {
  static const std::vector<std::string> models = {"all",      "base",    "init", "ild",
                                                  "composed", "distill", "dpo"};
  for (size_t i = 0; i < eval.at.size(); ++i) {
    const bool known = std::find(models.begin(), models.end(), eval.at[i]) != models.end();
    rules.expect(known, join_key("at", std::to_string(i)),
                 "all, base, init, ild, composed, distill or dpo", eval.at[i]);
  }
  const auto names = task_names();
  for (size_t i = 0; i < eval.tasks.size(); ++i) {
    const auto& task = eval.tasks[i];
    const bool known = task.ends_with(".yaml") || task.ends_with(".yml") ||
                       std::find(names.begin(), names.end(), task) != names.end();
    const auto nearest = nearest_name(task, names);
    const auto hint = nearest.empty() ? "" : str(" (did you mean ", nearest, "?)");
    rules.expect(known, join_key("tasks", std::to_string(i)), "a known task or a YAML file",
                 task + hint);
  }
  if (eval.fewshot) rules.at_least<int64_t>("fewshot", *eval.fewshot, 0);
  rules.at_least<int64_t>("limit", eval.limit, 0);
  rules.at_least<int64_t>("max_length", eval.max_length, 0);
  for (size_t i = 0; i < eval.published.size(); ++i) {
    const auto& task = eval.published[i].task;
    rules.expect(std::find(eval.tasks.begin(), eval.tasks.end(), task) != eval.tasks.end(),
                 join_key("published", std::to_string(i)) + ".task", "one of eval.tasks", task);
  }
}

// A base on disk is asked when the run begins.
void check_positions(const Recipe& recipe, const Rules& rules) {
  if (!recipe.new_model || !rules.readable("new_model.max_position_embeddings")) return;
  const int64_t T = recipe.data.sequence_length, most = recipe.new_model->max_position_embeddings;
  rules.expect(T <= most, "data.sequence_length",
               str("at most new_model.max_position_embeddings, which is ", most), T);
}

}  // namespace

void check_rules(const Recipe& recipe, RecipeNotes& notes) {
  const Rules rules(notes, "");
  rules.filled("name", recipe.name);
  rules.filled("output", recipe.output);
  rules.at_least<int64_t>("seed", recipe.seed, 0);
  check_models(recipe, rules);
  if (recipe.new_model) check_new_model(*recipe.new_model, rules.below("new_model"));
  if (recipe.hybrid) {
    check_layer_choice(recipe, rules.below("hybrid"));
    check_mla(recipe.hybrid->mla, rules.below("hybrid.mla"));
    const auto mamba2 = rules.below("hybrid.mamba2");
    mamba2.at_least<int64_t>("d_conv", recipe.hybrid->mamba2.d_conv, 1);
    mamba2.at_least<int64_t>("chunk_size", recipe.hybrid->mamba2.chunk_size, 1);
  }
  rules.at_least<int64_t>("init.calibration_sequences", recipe.init.calibration_sequences, 0);
  check_data(recipe.data, rules.below("data"));
  check_positions(recipe, rules);
  check_stages(recipe, rules);
  check_needs(recipe, rules);
  rules.at_least<int64_t>("eval.max_sequences", recipe.eval.max_sequences, 0);
  rules.at_least<int64_t>("eval.batch_size", recipe.eval.batch_size, 1);
  check_tasks(recipe.eval, rules.below("eval"));
  check_running(recipe, rules);
  check_parallel(recipe.parallel, rules.below("parallel"));
  check_stability(recipe.stability, rules.below("stability"));
  check_machine(recipe, rules);
}

}  // namespace zebra
