// zebra bench generate: how fast a hybrid and its Llama read and write, and what their caches hold
#include "cli/bench/generate.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <iomanip>
#include <iterator>
#include <sstream>

#include "base/progress.h"
#include "cli/bench/transformers_peer.h"
#include "cli/sampling_flags.h"
#include "zebra/error.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

constexpr std::array<int64_t, 6> kUsualContexts = {512, 2048, 4096, 8192, 16384, 32768};

struct GenerationFlags {
  std::string model, llama, html, python = "python3";
  std::vector<int64_t> batches = {1, 8, 32}, context_batches = {8};
  std::vector<int64_t> contexts;  // none: kUsualContexts that both models can read
  int64_t new_tokens = 32, written = 256;
  bool json = false, peer = false;
  CacheOptions cache;
  MachineFlags machine;
};

// A Llama of 40 million parameters with random weights, for speed alone.
ModelOptions small_llama() {
  ModelOptions o;
  o.vocab_size = 32000;
  o.hidden_size = 512;
  o.intermediate_size = 1536;
  o.num_heads = 8;
  o.num_kv_heads = 4;
  o.head_dim = 64;
  o.layers.assign(8, MixerKind::kAttention);
  return o;
}

// Two of its layers as MLA, the others as Mamba2, with the proportions of the published hybrids.
ModelOptions small_hybrid() {
  auto o = small_llama();
  o.layers.assign(8, MixerKind::kMamba2);
  o.layers[0] = o.layers[4] = MixerKind::kMla;
  o.mla = {.hidden_size = 512,
           .num_heads = 8,
           .num_kv_heads = 4,
           .q_lora_rank = 336,
           .kv_lora_rank = 64,
           .qk_nope_head_dim = 32,
           .qk_rope_head_dim = 32,
           .v_head_dim = 64,
           .rope = {.scaling = RopeScaling::kYarn, .theta = 500000, .factor = 32}};
  o.mamba2 = {.hidden_size = 512, .num_heads = 8, .num_kv_heads = 4, .head_dim = 64};
  return o;
}

struct Models {
  CausalLm hybrid{nullptr}, llama{nullptr};
  std::string about;
};

CausalLm random_model(const ModelOptions& options, const LoadOptions& machine) {
  torch::manual_seed(1);
  CausalLm model(options);
  model->to(machine.device, machine.dtype);
  model->eval();
  return model;
}

Models load_models(const GenerationFlags& flags, const LoadOptions& machine) {
  Models models;
  if (flags.model.empty()) {
    models.hybrid = random_model(small_hybrid(), machine);
    models.about = "hybrid of 2 MLA and 6 Mamba2 layers, random weights";
  } else {
    models.hybrid = load_model(flags.model, machine);
    models.about = flags.model;
  }
  if (flags.llama.empty()) {
    models.llama = random_model(as_llama(models.hybrid->options()), machine);
    models.about += "; beside it a Llama of the same shape, random weights";
  } else {
    models.llama = load_model(flags.llama, machine);
    models.about += "; beside it " + flags.llama;
  }
  return models;
}

int64_t longest_context(const Models& models) {
  return std::min(models.hybrid->options().max_position_embeddings,
                  models.llama->options().max_position_embeddings);
}

std::vector<int64_t> usual_contexts(int64_t longest) {
  std::vector<int64_t> contexts;
  std::copy_if(kUsualContexts.begin(), kUsualContexts.end(), std::back_inserter(contexts),
               [&](int64_t context) { return context <= longest; });
  return contexts;
}

void check_length(const Models& models, const GenerationLoad& load) {
  const int64_t most = longest_context(models);
  if (load.prompt_tokens + load.new_tokens > most) {
    throw ConfigError(str("bench generate: expected at most the model's ", most,
                          " tokens, got a context of ", load.prompt_tokens, " and ",
                          load.new_tokens, " new tokens"));
  }
}

