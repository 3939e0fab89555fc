#include "train/job.h"

#include <glob.h>

#include <algorithm>

#include "base/hash.h"
#include "base/log.h"
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
  return at::Device(name);
}

at::ScalarType parse_dtype(const std::string& name) {
  if (name == "fp32") return at::kFloat;
  if (name == "bf16") return at::kBFloat16;
  if (name == "fp16") return at::kHalf;
  throw ConfigError(str("dtype: expected fp32, bf16 or fp16, got ", name));
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

void Job::prepare(bool replace) {
  Prepared all;
  all.plans = plan_data(recipe, root_, tokenizer());
  const PrepareOptions options{.cache = data_cache(recipe, root_),
                               .replace = replace && recipe.data.cache.empty()};
  Hasher hasher;
  const auto add = [&](const std::vector<PreparePlan>& plans,
                       std::vector<std::shared_ptr<const TokenStore>>& stores) {
    for (const auto& plan : plans) {
      const auto source = zebra::prepare(plan, tokenizer(), options);
      stores.push_back(source.store);
      hasher.add(source.text_hash);
      if (source.seconds == 0) continue;
      log_info(str("prepared ", plan.source.path, ": ", source.documents, " documents, ",
                   source.tokens, " tokens, ", source.bad_records, " bad lines left out"));
    }
  };
  add(all.plans.train, all.train);
  add(all.plans.validation, all.validation);
  add(all.plans.pairs, all.pairs);
  add(all.plans.held_out_pairs, all.held_out_pairs);
  all.hash = hasher.value();
  prepared_ = std::move(all);
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

PreferenceDataset Job::preferences(const std::vector<std::shared_ptr<const TokenStore>>& stores) {
  const auto& stage = *recipe.stages.dpo;
  return {stores,
          tokenizer(),
          {.max_length = stage.max_length, .max_prompt_length = stage.max_prompt_length}};
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
  if (!group.leads()) return;
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
  if (!recipe.teacher || input(recipe.teacher->model) == base_folder()) return base();
  if (teacher_.is_empty()) {
    const auto path = input(recipe.teacher->model);
    const int64_t wanted = base()->options().vocab_size;
    const int64_t got = read_model_options(path).vocab_size;
    if (got != wanted) {
      throw ConfigError(str("teacher ", path.string(), ": vocabulary: expected ", wanted,
                            " entries as in the base, got ", got));
    }
    teacher_ = load(path);
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

std::vector<MixerKind> Job::pure_layers(MixerKind kind) {
  const int64_t L = base()->options().num_layers();
  std::vector<MixerKind> layers(L, kind);
  for (const int64_t i : recipe.hybrid->attention_layers) {
    if (i >= L)
      throw ConfigError(str("hybrid.attention_layers: the base has ", L, " layers, got ", i));
    layers[i] = MixerKind::kAttention;
  }
  return layers;
}

std::vector<MixerKind> Job::hybrid_layers(const std::vector<int64_t>& mla_layers) {
  auto layers = pure_layers(MixerKind::kMamba2);
  for (const int64_t i : mla_layers) {
    if (i >= static_cast<int64_t>(layers.size())) {
      throw ConfigError(str("hybrid.mla_layers: the base has ", layers.size(), " layers, got ", i));
    }
    layers[i] = MixerKind::kMla;
  }
  return layers;
}

bool Job::needs_student(MixerKind kind) {
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

void add_model(Hasher& hasher, const fs::path& folder) {
  std::vector<fs::path> files;
  if (fs::is_directory(folder)) {
    for (const auto& entry : fs::directory_iterator(folder)) files.push_back(entry.path());
  } else {
    files.push_back(folder);
  }
  std::sort(files.begin(), files.end());
  for (const auto& file : files) add_file(hasher, file);
}

}  // namespace

uint64_t Job::inputs_hash() {
  Hasher hasher;
  if (recipe.base) add_model(hasher, input(recipe.base->model));
  if (recipe.teacher) add_model(hasher, input(recipe.teacher->model));
  if (recipe.new_model) add_model(hasher, input(recipe.new_model->tokenizer));
  hasher.add(prepared().hash);
  if (!recipe.eval.choices.empty()) {
    for (const auto& path : matching(input(recipe.eval.choices))) add_file(hasher, path);
  }
  return hasher.value();
}

uint64_t Job::with_task_files(uint64_t key) const {
  if (recipe.eval.tasks.empty()) return key;
  std::vector<fs::path> files;
  for (const auto& task : recipe.eval.tasks) {
    if (fs::is_regular_file(input(task))) files.push_back(input(task));
  }
  const auto data = input(recipe.eval.data);
  if (!recipe.eval.data.empty() && fs::is_directory(data)) {
    for (const auto& entry : fs::recursive_directory_iterator(data)) {
      if (entry.path().extension() == ".jsonl") files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  Hasher hasher;
  hasher.add(key);
  for (const auto& file : files) add_file(hasher, file);
  return hasher.value();
}

}  // namespace zebra
