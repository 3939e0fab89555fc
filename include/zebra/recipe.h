// One YAML file is one whole job: this is its form. Every key, default and meaning stands in
// `fields`.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "zebra/dataset.h"
#include "zebra/init.h"
#include "zebra/losses.h"
#include "zebra/options.h"
#include "zebra/recipe_running.h"

namespace zebra {

enum class ScheduleKind { kCosine, kLinear, kConstant, kWsd };

template <>
struct EnumNames<ScheduleKind> {
  static constexpr std::array<std::pair<ScheduleKind, std::string_view>, 4> names = {
      {{ScheduleKind::kCosine, "cosine"},
       {ScheduleKind::kLinear, "linear"},
       {ScheduleKind::kConstant, "constant"},
       {ScheduleKind::kWsd, "wsd"}}};
};

struct ScheduleOptions {
  ScheduleKind kind = ScheduleKind::kCosine;
  double warmup_ratio = 0.01;  // share of the steps
  double min_ratio = 0.0;      // of the peak learning rate, at the end
  double decay_ratio = 0.1;    // wsd: share of the steps that decay

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("kind", kind, "cosine, linear, constant or wsd (warm-up, stable, decay).");
    visit("warmup_ratio", warmup_ratio, "Share of the steps with a rising learning rate.");
    visit("min_ratio", min_ratio, "Learning rate at the end, as a share of the peak.");
    visit("decay_ratio", decay_ratio, "wsd: share of the steps at the end that decay.");
  }
};

enum class MomentFormat { kFp32, kBf16, kInt8 };

template <>
struct EnumNames<MomentFormat> {
  static constexpr std::array<std::pair<MomentFormat, std::string_view>, 3> names = {
      {{MomentFormat::kFp32, "fp32"},
       {MomentFormat::kBf16, "bf16"},
       {MomentFormat::kInt8, "int8"}}};
};

// What every training stage has.
struct OptimizerOptions {
  double learning_rate = 2e-4;
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0.0;  // decoupled; never on norms, biases, A_log, D, dt_bias
  double clip_norm = 1.0;     // 0: no clipping
  MomentFormat moments = MomentFormat::kFp32;
  ScheduleOptions schedule;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("learning_rate", learning_rate, "Peak learning rate of AdamW.");
    visit("beta1", beta1, "AdamW: decay of the first moment.");
    visit("beta2", beta2, "AdamW: decay of the second moment.");
    visit("eps", eps, "AdamW: added to the root of the second moment.");
    visit("weight_decay", weight_decay,
          "Decoupled decay; norms, biases, A_log, D and dt_bias are left out.");
    visit("clip_norm", clip_norm, "Global gradient norm limit; 0 switches it off.");
    visit("moments", moments, "AdamW's moments: fp32, bf16 or int8 (codes with a scale a block).");
    visit("schedule", schedule, "Learning rate over the steps.");
  }
};

enum class Normalize {
  kSequence,  // sum over tokens divided by the number of sequences, as published
  kToken,     // mean over tokens
};

template <>
struct EnumNames<Normalize> {
  static constexpr std::array<std::pair<Normalize, std::string_view>, 2> names = {
      {{Normalize::kSequence, "sequence"}, {Normalize::kToken, "token"}}};
};

template <>
struct EnumNames<IldForm> {
  static constexpr std::array<std::pair<IldForm, std::string_view>, 2> names = {
      {{IldForm::kNorm, "norm"}, {IldForm::kMeanSquared, "mean_squared"}}};
};

template <>
struct EnumNames<KlDirection> {
  static constexpr std::array<std::pair<KlDirection, std::string_view>, 3> names = {
      {{KlDirection::kForward, "forward"},
       {KlDirection::kReverse, "reverse"},
       {KlDirection::kJs, "js"}}};
};