// The Llama's weights as a folder that transformers reads, removed at the end.
class PeerFolder {
 public:
  explicit PeerFolder(const CausalLm& llama)
      : path_(fs::temp_directory_path() / str("zebra-bench-", getpid())) {
    save_model(path_, llama, {});
  }
  ~PeerFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  PeerFolder(const PeerFolder&) = delete;
  PeerFolder& operator=(const PeerFolder&) = delete;
  std::string path() const { return path_.string(); }

 private:
  fs::path path_;
};

// The models of one run, one after another at each load.
class Measurement {
 public:
  Measurement(const GenerationFlags& flags, const Models& models)
      : flags_(flags),
        models_(models),
        progress_("bench generate",
                  static_cast<int64_t>(1 + flags.contexts.size()) * models_count(),
                  /*tokens_per_step=*/0) {
    if (flags.peer) folder_ = std::make_unique<PeerFolder>(models.llama);
  }

  std::vector<GenerationSweep> run() {
    check_length(models_, by_batch_load());
    for (const int64_t context : flags_.contexts) check_length(models_, context_load(context));
    std::vector<GenerationSweep> sweeps = {
        {.title = str("a prompt of 1 token, ", flags_.written, " written"),
         .varied = "batch",
         .points = points_at(by_batch_load(), flags_.batches)}};
    std::vector<GenerationPoint> points;
    for (const int64_t context : flags_.contexts) {
      const auto more = points_at(context_load(context), flags_.context_batches);
      points.insert(points.end(), more.begin(), more.end());
    }
    for (const int64_t batch : flags_.context_batches) {
      GenerationSweep sweep{
          .title = str("batch of ", batch, ", ", flags_.new_tokens, " tokens behind each context"),
          .varied = "context",
          .points = {}};
      std::copy_if(points.begin(), points.end(), std::back_inserter(sweep.points),
                   [&](const GenerationPoint& point) { return point.speed.batch == batch; });
      if (!sweep.points.empty()) sweeps.push_back(std::move(sweep));
    }
    progress_.update(done_, "");
    progress_.finish();
    return sweeps;
  }

  const std::string& peer_version() const { return peer_version_; }

 private:
  int64_t models_count() const { return flags_.peer ? 3 : 2; }

  GenerationLoad by_batch_load() const {
    return {.prompt_tokens = 1, .new_tokens = flags_.written, .cache = flags_.cache};
  }
  GenerationLoad context_load(int64_t context) const {
    return {.prompt_tokens = context, .new_tokens = flags_.new_tokens, .cache = flags_.cache};
  }

  std::vector<GenerationPoint> points_at(const GenerationLoad& load,
                                         const std::vector<int64_t>& batches) {
    std::vector<GenerationPoint> points;
    const auto add = [&](const char* name, const auto& measure) {
      progress_.update(done_++, str(name, ", context ", load.prompt_tokens));
      for (const auto& speed : measure()) points.push_back({name, load, speed});
    };
    add("hybrid", [&] { return measure_generation(models_.hybrid, load, batches); });
    add("llama", [&] { return measure_generation(models_.llama, load, batches); });
    if (!folder_) return points;
    add("transformers", [&] {
      auto peer = run_transformers({.python = flags_.python,
                                    .device = flags_.machine.device,
                                    .dtype = flags_.machine.dtype,
                                    .threads = at::get_num_threads()},
                                   folder_->path(), load, batches);
      peer_version_ = peer.version;
      return peer.speeds;
    });
    return points;
  }

  const GenerationFlags& flags_;
  const Models& models_;
  Progress progress_;
  std::unique_ptr<PeerFolder> folder_;
  int64_t done_ = 0;
  std::string peer_version_;
};

nlohmann::ordered_json as_json(const GenerationPoint& point) {
  return {{"model", point.model},
          {"batch", point.speed.batch},
          {"prompt_tokens", point.load.prompt_tokens},
          {"new_tokens", point.load.new_tokens},
          {"prefill_tokens_per_second", point.speed.prefill_tokens_per_second},
          {"decode_tokens_per_second", point.speed.decode_tokens_per_second},
          {"cache_bytes", point.speed.cache_bytes},
          {"reserved_bytes", point.speed.reserved_bytes}};
}

