// zebra inspect
#include <array>
#include <iomanip>
#include <sstream>

#include "cli/command.h"
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

// What a sequence costs in memory.
struct Memory {
  int64_t kv_values = 0, kv_bytes = 0;        // for each token
  int64_t state_values = 0, state_bytes = 0;  // for each sequence
  double kv_share = 1;                        // of the same model with attention everywhere
};

// The SSM state is float32 whatever the model is.
int64_t ssm_values(const ModelOptions& options) {
  int64_t values = 0;
  for (const auto kind : options.layers) {
    const auto& o = options.mamba2;
    if (kind == MixerKind::kMamba2) values += o.num_heads * o.head_dim * o.head_dim;
  }
  return values;
}

Memory memory_of(const ModelOptions& options, at::ScalarType dtype) {
  auto llama = options;
  for (auto& kind : llama.layers) kind = MixerKind::kAttention;
  const auto own = cache_size(options), whole = cache_size(llama);
  const auto bytes = static_cast<int64_t>(c10::elementSize(dtype));
  const int64_t ssm = ssm_values(options);
  return {.kv_values = own.kv_values_per_token,
          .kv_bytes = own.kv_values_per_token * bytes,
          .state_values = own.state_values_per_sequence,
          .state_bytes = (own.state_values_per_sequence - ssm) * bytes + ssm * 4,
          .kv_share = static_cast<double>(own.kv_values_per_token) /
                      static_cast<double>(whole.kv_values_per_token)};
}

std::string ranks_of(const ModelOptions& options, int64_t layer) {
  if (options.layers[layer] != MixerKind::kMla) return "";
  const auto mla = options.mla_of_layer(layer);
  return " q_lora_rank " + std::to_string(mla.q_lora_rank) + ", kv_lora_rank " +
         std::to_string(mla.kv_lora_rank);
}

nlohmann::ordered_json as_json(const ModelOptions& options, const Memory& memory,
                               const std::string& dtype) {
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
          {"vocab_size", options.vocab_size},
          {"hidden_size", options.hidden_size},
          {"intermediate_size", options.intermediate_size},
          {"num_heads", options.num_heads},
          {"num_kv_heads", options.num_kv_heads},
          {"head_dim", options.head_dim},
          {"tie_word_embeddings", options.tie_word_embeddings},
          {"max_position_embeddings", options.max_position_embeddings},
          {"layers", layers},
          {"cache",
           {{"dtype", dtype},
            {"kv_values_per_token", memory.kv_values},
            {"kv_bytes_per_token", memory.kv_bytes},
            {"kv_share", memory.kv_share},
            {"state_values_per_sequence", memory.state_values},
            {"state_bytes_per_sequence", memory.state_bytes}}}};
}

std::string as_text(const ModelOptions& options, const Memory& memory, const std::string& dtype) {
  std::ostringstream out;
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
  out << "KV cache    " << memory.kv_bytes << " bytes a token (" << dtype << "), " << std::fixed
      << std::setprecision(2) << 100 * memory.kv_share << " % of the Llama's\n"
      << "state       " << memory.state_bytes << " bytes a sequence\n";
  return out.str();
}

}  // namespace

void add_inspect(CLI::App& app, Action& action) {
  struct Flags {
    std::string model, dtype = "bf16";
    bool json = false;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = add_verb(app, "inspect", "A model folder, or what a training checkpoint holds",
                        "zebra inspect runs/quickstart/stages/distill");
  verb->add_option("model", flags->model, "Model folder, checkpoint, or a folder of checkpoints")
      ->required()
      ->type_name("PATH");
  verb->add_option("--dtype", flags->dtype, "Of the cache: fp32, bf16 or fp16 [bf16]")
      ->type_name("NAME");
  verb->add_flag("--json", flags->json, "JSON instead of text");
  verb->callback([flags, &action] {
    action = [flags] {
      if (is_checkpoint(flags->model)) return inspect_checkpoint(flags->model, flags->json);
      const auto options = read_model_options(flags->model);
      const auto memory = memory_of(options, parse_dtype(flags->dtype));
      if (flags->json) return print_json(as_json(options, memory, flags->dtype));
      print(as_text(options, memory, flags->dtype));
    };
  });
}

}  // namespace zebra
