// The weights of a model folder: which there are, and reading them in the dtype that is wanted.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "zebra/convert.h"
#include "zebra/safetensors.h"

namespace zebra {

inline constexpr const char* kEmbedding = "model.embed_tokens.weight";
inline constexpr const char* kHead = "lm_head.weight";
inline constexpr const char* kFinalNorm = "model.norm.weight";

// "model.layers.3."
std::string layer_prefix(int64_t layer);

// A_log, dt_bias and D of Mamba2 are float32 also in models of 16 bits.
at::ScalarType weight_dtype(const std::string& name, at::ScalarType model_dtype);

// In another dtype; ConfigError when a finite value is beyond its range. `name` is for the error.
at::Tensor cast_weight(const at::Tensor& weight, at::ScalarType dtype, const std::string& name);

// A folder whose tensors are those that its configuration asks for. `options` say untied where the
// stored head differs from the embedding.
class ModelFolder {
 public:
  explicit ModelFolder(const std::filesystem::path& folder);

  const ModelOptions& options() const { return options_; }
  const std::filesystem::path& path() const { return folder_; }
  at::Tensor read(const std::string& name) const;  // lm_head.weight of a tied model: the embedding
  // Names in an order in which each file is mapped once.
  std::vector<std::string> by_file(std::vector<std::string> names) const;

 private:
  bool decide_tied() const;
  void check() const;

  std::filesystem::path folder_;
  WeightFolder weights_;
  ModelOptions options_;
};

// The options of layer `layer` as a model of one layer with a vocabulary of `vocab_size`, tied.
ModelOptions one_layer(const ModelOptions& options, int64_t layer, int64_t vocab_size);

// Replaces the parameters of a block or a shell by the folder's `prefix` + their names.
void fill(torch::nn::Module& module, const std::string& prefix, const ModelFolder& folder,
          const LoadOptions& load);

}  // namespace zebra
