// zebra inspect
#include <array>
#include <iomanip>
#include <sstream>

#include "cli/sampling_flags.h"
#include "convert/published.h"
#include "train/job.h"
#include "zebra/checkpoint.h"

namespace zebra {

namespace {

const char* name_of(MixerKind kind) {
  switch (kind) {
    case MixerKind::kAttention:
      return "attention";
    case MixerKind::kMla:
      return "mla";
    case MixerKind::kMamba2:
      return "mamba2";
  }
  return "?";
}

// What a sequence costs in memory, and the Llama of the same shape beside it.
struct Memory {
  std::string dtype, state_dtype;
  CacheSize values, llama_values;
  CacheBytes bytes, llama_bytes;

  double kv_share() const {
    return static_cast<double>(values.kv_values_per_token) /
           static_cast<double>(llama_values.kv_values_per_token);
  }
  double share_of(int64_t tokens) const {
    return static_cast<double>(bytes.of(tokens)) / static_cast<double>(llama_bytes.of(tokens));
  }
};

// Lengths of which the whole memory is shown.
std::vector<int64_t> lengths_of(const ModelOptions& options) {
  std::vector<int64_t> lengths;
  for (int64_t tokens = 512; tokens < options.max_position_embeddings; tokens *= 4) {
    lengths.push_back(tokens);
  }
  lengths.push_back(options.max_position_embeddings);
  return lengths;
}

Memory memory_of(const ModelOptions& options, const std::string& dtype, CacheDtype state) {
  const bool int8 = dtype == "int8";
  const auto model = int8 ? at::kBFloat16 : parse_dtype(dtype);
  const CacheOptions cache{.tokens = int8 ? CacheDtype::kInt8 : CacheDtype::kModel, .state = state};
  const auto llama = as_llama(options);
  return {.dtype = dtype,
          .state_dtype = std::string(enum_name(state)),
          .values = cache_size(options),
          .llama_values = cache_size(llama),
          .bytes = cache_bytes(options, cache, model),
          .llama_bytes = cache_bytes(llama, cache, model)};
}

std::string ranks_of(const ModelOptions& options, int64_t layer) {
  if (options.layers[layer] != MixerKind::kMla) return "";
  const auto mla = options.mla_of_layer(layer);
  return " q_lora_rank " + std::to_string(mla.q_lora_rank) + ", kv_lora_rank " +
         std::to_string(mla.kv_lora_rank);
}

nlohmann::ordered_json cache_as_json(const ModelOptions& options, const Memory& memory) {
  nlohmann::ordered_json sequences = nlohmann::ordered_json::array();
  for (const int64_t tokens : lengths_of(options)) {
    sequences.push_back({{"tokens", tokens},
                         {"bytes", memory.bytes.of(tokens)},
                         {"llama_bytes", memory.llama_bytes.of(tokens)},
                         {"share", memory.share_of(tokens)}});
  }
  return {{"dtype", memory.dtype},
          {"state_dtype", memory.state_dtype},
          {"kv_values_per_token", memory.values.kv_values_per_token},
          {"kv_bytes_per_token", memory.bytes.per_token},
          {"llama_kv_bytes_per_token", memory.llama_bytes.per_token},
          {"kv_share", memory.kv_share()},
          {"state_values_per_sequence", memory.values.state_values_per_sequence},
          {"state_bytes_per_sequence", memory.bytes.per_sequence},
          {"sequences", sequences}};
}

nlohmann::ordered_json as_json(const ModelOptions& options, const Memory& memory) {
  nlohmann::ordered_json layers = nlohmann::ordered_json::array();
  for (int64_t i = 0; i < options.num_layers(); ++i) {
    nlohmann::ordered_json layer = {{"kind", name_of(options.layers[i])}};
    if (options.layers[i] == MixerKind::kMla) {
      const auto mla = options.mla_of_layer(i);
      layer["q_lora_rank"] = mla.q_lora_rank;
      layer["kv_lora_rank"] = mla.kv_lora_rank;
    }
    layers.push_back(layer);
  }
  return {{"parameters", count_parameters(options)},
          {"published_shape", published_shape(options)},
          {"vocab_size", options.vocab_size},
          {"hidden_size", options.hidden_size},
          {"intermediate_size", options.intermediate_size},
          {"num_heads", options.num_heads},
          {"num_kv_heads", options.num_kv_heads},
          {"head_dim", options.head_dim},
          {"tie_word_embeddings", options.tie_word_embeddings},
          {"max_position_embeddings", options.max_position_embeddings},
          {"layers", layers},
          {"cache", cache_as_json(options, memory)}};
}

std::string sequences_as_text(const ModelOptions& options, const Memory& memory) {
  std::ostringstream out;
  out << "a sequence  tokens         bytes   the Llama's  share\n";
  for (const int64_t tokens : lengths_of(options)) {
    out << std::setw(18) << tokens << std::setw(14) << memory.bytes.of(tokens) << std::setw(14)
        << memory.llama_bytes.of(tokens) << std::fixed << std::setprecision(2) << std::setw(9)
        << 100 * memory.share_of(tokens) << " %\n";
  }
  return out.str();
}

std::string as_text(const ModelOptions& options, const Memory& memory) {
  std::ostringstream out;
  const auto shape = published_shape(options);
  if (!shape.empty()) out << "shape       that of " << shape << "\n";
  std::array<int64_t, 3> counts{};
  for (const auto kind : options.layers) ++counts[static_cast<size_t>(kind)];
  out << "parameters  " << count_parameters(options) << "\n"
      << "width       " << options.hidden_size << ", MLP " << options.intermediate_size << ", "
      << options.num_heads << " heads of " << options.head_dim << ", " << options.num_kv_heads
      << " key/value heads\n"
      << "vocabulary  " << options.vocab_size
      << (options.tie_word_embeddings ? ", head tied to the embedding\n" : "\n") << "layers      "
      << options.num_layers() << ": " << counts[0] << " attention, " << counts[1] << " mla, "
      << counts[2] << " mamba2\n";
  for (int64_t i = 0; i < options.num_layers(); ++i) {
    out << std::setw(14) << i << "  " << name_of(options.layers[i]) << ranks_of(options, i) << "\n";
  }
  out << "KV cache    " << memory.bytes.per_token << " bytes a token (" << memory.dtype << "), "
      << std::fixed << std::setprecision(2) << 100 * memory.kv_share() << " % of the Llama's\n"
      << "state       " << memory.bytes.per_sequence << " bytes a sequence (" << memory.state_dtype
      << ")\n"
      << sequences_as_text(options, memory);
  return out.str();
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  struct Flags {
    std::string model, dtype = "bf16";
    CacheOptions cache;
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = add_verb(app, "inspect", "A model folder, or what a training checkpoint holds",
                        "zebra inspect runs/quickstart/stages/distill");
  verb->add_option("model", flags->model, "Model folder, checkpoint, or a folder of checkpoints")
      ->required()
      ->type_name("PATH");
  verb->add_option("--dtype", flags->dtype, "Of the cache: fp32, bf16, fp16 or int8 [bf16]")
      ->type_name("NAME");
  declare_state_dtype(verb, flags->cache);
  verb->add_flag("--json", flags->json, "JSON instead of text");
  verb->callback([flags, &action] {
    action = [flags] {
      if (is_checkpoint(flags->model)) return inspect_checkpoint(flags->model, flags->json);
      const auto options = read_model_options(flags->model);
      const auto memory = memory_of(options, flags->dtype, flags->cache.state);
      if (flags->json) return print_json(as_json(options, memory));
      print(as_text(options, memory));
    };
  });
}

}  // namespace zebra
