#include "train/job.h"

#include <glob.h>

#include <algorithm>

#include "base/hash.h"
#include "base/log.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/selection.h"
#include "init/mixers.h"
#include "train/block_runner.h"
#include "zebra/convert.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

at::Device parse_device(const std::string& name) {
  if (name == "cpu") return at::kCPU;
  if (name != "cuda" && name.rfind("cuda:", 0) != 0) {
    throw ConfigError(str("device: expected cpu, cuda or cuda:N, got ", name));
  }
  if (!torch::cuda::is_available()) {
    throw ConfigError(str("device: ", name, " was asked for, but no CUDA device can be used here"));
  }
  const at::Device device(name);
  if (device.has_index()) return device;
  // The one that "cuda" means, by its number, which the allocator wants of who asks for its
  // figures.
  return c10::impl::VirtualGuardImpl(device.type()).getDevice();
}

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "fp64") return at::kDouble;
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  if (name == "fp16") return at::kHalf;
  throw ConfigError(str("dtype: expected fp32, bf16, fp16 or fp64, got ", name));
}

at::Device device_of_rank(const std::string& name, const RankInfo& rank) {
  if (name != "cuda" || rank.world == 1) return parse_device(name);
  const auto device = parse_device(str("cuda:", rank.local_rank));
  const auto count = static_cast<int64_t>(torch::cuda::device_count());
  if (rank.local_rank >= count) {
    throw ConfigError(str("device: expected a GPU for each rank of this machine, got ", count,
                          " for ", rank.local_world));
  }
  c10::impl::VirtualGuardImpl(device.type()).setDevice(device);  // what "the" GPU means from now on
  return device;
}

Job::Job(const Recipe& recipe, const fs::path& root, std::unique_ptr<RunFolder> run_folder,
         Group& group)
    : recipe(recipe),
      group(group),
      folder(*run_folder),
      device(device_of_rank(recipe.device, group.info())),
      dtype(parse_dtype(recipe.dtype)),
      metrics(group.leads() ? folder.metrics() : "/dev/null"),
      ranks{.rank = group.rank(), .world = group.size(), .exchange = group.open_channel("steps")},
      saver_ranks{
          .rank = group.rank(), .world = group.size(), .exchange = group.open_channel("saver")},
      folder_(std::move(run_folder)),
      root_(root) {}

fs::path Job::input(const std::string& path) const {
  return fs::path(path).is_absolute() ? fs::path(path) : root_ / path;
}

fs::path Job::base_folder() const {
  return recipe.base ? input(recipe.base->model) : folder.stage("pretrain");
}

const Tokenizer& Job::tokenizer() {
  if (!tokenizer_) tokenizer_ = load_tokenizer(tokenizer_path(recipe, root_));
  return *tokenizer_;
}

bool Job::has_teacher() const {
  return recipe.teacher && input(recipe.teacher->model) != base_folder();
}

void Job::check_teacher() {
  if (!recipe.teacher) return;
  const auto path = input(recipe.teacher->model);
  const int64_t wanted =
      recipe.base ? read_model_options(base_folder()).vocab_size : tokenizer().vocab_size();
  const int64_t got = read_model_options(path).vocab_size;
  if (got == wanted) return;
  throw ConfigError(str("teacher ", path.string(), ": vocabulary: expected ", wanted,
                        " entries as in the base, got ", got));
}

ModelOptions Job::base_options() const {
  return base_.is_empty() ? read_model_options(base_folder()) : base_->options();
}

void Job::check_base() const {
  if (!recipe.base) return;
  const auto base = base_options();
  const int64_t T = recipe.data.sequence_length, most = base.max_position_embeddings;
  if (T > most) {
    throw ConfigError(
        str("data.sequence_length: expected at most the base's ", most, " positions, got ", T));
  }
  if (!recipe.hybrid) return;
  auto options = hybrid_shape(base, *recipe.hybrid);
  options.layers = hybrid_layers(recipe.hybrid->mla_layers);
  const auto& shape = recipe.hybrid->mla;
  if (shape.q_energy || shape.kv_energy) return;  // its ranks come from the base's weights
  options.validate();
  if (recipe.init.mla != InitOptions::Mla::kSvd || !needs_student(MixerKind::kMla)) return;
  try {
    check_mla(options.mla, base.head_dim, base.num_kv_heads);
  } catch (const ConfigError& error) {
    throw ConfigError(str("hybrid.", error.what()));
  }
}