struct IldStage {
  double tokens = 0;             // per student; 0: one epoch
  int64_t batch_size = 16;       // sequences of the global batch
  int64_t micro_batch_size = 0;  // sequences in one forward; 0: the whole batch
  OptimizerOptions optimizer;
  IldForm form = IldForm::kNorm;
  double hidden_weight = 1.0, mixer_weight = 1.0;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("tokens", tokens, "Training tokens of each student; 0 means one epoch.");
    visit("batch_size", batch_size, "Sequences in the global batch.");
    visit("micro_batch_size", micro_batch_size,
          "Sequences in one forward; 0 means the whole batch.");
    visit("optimizer", optimizer, "AdamW and its schedule.");
    visit("form", form, "norm (unsquared L2, as published) or mean_squared.");
    visit("hidden_weight", hidden_weight, "Weight of the block output's distance.");
    visit("mixer_weight", mixer_weight, "Weight of the mixer output's distance.");
  }
};

struct KlOptions {
  KlDirection direction = KlDirection::kForward;
  double temperature = 1.0;
  Normalize normalize = Normalize::kSequence;
  int64_t chunk_tokens = 1024;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("direction", direction, "forward (teacher || student), reverse or js.");
    visit("temperature", temperature,
          "Both logits are divided by it; the loss is multiplied by its square.");
    visit("normalize", normalize,
          "sequence (sum over tokens divided by sequences, as published) or token.");
    visit("chunk_tokens", chunk_tokens, "Tokens whose logits exist at one time.");
  }
};

struct DistillStage {
  double tokens = 0;
  int64_t batch_size = 16;
  int64_t micro_batch_size = 0;
  OptimizerOptions optimizer;
  KlOptions kl;
  double kl_weight = 1.0, ce_weight = 0.0;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("tokens", tokens, "Training tokens; 0 means one epoch.");
    visit("batch_size", batch_size, "Sequences in the global batch.");
    visit("micro_batch_size", micro_batch_size,
          "Sequences in one forward; 0 means the whole batch.");
    visit("optimizer", optimizer, "AdamW and its schedule.");
    visit("kl", kl, "Divergence from the teacher.");
    visit("kl_weight", kl_weight, "Weight of the divergence.");
    visit("ce_weight", ce_weight, "Weight of the cross-entropy on the next token.");
  }
};

struct DpoStage {
  double epochs = 1.0;
  int64_t batch_size = 32;       // pairs
  int64_t micro_batch_size = 0;  // pairs in one forward
  double beta = 0.01;
  std::vector<std::string> train;  // files of pairs
  std::vector<std::string> validation;
  int64_t max_length = 1024, max_prompt_length = 512;
  OptimizerOptions optimizer;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("epochs", epochs, "Passes over the pairs.");
    visit("batch_size", batch_size, "Pairs in the global batch.");
    visit("micro_batch_size", micro_batch_size, "Pairs in one forward; 0 means the whole batch.");
    visit("beta", beta, "Strength of the pull towards the reference.");
    visit("train", train, "Files of preference pairs.");
    visit("validation", validation, "Files of held-out pairs for preference accuracy.");
    visit("max_length", max_length, "Longest prompt and answer, in tokens.");
    visit("max_prompt_length", max_prompt_length, "Longest prompt; cut from the left.");
    visit("optimizer", optimizer, "AdamW and its schedule.");
  }
};

// Cross-entropy from random weights: makes a small base, or a baseline.
struct PretrainStage {
  double tokens = 0;
  int64_t batch_size = 16;
  int64_t micro_batch_size = 0;
  OptimizerOptions optimizer;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("tokens", tokens, "Training tokens; 0 means one epoch.");
    visit("batch_size", batch_size, "Sequences in the global batch.");
    visit("micro_batch_size", micro_batch_size,
          "Sequences in one forward; 0 means the whole batch.");
    visit("optimizer", optimizer, "AdamW and its schedule.");
  }
};

struct StageOptions {
  std::optional<PretrainStage> pretrain;
  std::optional<IldStage> ild;
  std::optional<DistillStage> distill;
  std::optional<DpoStage> dpo;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("pretrain", pretrain, "Cross-entropy from random weights (then no base model is read).");
    visit("ild", ild, "Intermediate layer distillation of an all-MLA and an all-Mamba2 student.");
    visit("distill", distill, "End-to-end divergence from the teacher.");
    visit("dpo", dpo, "Direct preference optimisation.");
  }
};

