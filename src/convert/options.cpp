#include "base/file.h"
#include "convert/model_config.h"
#include "zebra/convert.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

// What validate() says does not know of files.
ModelOptions validated(ModelOptions options, const fs::path& file) {
  try {
    options.validate();
  } catch (const ConfigError& error) {
    throw ConfigError(str(file.string(), ": ", error.what()));
  }
  return options;
}

}  // namespace

ModelOptions read_model_options(const fs::path& folder) {
  const auto llama = validated(read_llama_config(folder / kLlamaConfig), folder / kLlamaConfig);
  const bool hybrid = fs::exists(folder / kHybridConfig);
  const bool eco_mla =
      fs::exists(folder / kEcoMlaConfig) || fs::exists(folder / kEcoMlaLayerConfig);
  if (hybrid && eco_mla) {
    throw ConfigError(str(folder.string(), ": expected ", kHybridConfig, " or ", kEcoMlaConfig,
                          " with ", kEcoMlaLayerConfig, ", got both"));
  }
  if (hybrid) {
    return validated(read_hybrid_config(folder / kHybridConfig, llama), folder / kHybridConfig);
  }
  if (eco_mla) return validated(read_eco_mla_configs(folder, llama), folder / kEcoMlaLayerConfig);
  return llama;
}

void write_model_options(const fs::path& folder, const ModelOptions& options,
                         at::ScalarType dtype) {
  const auto llama = llama_config(options, dtype);
  nlohmann::ordered_json hybrid;
  if (!options.is_llama()) hybrid = hybrid_config(options);
  make_folders(folder);
  for (const char* name : {kHybridConfig, kEcoMlaConfig, kEcoMlaLayerConfig}) {
    const bool replaced = !options.is_llama() && name == kHybridConfig;
    if (replaced || !fs::exists(folder / name)) continue;
    throw ConfigError(
        str((folder / name).string(), ": stands in the way of another model's config"));
  }
  write_file_atomic(folder / kLlamaConfig, llama.dump(2) + "\n");
  if (!options.is_llama()) write_file_atomic(folder / kHybridConfig, hybrid.dump(2) + "\n");
}

}  // namespace zebra
