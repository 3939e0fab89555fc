#include "convert/published.h"

#include <algorithm>
#include <array>
#include <vector>

#include "convert/model_config.h"

namespace zebra {

namespace {

struct Base {
  const char* name;
  const char* size;
  int64_t hidden_size, intermediate_size, layers, num_heads, num_kv_heads, head_dim, vocab_size;
};
constexpr std::array kBases = {Base{"Llama-3.2-1B", "1B", 2048, 8192, 16, 32, 8, 64, 128256},
                               Base{"Llama-3.2-3B", "3B", 3072, 8192, 28, 24, 8, 128, 128256},
                               Base{"Llama-3.1-8B", "8B", 4096, 14336, 32, 32, 8, 128, 128256},
                               Base{"SmolLM-135M", "135M", 576, 1536, 30, 9, 3, 64, 49152},
                               Base{"SmolLM-360M", "360M", 960, 2560, 32, 15, 5, 64, 49152},
                               Base{"SmolLM-1.7B", "1.7B", 2048, 8192, 24, 32, 32, 64, 49152}};

// X-EcoMLA's models: MLA throughout, of one rank in all layers, or of ranks by the energy that they
// keep.
struct EcoMla {
  const char* size;
  const char* name;
  int64_t kv_rank;
  bool dynamic;  // released with ranks by energy, too
};
constexpr std::array kEcoMlas = {EcoMla{"1B", "X-EcoMLA-1B1B", 512, true},
                                 EcoMla{"3B", "X-EcoMLA-3B3B", 816, true},
                                 EcoMla{"135M", "X-EcoMLA-SmolLM-135M", 16, false},
                                 EcoMla{"360M", "X-EcoMLA-SmolLM-360M", 48, false},
                                 EcoMla{"1.7B", "X-EcoMLA-SmolLM-1.7B", 480, false}};

// Zebra-Llama's hybrids: widths of their MLA layers, and which layers these are.
struct Hybrid {
  const char* size;
  MlaRanks ranks;
  int64_t nope, rope, value;
  std::vector<int64_t> mla_layers;
};

std::vector<int64_t> every_second(int64_t layers) {
  std::vector<int64_t> even;
  for (int64_t i = 0; i < layers; i += 2) even.push_back(i);
  return even;
}

std::vector<Hybrid> hybrids() {
  const MlaRanks small{1344, 128}, middle{1536, 128}, large{2048, 160};
  return {{"1B", small, 32, 32, 64, {0, 5, 10, 14}},
          {"1B", small, 32, 32, 64, every_second(16)},
          {"3B", middle, 64, 64, 128, {0, 5, 10, 16, 21, 26}},
          {"3B", middle, 64, 64, 128, every_second(28)},
          {"8B", large, 64, 64, 128, {0, 4, 8, 12, 16, 20, 25, 30}},
          {"8B", large, 64, 64, 128, every_second(32)}};
}

const Base* base_of(const ModelOptions& o) {
  const auto* found = std::find_if(kBases.begin(), kBases.end(), [&](const Base& base) {
    return o.hidden_size == base.hidden_size && o.intermediate_size == base.intermediate_size &&
           o.num_layers() == base.layers && o.num_heads == base.num_heads &&
           o.num_kv_heads == base.num_kv_heads && o.head_dim == base.head_dim &&
           o.vocab_size == base.vocab_size;
  });
  return found == kBases.end() ? nullptr : found;
}

std::string hybrid_shape(const ModelOptions& options, const std::string& size) {
  const auto mla = layers_of(options, MixerKind::kMla);
  for (const auto& known : hybrids()) {
    const auto& o = options.mla;
    if (known.size == size && known.mla_layers == mla && options.mla_ranks.empty() &&
        o.q_lora_rank == known.ranks.q_lora_rank && o.kv_lora_rank == known.ranks.kv_lora_rank &&
        o.qk_nope_head_dim == known.nope && o.qk_rope_head_dim == known.rope &&
        o.v_head_dim == known.value) {
      const auto mamba = layers_of(options, MixerKind::kMamba2).size();
      return "Zebra-Llama-" + size + "-" + std::to_string(mla.size()) + "MLA-" +
             std::to_string(mamba) + "Mamba";
    }
  }
  return "";
}

std::string eco_mla_shape(const ModelOptions& options, const std::string& size) {
  const bool dynamic = !options.mla_ranks.empty();
  for (const auto& known : kEcoMlas) {
    if (known.size != size) continue;
    if (dynamic && known.dynamic) return std::string(known.name) + "-dynamic";
    if (!dynamic && known.kv_rank == options.mla.kv_lora_rank) {
      return std::string(known.name) + "-fixed-kv" + std::to_string(known.kv_rank);
    }
  }
  return "";
}

}  // namespace

std::string published_shape(const ModelOptions& options) {
  const auto* base = base_of(options);
  if (base == nullptr) return "";
  if (options.is_llama()) return base->name;
  if (!layers_of(options, MixerKind::kAttention).empty()) return "";
  if (layers_of(options, MixerKind::kMamba2).empty()) return eco_mla_shape(options, base->size);
  return hybrid_shape(options, base->size);
}

}  // namespace zebra