enum class LayerSelection { kList, kSmart };

template <>
struct EnumNames<LayerSelection> {
  static constexpr std::array<std::pair<LayerSelection, std::string_view>, 2> names = {
      {{LayerSelection::kList, "list"}, {LayerSelection::kSmart, "smart"}}};
};

struct MlaRecipe {
  int64_t q_lora_rank = 1344, kv_lora_rank = 128;
  int64_t qk_nope_head_dim = 32, qk_rope_head_dim = 32, v_head_dim = 64;
  bool latent_norm = false, full_kv_heads = false;
  int64_t rank_divisor = 8;
  std::string rope = "yarn";  // yarn or default
  double rope_factor = 1.0;
  int64_t rope_original_max_position = 0;  // 0: the base's
  std::optional<double> q_energy, kv_energy;
  bool fixed_ranks_at_ends = true;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("q_lora_rank", q_lora_rank, "Rank of the query projection.");
    visit("kv_lora_rank", kv_lora_rank, "Width of the latent that keys and values share.");
    visit("qk_nope_head_dim", qk_nope_head_dim, "Head width without rotation.");
    visit("qk_rope_head_dim", qk_rope_head_dim, "Head width with rotation.");
    visit("v_head_dim", v_head_dim, "Width of a value head; must be the base's head width.");
    visit("latent_norm", latent_norm,
          "RMSNorm on both latents (breaks the factorisation at the start).");
    visit("full_kv_heads", full_kv_heads, "One key/value head for each query head.");
    visit("rank_divisor", rank_divisor, "Ranks must be multiples of it.");
    visit("rope", rope, "yarn or default.");
    visit("rope_factor", rope_factor, "YaRN: context extension.");
    visit("rope_original_max_position", rope_original_max_position,
          "YaRN: original length; 0 means the base's.");
    visit("q_energy", q_energy, "Choose each layer's query rank by this share of energy.");
    visit("kv_energy", kv_energy, "Choose each layer's key/value rank by this share of energy.");
    visit("fixed_ranks_at_ends", fixed_ranks_at_ends,
          "With energies: first and last layer keep the fixed ranks.");
  }
};

struct Mamba2Recipe {
  int64_t d_conv = 4, chunk_size = 256;
  bool repeat_kv_before_conv = false;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("d_conv", d_conv, "Width of the causal convolution.");
    visit("chunk_size", chunk_size, "Chunk of the scan; any length gives the same numbers.");
    visit("repeat_kv_before_conv", repeat_kv_before_conv,
          "Repeat grouped heads before the convolution.");
  }
};

// What `mla_layers` says in a file: a list of indices, or {select: smart, count: n}. Visitors get
// it as one value.
struct LayerChoice {
  std::vector<int64_t>& indices;
  std::optional<int64_t>& smart_count;
};

// Every layer that is neither MLA nor listed as attention is Mamba2.
struct HybridRecipe {
  std::vector<int64_t> mla_layers;
  std::optional<int64_t> smart_count;  // layers chosen by SMART; mla_layers is empty then
  int64_t smart_sequences = 64;        // training sequences that SMART measures sensitivities on
  std::vector<int64_t> attention_layers;
  MlaRecipe mla;
  Mamba2Recipe mamba2;

  template <class Visitor>
  void fields(Visitor&& visit) {
    LayerChoice choice{mla_layers, smart_count};
    visit("mla_layers", choice,
          "Indices of the MLA layers, or {select: smart, count: n}: n layers by sensitivity.");
    visit("smart_sequences", smart_sequences,
          "Training sequences that SMART measures sensitivities on.");
    visit("attention_layers", attention_layers, "Layers that stay attention.");
    visit("mla", mla, "Shape of the MLA layers.");
    visit("mamba2", mamba2, "Shape of the Mamba2 layers.");
  }
};

