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
  int64_t hidden_size, intermediate_size, layers, num_heads, head_dim;
};
constexpr std::array kBases = {Base{"Llama-3.2-1B", "1B", 2048, 8192, 16, 32, 64},
                               Base{"Llama-3.2-3B", "3B", 3072, 8192, 28, 24, 128},
                               Base{"Llama-3.1-8B", "8B", 4096, 14336, 32, 32, 128}};

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
  constexpr int64_t kVocabulary = 128256, kKvHeads = 8;
  const auto* found = std::find_if(kBases.begin(), kBases.end(), [&](const Base& base) {
    return o.hidden_size == base.hidden_size && o.intermediate_size == base.intermediate_size &&
           o.num_layers() == base.layers && o.num_heads == base.num_heads &&
           o.head_dim == base.head_dim && o.num_kv_heads == kKvHeads && o.vocab_size == kVocabulary;
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

// X-EcoMLA's are MLA throughout: one rank for all layers, or ranks by the energy that they keep.
std::string eco_mla_shape(const ModelOptions& options, const std::string& size) {
  if (size == "8B") return "";  // none is released
  const auto name = "X-EcoMLA-" + size + size + "-";
  if (!options.mla_ranks.empty()) return name + "dynamic";
  const int64_t rank = options.mla.kv_lora_rank;
  const bool known = (size == "1B" && rank == 512) || (size == "3B" && rank == 816);
  return known ? name + "fixed-kv" + std::to_string(rank) : "";
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