std::vector<std::string> Job::eval_tasks() const {
  std::vector<std::string> tasks;
  for (const auto& task : recipe.eval.tasks) {
    const bool file = task.ends_with(".yaml") || task.ends_with(".yml");
    tasks.push_back(file ? input(task).string() : task);
  }
  return tasks;
}

std::string Job::eval_data() const {
  return input(recipe.eval.data.empty() ? "." : recipe.eval.data).string();
}

void Job::check_eval() const {
  if (!recipe.eval.choices.empty()) read_multiple_choice(input(recipe.eval.choices).string());
  if (recipe.eval.tasks.empty()) return;
  for (const auto& task : select_tasks(eval_tasks()).tasks) {
    read_rows(task, eval_data(), task.eval_split(), /*limit=*/1);
    const bool has_examples = task.kind != TaskKind::kRolling && task.shots != 0;
    if (has_examples && recipe.eval.fewshot.value_or(task.shots.value_or(0)) > 0) {
      read_rows(task, eval_data(), task.fewshot_pool(), /*limit=*/1);
    }
  }
}

void Job::prepare(bool replace) {
  check_teacher();
  check_base();
  check_eval();
  Prepared all;
  all.plans = plan_data(recipe, root_, tokenizer());
  const PrepareOptions options{.cache = data_cache(recipe, root_),
                               .replace = replace && recipe.data.cache.empty()};
  const auto add = [&](const std::vector<PreparePlan>& plans,
                       std::vector<std::shared_ptr<const TokenStore>>& stores) {
    Hasher hasher;
    for (const auto& plan : plans) {
      const auto source = zebra::prepare(plan, tokenizer(), options);
      stores.push_back(source.store);
      hasher.add(source.text_hash);
      if (source.seconds == 0) continue;
      log_info(str("prepared ", plan.source.path, ": ", source.documents, " documents, ",
                   source.tokens, " tokens, ", source.bad_records, " bad lines left out"));
    }
    return hasher.value();
  };
  all.train_hash = add(all.plans.train, all.train);
  all.validation_hash = add(all.plans.validation, all.validation);
  all.pairs_hash = add(all.plans.pairs, all.pairs);
  all.held_out_pairs_hash = add(all.plans.held_out_pairs, all.held_out_pairs);
  prepared_ = std::move(all);
  if (!group.leads()) return;  // what is too short, one rank tells for all
  train_data();
  validation_data();
  if (recipe.stages.dpo) train_pairs();
}

const Job::Prepared& Job::prepared() {
  if (!prepared_) prepare(/*replace=*/false);
  return *prepared_;
}

const TokenDataset& Job::train_data() {
  if (!train_) {
    const auto& all = prepared();
    train_ = std::make_unique<TokenDataset>(sources_of(all.plans.train), all.train, tokenizer(),
                                            train_options(recipe.data));
    const auto report = train_->packing();
    log_info(str("training text: ", train_->size(), " sequences of ", recipe.data.sequence_length,
                 " tokens; ", report.truncated, " documents truncated"));
  }
  return *train_;
}

const TokenDataset& Job::validation_data() {
  if (!validation_) {
    const auto& all = prepared();
    validation_ = std::make_unique<TokenDataset>(sources_of(all.plans.validation), all.validation,
                                                 tokenizer(), validation_options(recipe.data));
  }
  return *validation_;
}

namespace {

// A max_length beyond the base's positions is no mistake while all pairs are short.
void check_lengths(const PreferenceDataset& pairs, int64_t max_length, int64_t positions) {
  if (max_length <= positions) return;
  for (int64_t i = 0; i < pairs.size(); ++i) {
    const auto pair = pairs.pair(i);
    const auto tokens = static_cast<int64_t>(pair.prompt.size() +
                                             std::max(pair.chosen.size(), pair.rejected.size()));
    if (tokens <= positions) continue;
    throw ConfigError(str("stages.dpo.max_length: expected at most the base's ", positions,
                          " positions, as pair ", i + 1, " has ", tokens, " tokens, got ",
                          max_length));
  }
}

}  // namespace