template <>
struct EnumNames<InitOptions::Mla> {
  static constexpr std::array<std::pair<InitOptions::Mla, std::string_view>, 2> names = {
      {{InitOptions::Mla::kSvd, "svd"}, {InitOptions::Mla::kRandom, "random"}}};
};

template <>
struct EnumNames<InitOptions::Mamba2> {
  static constexpr std::array<std::pair<InitOptions::Mamba2, std::string_view>, 3> names = {
      {{InitOptions::Mamba2::kAttention, "attention"},
       {InitOptions::Mamba2::kAttentionIdentity, "attention_identity"},
       {InitOptions::Mamba2::kRandom, "random"}}};
};

struct InitRecipe {
  InitOptions::Mla mla = InitOptions::Mla::kSvd;
  InitOptions::Mamba2 mamba2 = InitOptions::Mamba2::kAttention;
  int64_t calibration_sequences = 8;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("mla", mla, "svd (published) or random.");
    visit("mamba2", mamba2, "attention (published), attention_identity or random.");
    visit("calibration_sequences", calibration_sequences,
          "Sequences for the conversion report's output errors.");
  }
};

struct DataSource {
  std::string path;
  SourceFormat format = SourceFormat::kText;
  std::optional<double> weight;
  double epochs = 1.0;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("path", path, "File or glob, plain or gzip.");
    visit("format", format, "text, stories, jsonl, messages, conversations or prompt_completion.");
    visit("weight", weight, "Share of the mixture, relative to the other weights; all or none.");
    visit("epochs", epochs, "Passes over this source that an epoch of the mixture holds at most.");
  }
};

struct DataRecipe {
  int64_t sequence_length = 2048;
  Packing packing = Packing::kConcat;
  LongDocuments long_documents = LongDocuments::kTruncate;
  int64_t packing_window = 8192;
  BosPlacement bos = BosPlacement::kDocument;
  bool eos = true;
  bool cross_document = false;
  bool recut = false;
  std::string chat_template = "auto";  // or a name of chat_template.h
  LossOn loss_on = LossOn::kAll;
  MixBy mix_by = MixBy::kTokens;
  BadLines bad_lines = BadLines::kRefuse;
  double validation_split = 0.0;
  std::string cache;  // empty: the run folder's data
  std::vector<DataSource> train, validation;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("sequence_length", sequence_length, "Tokens of a sequence.");
    visit("packing", packing,
          "concat (cut anywhere), best_fit (documents whole, several a sequence) or none (one "
          "document a sequence, padded).");
    visit("long_documents", long_documents,
          "best_fit, none: truncate or split documents that are longer than a sequence.");
    visit("packing_window", packing_window,
          "best_fit: documents that are laid into sequences together.");
    visit("bos", bos, "Where the first token goes: document, sequence or none.");
    visit("eos", eos, "End token after each document that does not end with it.");
    visit("cross_document", cross_document,
          "Documents of a sequence see each other, as in the published runs.");
    visit("recut", recut, "concat: cut the token stream at another offset in each epoch.");
    visit("chat_template", chat_template,
          "Of messages: auto (recognised from the tokenizer's files), or a name such as llama3.");
    visit("loss_on", loss_on, "Training tokens with KL and cross-entropy: all or assistant.");
    visit("mix_by", mix_by, "What weights count: tokens or documents.");
    visit("bad_lines", bad_lines, "refuse, or count (leave out, with a warning).");
    visit("validation_split", validation_split,
          "Share of the training documents held out by their hash, instead of validation.");
    visit("cache", cache, "Folder of the prepared tokens; empty: data in the run folder.");
    visit("train", train, "Training text.");
    visit("validation", validation, "Held-out text for every number in the report.");
  }
};

