#include "eval/fork_cache.h"

namespace zebra {

namespace {

at::Tensor pick(const at::Tensor& tensor, const std::vector<int64_t>& rows) {
  if (!tensor.defined()) return tensor;
  return tensor.index_select(0, torch::tensor(rows, torch::kLong).to(tensor.device()));
}

std::unique_ptr<LayerCache> fork_layer(const LayerCache& layer, const std::vector<int64_t>& rows) {
  if (const auto* attention = dynamic_cast<const AttentionCache*>(&layer)) {
    auto fork = std::make_unique<AttentionCache>();
    fork->key = pick(attention->key, rows);
    fork->value = pick(attention->value, rows);
    return fork;
  }
  if (const auto* mla = dynamic_cast<const MlaCache*>(&layer)) {
    auto fork = std::make_unique<MlaCache>();
    fork->latent = pick(mla->latent, rows);
    return fork;
  }
  const auto* mamba2 = dynamic_cast<const Mamba2Cache*>(&layer);
  TORCH_CHECK(mamba2 != nullptr, "fork_cache: a cache of an unknown kind");
  auto fork = std::make_unique<Mamba2Cache>();
  fork->conv = pick(mamba2->conv, rows);
  fork->ssm = pick(mamba2->ssm, rows);
  return fork;
}

}  // namespace

ModelCache fork_cache(const ModelCache& cache, const std::vector<int64_t>& rows) {
  ModelCache fork;
  for (const auto& layer : cache.layers) fork.layers.push_back(fork_layer(*layer, rows));
  fork.length = cache.length;
  return fork;
}

}  // namespace zebra