PreferenceDataset Job::preferences(const std::vector<std::shared_ptr<const TokenStore>>& stores) {
  const auto& stage = *recipe.stages.dpo;
  PreferenceDataset pairs(
      stores, tokenizer(),
      {.max_length = stage.max_length, .max_prompt_length = stage.max_prompt_length});
  if (recipe.base) check_lengths(pairs, stage.max_length, base_options().max_position_embeddings);
  return pairs;
}

PreferenceDataset Job::train_pairs() { return preferences(prepared().pairs); }

PreferenceDataset Job::held_out_pairs() { return preferences(prepared().held_out_pairs); }

namespace {

void freeze(CausalLm& model) {
  for (auto& parameter : model->parameters()) parameter.set_requires_grad(false);
  model->eval();
}

}  // namespace

CausalLm Job::load(const fs::path& model_folder) const {
  auto model = load_model(model_folder, {.dtype = dtype, .device = device});
  return model;
}

fs::path Job::tokenizer_source() const {
  return recipe.new_model ? input(recipe.new_model->tokenizer) : input(recipe.base->model);
}

void Job::save(const fs::path& model_folder, const CausalLm& model) const {
  save_model(model_folder, model, {.dtype = dtype, .tokenizer_from = tokenizer_source()});
}

void Job::share_frozen(CausalLm model) {
  if (recipe.parallel.teacher_sharding == TeacherSharding::kNone || group.size() == 1) return;
  share_frozen_blocks(model, group);
  shares_frozen_ = true;
}

void Job::forget_shared() {
  if (!shares_frozen_) return;
  base_ = teacher_ = CausalLm(nullptr);
  shares_frozen_ = false;
}

std::vector<CausalLm> Job::frozen_models() const {
  std::vector<CausalLm> models;
  for (const auto& model : {base_, teacher_}) {
    if (!model.is_empty()) models.push_back(model);
  }
  return models;
}

fs::path Job::trace_file(const std::string& stage, int64_t step) const {
  return folder.traces() / str(stage, "-step-", step, ".rank-", ranks.rank, ".json");
}

void Job::doing(const std::string& what) {
  if (watchdog) watchdog->doing(what);
}

CausalLm Job::base() {
  if (base_.is_empty()) {
    base_ = load(base_folder());
    freeze(base_);
    if (base_->options().vocab_size < tokenizer().vocab_size()) {
      throw ConfigError(str(base_folder().string(), ": the model's vocabulary has ",
                            base_->options().vocab_size, " entries, its tokenizer ",
                            tokenizer().vocab_size()));
    }
  }
  return base_;
}

CausalLm Job::teacher() {
  if (!has_teacher()) return base();
  if (teacher_.is_empty()) {
    check_teacher();
    teacher_ = load(input(recipe.teacher->model));
    freeze(teacher_);
  }
  return teacher_;
}

ModelOptions hybrid_shape(const ModelOptions& base, const HybridRecipe& hybrid) {
  ModelOptions options = base;
  const auto& shape = hybrid.mla;
  RopeOptions rope{.theta = base.rope.theta};
  if (shape.rope == "yarn") {
    rope.scaling = RopeScaling::kYarn;
    rope.factor = shape.rope_factor;
    const bool scaled = base.rope.scaling != RopeScaling::kDefault;
    rope.original_max_position_embeddings = shape.rope_original_max_position > 0
                                                ? shape.rope_original_max_position
                                            : scaled ? base.rope.original_max_position_embeddings
                                                     : base.max_position_embeddings;
  }
  options.mla = {.hidden_size = base.hidden_size,
                 .num_heads = base.num_heads,
                 .num_kv_heads = shape.full_kv_heads ? base.num_heads : base.num_kv_heads,
                 .q_lora_rank = shape.q_lora_rank,
                 .kv_lora_rank = shape.kv_lora_rank,
                 .qk_nope_head_dim = shape.qk_nope_head_dim,
                 .qk_rope_head_dim = shape.qk_rope_head_dim,
                 .v_head_dim = shape.v_head_dim,
                 .latent_norm = shape.latent_norm,
                 .bias = base.attention_bias,
                 .rank_divisor = shape.rank_divisor,
                 .rope = rope};
  options.mamba2 = {.hidden_size = base.hidden_size,
                    .num_heads = base.num_heads,
                    .num_kv_heads = base.num_kv_heads,
                    .head_dim = base.head_dim,
                    .d_conv = hybrid.mamba2.d_conv,
                    .chunk_size = hybrid.mamba2.chunk_size,
                    .repeat_kv_before_conv = hybrid.mamba2.repeat_kv_before_conv};
  return options;
}