// What a paper says of a task, in percent, to stand beside the run's own numbers.
struct PublishedScore {
  std::string task;
  std::string metric = "acc";
  std::optional<double> base, hybrid;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("task", task, "One of eval.tasks.");
    visit("metric", metric, "Which of the task's metrics the table shows: acc, acc_norm, ...");
    visit("base", base, "The base's published score, in percent.");
    visit("hybrid", hybrid, "The hybrid's published score, in percent.");
  }
};

struct EvalRecipe {
  int64_t max_sequences = 0;  // 0: all
  int64_t batch_size = 16;
  std::string choices;  // multiple-choice file
  bool speed = true;
  std::vector<std::string> tasks;  // of the harness
  std::string data;                // folder of TASK/SPLIT.jsonl
  std::vector<std::string> at;     // models that the tasks are run on; empty: all
  std::optional<int64_t> fewshot;
  int64_t limit = 0, max_length = 0;
  bool cut_endings = false;
  std::vector<PublishedScore> published;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("max_sequences", max_sequences, "Held-out sequences used; 0 means all.");
    visit("batch_size", batch_size, "Sequences in one forward.");
    visit("choices", choices, "JSONL of multiple-choice endings; empty: none.");
    visit("speed", speed, "Measure decode tokens/s of base and hybrid.");
    visit("tasks", tasks, "Tasks or groups of lm-evaluation-harness, or YAML files of tasks.");
    visit("data", data, "Folder of the tasks' rows: TASK/SPLIT.jsonl.");
    visit("at", at,
          "Models that run the tasks: base, init, ild, composed, distill, dpo; none: all.");
    visit("fewshot", fewshot, "Examples before each question; absent: each task's own number.");
    visit("limit", limit, "Documents of each task, the first ones; 0 means all.");
    visit("max_length", max_length, "Tokens of a task's context; 0 means the model's own.");
    visit("cut_endings", cut_endings, "Of an ending longer than the context only the end counts.");
    visit("published", published, "Published scores that the table of tasks ends with.");
  }
};

// How a job watches itself.
struct HealthRecipe {
  double hang_timeout_minutes = 30;  // 0: never
  double heartbeat_seconds = 10;     // 0: none
  int64_t replay_every = 0;
  int64_t compare_weights_every = 100;
  int64_t slow_ranks_every = 100;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("hang_timeout_minutes", hang_timeout_minutes,
          "Silence after which the stacks of all threads are logged and the job ends; 0: never.");
    visit("heartbeat_seconds", heartbeat_seconds,
          "Time between two signs of life in heartbeat.json; 0: none.");
    visit("replay_every", replay_every,
          "Every so many steps one is done twice and its gradients compared bit by bit; 0: never.");
    visit("compare_weights_every", compare_weights_every,
          "Steps between two comparisons of the weights of all ranks; 0: never.");
    visit("slow_ranks_every", slow_ranks_every,
          "Steps between two reports on the slowest rank; 0: never.");
  }
};

struct MetricsRecipe {
  bool tensorboard = true;
  int64_t trace_step = 0;
  double peak_tflops = 0;

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("tensorboard", tensorboard, "Write TensorBoard events beside metrics.jsonl.");
    visit("trace_step", trace_step,
          "Step of each stage whose profiler trace is written; 0: none. SIGUSR2 asks for one too.");
    visit("peak_tflops", peak_tflops,
          "What the device could do at its best, for MFU; 0: known for common GPUs, else no MFU.");
  }
};

struct ModelSource {
  std::string model;  // folder

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("model", model, "Model folder.");
  }
};

// A model to be made from random weights by the pretrain stage.
struct NewModelRecipe {
  int64_t vocab_size = 0;  // 0: the tokenizer's
  int64_t hidden_size = 128, intermediate_size = 352, num_layers = 4;
  int64_t num_heads = 8, num_kv_heads = 4, head_dim = 16;
  int64_t max_position_embeddings = 512;
  double rope_theta = 10000.0;
  double initializer_range = 0.02;
  std::string tokenizer;  // folder or file

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("vocab_size", vocab_size, "0 means the tokenizer's.");
    visit("hidden_size", hidden_size, "Model width.");
    visit("intermediate_size", intermediate_size, "MLP width.");
    visit("num_layers", num_layers, "Depth.");
    visit("num_heads", num_heads, "Query heads.");
    visit("num_kv_heads", num_kv_heads, "Key/value heads.");
    visit("head_dim", head_dim, "Head width.");
    visit("max_position_embeddings", max_position_embeddings,
          "Longest sequence the config promises.");
    visit("rope_theta", rope_theta, "Base of the rotary frequencies.");
    visit("initializer_range", initializer_range, "Standard deviation of the random weights.");
    visit("tokenizer", tokenizer, "Folder or tokenizer.model file.");
  }
};

