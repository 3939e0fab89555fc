// The configuration files of model folders, one function a file.
#pragma once

#include <filesystem>
#include <vector>

#include "base/json.h"
#include "zebra/model.h"

namespace zebra {

inline constexpr const char* kLlamaConfig = "config.json";
inline constexpr const char* kHybridConfig = "hybrid_config.json";
inline constexpr const char* kEcoMlaConfig = "MLA_config.json";
inline constexpr const char* kEcoMlaLayerConfig = "mla_layer_config.json";

// config.json of a Hugging Face Llama: every layer is attention.
ModelOptions read_llama_config(const std::filesystem::path& file);

// The same model with the layers that hybrid_config.json, current or legacy, says.
ModelOptions read_hybrid_config(const std::filesystem::path& file, ModelOptions llama);

// The same model with the layers that X-EcoMLA's two files say.
ModelOptions read_eco_mla_configs(const std::filesystem::path& folder, ModelOptions llama);

// Which layers are of this kind, ascending.
std::vector<int64_t> layers_of(const ModelOptions& options, MixerKind kind);

nlohmann::ordered_json llama_config(const ModelOptions& options, at::ScalarType dtype);
// ConfigError for what the file cannot say.
nlohmann::ordered_json hybrid_config(const ModelOptions& options);

}  // namespace zebra