ModelOptions Job::hybrid_options(const std::vector<MixerKind>& layers) {
  auto options = hybrid_shape(base()->options(), *recipe.hybrid);
  options.layers = layers;
  const auto& shape = recipe.hybrid->mla;
  if (shape.q_energy || shape.kv_energy) {
    options.mla_ranks = energy_ranks(base(), options.mla,
                                     {.q_energy = shape.q_energy,
                                      .kv_energy = shape.kv_energy,
                                      .fixed_ends = shape.fixed_ranks_at_ends});
  }
  options.validate();
  return options;
}

std::vector<MixerKind> Job::pure_layers(MixerKind kind) const {
  const int64_t L = base_options().num_layers();
  std::vector<MixerKind> layers(L, kind);
  for (const int64_t i : recipe.hybrid->attention_layers) {
    if (i >= L)
      throw ConfigError(str("hybrid.attention_layers: the base has ", L, " layers, got ", i));
    layers[i] = MixerKind::kAttention;
  }
  return layers;
}

std::vector<MixerKind> Job::hybrid_layers(const std::vector<int64_t>& mla_layers) const {
  auto layers = pure_layers(MixerKind::kMamba2);
  for (const int64_t i : mla_layers) {
    if (i >= static_cast<int64_t>(layers.size())) {
      throw ConfigError(str("hybrid.mla_layers: the base has ", layers.size(), " layers, got ", i));
    }
    layers[i] = MixerKind::kMla;
  }
  return layers;
}

bool Job::needs_student(MixerKind kind) const {
  if (recipe.hybrid->smart_count) return true;
  const auto layers = hybrid_layers(recipe.hybrid->mla_layers);
  return std::find(layers.begin(), layers.end(), kind) != layers.end();
}

namespace {

std::vector<fs::path> matching(const fs::path& pattern) {
  glob_t found{};
  std::vector<fs::path> paths;
  if (::glob(pattern.c_str(), 0, nullptr, &found) == 0) {
    paths.assign(found.gl_pathv, found.gl_pathv + found.gl_pathc);
  }
  ::globfree(&found);
  return paths;
}

void add_file(Hasher& hasher, const fs::path& path) {
  hasher.add(path.filename().string());
  if (fs::is_regular_file(path)) hasher.add(hash_file(path));
}

// Of a folder what models and tokenizers are read from, whatever else lies beside it.
void add_model(Hasher& hasher, const fs::path& path) {
  if (!fs::is_directory(path)) return add_file(hasher, path);
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    const auto kind = entry.path().extension();
    const bool read =
        kind == ".safetensors" || kind == ".json" || kind == ".model" || kind == ".jinja";
    if (read) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) add_file(hasher, file);
}

}  // namespace

uint64_t Job::inputs_hash(const std::string& stage) {
  const auto& all = prepared();
  Hasher hasher;
  if (stage == "pretrain") {
    add_model(hasher, input(recipe.new_model->tokenizer));
    hasher.add(all.train_hash);
  } else if (stage == "init") {
    add_model(hasher, input(recipe.base->model));
    hasher.add(all.train_hash);
  } else if (stage == "distill" && has_teacher()) {
    add_model(hasher, input(recipe.teacher->model));
  } else if (stage == "dpo") {
    hasher.add(all.pairs_hash);
  } else if (stage == "eval") {
    hasher.add(all.validation_hash);
    hasher.add(all.held_out_pairs_hash);
    for (const auto& file : eval_files()) add_file(hasher, file);
  }
  return hasher.value();
}

std::vector<fs::path> Job::eval_files() const {
  std::vector<fs::path> files;
  if (!recipe.eval.choices.empty()) files = matching(input(recipe.eval.choices));
  if (recipe.eval.tasks.empty()) return files;
  for (const auto& task : select_tasks(eval_tasks()).tasks) {
    for (const auto& [split, file] : task.files) files.push_back(file);
  }
  for (const auto& task : eval_tasks()) {
    if (fs::is_regular_file(task)) files.push_back(task);
  }
  const auto data = input(recipe.eval.data);
  if (!recipe.eval.data.empty() && fs::is_directory(data)) {
    for (const auto& entry : fs::recursive_directory_iterator(data)) {
      if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace zebra