std::string as_text(const GenerationSweep& sweep) {
  std::ostringstream out;
  out << sweep.title << "\n"
      << "model         batch  context  prefill tok/s  decode tok/s   cache bytes\n";
  for (const auto& point : sweep.points) {
    out << std::left << std::setw(13) << point.model << std::right << std::setw(6)
        << point.speed.batch << std::setw(9) << point.load.prompt_tokens << std::fixed
        << std::setprecision(1) << std::setw(15) << point.speed.prefill_tokens_per_second
        << std::setw(14) << point.speed.decode_tokens_per_second << std::setw(14)
        << point.speed.cache_bytes << "\n";
  }
  return out.str() + "\n";
}

void bench_generation(GenerationFlags flags) {
  const auto html = open_output(flags.html);
  const auto machine = flags.machine.use();
  const auto models = load_models(flags, machine);
  if (flags.contexts.empty()) {
    flags.contexts = usual_contexts(longest_context(models) - flags.new_tokens);
  }
  Measurement measurement(flags, models);
  const auto sweeps = measurement.run();
  const auto& peer = measurement.peer_version();
  auto about = str(models.about, ". ", flags.machine.device, ", ", flags.machine.dtype, ", ",
                   at::get_num_threads(),
                   " threads. Parameters: ", count_parameters(models.hybrid->options()), " and ",
                   count_parameters(models.llama->options()), ".");
  if (!peer.empty()) about += " Peer: " + peer + ".";
  if (html) {
    html->write(generation_page(sweeps, about));
    html->commit();
  }
  if (!flags.json) {
    print(about + "\n\n");
    for (const auto& sweep : sweeps) print(as_text(sweep));
    return;
  }
  nlohmann::ordered_json result = {{"about", about}, {"sweeps", nlohmann::ordered_json::array()}};
  for (const auto& sweep : sweeps) {
    nlohmann::ordered_json points = nlohmann::ordered_json::array();
    for (const auto& point : sweep.points) points.push_back(as_json(point));
    result["sweeps"].push_back(
        {{"title", sweep.title}, {"varied", sweep.varied}, {"points", points}});
  }
  print_json(result);
}

}  // namespace

void add_bench_generate(CLI::App& app, Action& action) {
  auto flags = std::make_shared<GenerationFlags>();
  auto* verb =
      add_verb(app, "generate", "Tokens a second and cache bytes of a hybrid and its Llama",
               "zebra bench generate --contexts 512,4096 --html generation.html");
  verb->add_option("model", flags->model, "Hybrid [one of 40 million random weights]")
      ->type_name("MODEL");
  verb->add_option("--llama", flags->llama, "Its Llama [the same shape, random weights]")
      ->type_name("MODEL");
  const auto list = [&](const char* flag, std::vector<int64_t>& values, const char* meaning) {
    verb->add_option(flag, values, meaning)
        ->delimiter(',')
        ->check(whole_number(1))
        ->type_name("N,...");
  };
  const auto number = [&](const char* flag, int64_t& value, const char* meaning) {
    verb->add_option(flag, value, meaning)->check(whole_number(1))->type_name("N");
  };
  list("--batches", flags->batches, "Batches of the first sweep, prompt of 1 token [1,8,32]");
  number("--written", flags->written, "Tokens that each row of it writes [256]");
  list("--contexts", flags->contexts,
       "Contexts of the second sweep [512 to 32768, as far as both models read]");
  list("--context-batches", flags->context_batches, "Batches of the second sweep [8]");
  number("--new-tokens", flags->new_tokens, "Tokens written behind each context [32]");
  declare_cache(verb, flags->cache);
  verb->add_flag("--peer", flags->peer, "Also Hugging Face transformers on the Llama's weights");
  verb->add_option("--peer-python", flags->python, "Python with torch and transformers [python3]")
      ->type_name("FILE");
  verb->add_option("--html", flags->html, "Write a page with charts")->type_name("FILE");
  verb->add_flag("--json", flags->json, "JSON instead of tables");
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { bench_generation(*flags); }; });
}

}  // namespace zebra
