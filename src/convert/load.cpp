#include "base/progress.h"
#include "base/rng.h"
#include "convert/weights.h"
#include "zebra/convert.h"
#include "zebra/error.h"

namespace zebra {

namespace {

// Block by block, so that only one block's random weights are ever in memory beside those read.
std::vector<Block> load_blocks(const ModelFolder& folder, const LoadOptions& load) {
  std::vector<Block> blocks;
  const int64_t L = folder.options().num_layers();
  Progress progress(str("layers of ", folder.path().string()), L, /*tokens_per_step=*/0);
  for (int64_t layer = 0; layer < L; ++layer) {
    progress.update(layer, "");
    blocks.emplace_back(folder.options(), layer);
    fill(*blocks.back(), layer_prefix(layer), folder, load);
  }
  return blocks;
}

// Embedding, final norm and head.
CausalLm load_shell(const ModelFolder& folder, const LoadOptions& load) {
  ModelOptions options = one_layer(folder.options(), 0, folder.options().vocab_size);
  options.tie_word_embeddings = folder.options().tie_word_embeddings;
  CausalLm shell(options);
  const torch::NoGradGuard no_grad;
  for (auto& item : shell->named_parameters()) {
    const auto& name = item.key();
    if (name.starts_with(layer_prefix(0))) continue;
    const at::Tensor weight = cast_weight(folder.read(name), load.dtype, name);
    item.value().set_data(weight.to(load.device));
  }
  return shell;
}

}  // namespace

CausalLm load_model(const std::filesystem::path& path, const LoadOptions& load) {
  TORCH_CHECK(at::isFloatingType(load.dtype), "load_model dtype: expected a floating one, got ",
              load.dtype);
  const KeepDefaultGenerator keep;
  const ModelFolder folder(path);
  const CausalLm shell = load_shell(folder, load);
  return CausalLm(folder.options(), *shell, load_blocks(folder, load));
}

}  // namespace zebra