struct Recipe {
  std::string name;
  int64_t seed = 42;
  std::string output;  // run folder
  std::optional<ModelSource> base;
  std::optional<ModelSource> teacher;  // for distill; ILD always uses the base. Absent: the base
  std::optional<NewModelRecipe> new_model;
  std::optional<HybridRecipe> hybrid;
  InitRecipe init;
  DataRecipe data;
  StageOptions stages;
  EvalRecipe eval;
  CheckpointRecipe checkpoint;
  HealthRecipe health;
  MetricsRecipe metrics;
  double time_limit_minutes = 0;  // 0: none
  ParallelRecipe parallel;
  StabilityRecipe stability;
  std::string device = "cpu";  // cpu, cuda or cuda:N
  std::string dtype = "fp32";  // fp32, bf16 or fp64
  int64_t threads = 0;         // 0: the machine's cores

  template <class Visitor>
  void fields(Visitor&& visit) {
    visit("name", name, "Name of the job.");
    visit("seed", seed, "Seeds initialisation and the order of the data.");
    visit("output", output, "Run folder.");
    visit("base", base, "Llama to be converted.");
    visit("teacher", teacher, "Teacher of the distill stage; absent: the base.");
    visit("new_model", new_model, "Shape of a model that the pretrain stage makes.");
    visit("hybrid", hybrid, "Which layers become what.");
    visit("init", init, "How students start.");
    visit("data", data, "Text and packing.");
    visit("stages", stages, "What is trained.");
    visit("eval", eval, "What is measured.");
    visit("checkpoint", checkpoint, "When a running stage is saved.");
    visit("health", health, "How the job watches itself.");
    visit("metrics", metrics, "What is measured on the way.");
    visit("time_limit_minutes", time_limit_minutes,
          "Time after which the job saves a checkpoint and stops with exit code 75; 0: none.");
    visit("parallel", parallel, "How ranks share the work; what is recomputed.");
    visit("stability", stability, "Steps that go wrong.");
    visit("device", device, "cpu, cuda or cuda:N.");
    visit("dtype", dtype, "fp32, bf16, or fp64 (slow: to tell rounding from faults).");
    visit("threads", threads, "CPU threads; 0 means the machine's cores.");
  }
};

// Reads a recipe and applies `overrides` ("key.path=value": the value is YAML, list entries go by
// number as in data.train.0.path, an empty value removes the key). Throws ConfigError whose text
// lists every mistake, one a line (recipe_mistake_text). Loads no model.
Recipe read_recipe(const std::filesystem::path& path, const std::vector<std::string>& overrides);

// All mistakes of a recipe file in the order of its lines, without throwing.
std::vector<RecipeMistake> check_recipe(const std::filesystem::path& path,
                                        const std::vector<std::string>& overrides);

// Whether every training stage's batch_size is a multiple of this number of ranks.
bool ranks_divide(const Recipe& recipe, int64_t ranks);

// "FILE:LINE: key.path: message", or "--set key.path: message" for an override.
std::string recipe_mistake_text(const std::filesystem::path& path, const RecipeMistake& mistake);

// The whole recipe with every default written out; reading it gives the same recipe.
std::string write_recipe(const Recipe& recipe);

// Markdown table of every key, type, default and meaning: recipes/README.md. JSON schema of the
// same.
std::string recipe_reference();
std::string recipe_schema();

}  // namespace zebra
