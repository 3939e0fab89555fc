// Model folders: Hugging Face Llama, published Zebra-Llama hybrids (current and older
// hybrid_config.json), X-EcoMLA's two sidecars. docs/model_folder.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "zebra/model.h"

namespace zebra {

// config.json (+ hybrid_config.json, or MLA_config.json and mla_layer_config.json) -> options.
// Both forms of rope settings are read (rope_theta + rope_scaling, and rope_parameters). Unknown
// scaling types, odd head counts and the like are a ConfigError that names file and key.
ModelOptions read_model_options(const std::filesystem::path& folder);

// Writes config.json and, for a hybrid, hybrid_config.json with the published fields. A Llama's
// loads in Hugging Face transformers. What the files cannot say (llama3 scaling in MLA layers) is a
// ConfigError.
void write_model_options(const std::filesystem::path& folder, const ModelOptions& options,
                         at::ScalarType dtype);

// Name and shape of every tensor that a folder with these options holds, lm_head.weight included
// for hybrids even when tied (as published); for a tied Llama it is left out.
std::vector<std::pair<std::string, std::vector<int64_t>>> expected_tensors(
    const ModelOptions& options);

struct LoadOptions {
  at::ScalarType dtype = at::kFloat;  // the model's; files may be F64, F32, F16 or BF16
  at::Device device = at::kCPU;
};

// Reads a folder into a model. A weight that is missing, extra or of another shape is a ConfigError
// that names tensor, file and both shapes. Hybrids with a stored lm_head.weight that differs from
// the embedding load untied.
CausalLm load_model(const std::filesystem::path& folder, const LoadOptions& options);

// Writes a complete model folder (config, weights, tokenizer files copied from `tokenizer_from`
// when not empty), to a temporary name first; what lay at `folder` before is replaced only when all
// is on disk.
struct SaveOptions {
  at::ScalarType dtype = at::kFloat;
  std::filesystem::path
      tokenizer_from;  // a model folder whose tokenizer files are copied, or a tokenizer.model
  uint64_t shard_bytes = 5'000'000'000;
};
void save_model(const std::filesystem::path& folder, const CausalLm& model,
                const SaveOptions& options);

// src -> dst in another dtype or shard size without holding the model: memory stays under two
// shards. Reloads what it wrote and compares the logits of a short input; throws when they differ
// beyond the dtype's precision.
struct ConvertOptions {
  at::ScalarType dtype = at::kFloat;
  uint64_t shard_bytes = 5'000'000'000;
  bool overwrite = false;  // otherwise an existing dst is refused
};
void convert_folder(const std::filesystem::path& src, const std::filesystem::path& dst,
                    const ConvertOptions& options);

// The master weights of a training checkpoint as a model folder, one tensor in memory at a time.
struct CheckpointModel {
  std::filesystem::path checkpoint;  // step-N, or a folder of them: the newest good one
  std::string model;                 // which, where a stage trains several (mla, mamba2 of ild)
  std::filesystem::path tokenizer;   // folder or tokenizer.model; empty: where the run had it from
};
void convert_checkpoint(const CheckpointModel& source, const std::filesystem::path& dst,
                        const ConvertOptions& options);

}  // namespace zebra
