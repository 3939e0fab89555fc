// What writing a model and converting a folder have in common.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "zebra/model.h"
#include "zebra/safetensors.h"

namespace zebra {

using NamedInfos = std::vector<std::pair<std::string, TensorInfo>>;

// What a folder of this model in this dtype holds.
NamedInfos stored_infos(const ModelOptions& options, at::ScalarType dtype);

// ConfigError when there is something at `folder` that is not a model folder.
void check_replaceable(const std::filesystem::path& folder);

// Tokenizer files and generation_config.json, those that are there.
void copy_tokenizer(const std::filesystem::path& from, const std::filesystem::path& to);

}  // namespace zebra
