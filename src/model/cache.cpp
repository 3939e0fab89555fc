#include "model/cache.h"

#include <algorithm>

#include "zebra/error.h"

namespace zebra {

void CacheOptions::validate() const {
  if (block_tokens < 1) {
    throw ConfigError(str("cache block_tokens: expected at least 1, got ", block_tokens));
  }
  if (state != CacheDtype::kFloat32 && state != CacheDtype::kBfloat16) {
    throw ConfigError(str("cache state: expected fp32 or bf16, got ", enum_name(state)));
  }
}

bool CachePlace::starts() const {
  return std::all_of(first.begin(), first.end(), [](int64_t f) { return f == 0; });
}

// ---- by token -----------------------------------------------------------------------------------

TokenCache::TokenCache(const CacheOptions& options, std::vector<std::vector<int64_t>> parts)
    : options_(options) {
  for (auto& widths : parts)
    stores.push_back({.values = {}, .scales = {}, .parts = std::move(widths)});
}

int64_t TokenCache::bytes_per_token() const {
  int64_t total = 0;
  for (const auto& store : stores) total += store.bytes_per_token();
  return total;
}

int64_t TokenCache::reserved_bytes() const {
  int64_t total = 0;
  for (const auto& store : stores) total += bytes_of(store.values) + bytes_of(store.scales);
  return total;
}

void TokenCache::put(const std::vector<at::Tensor>& fresh, const CachePlace& place) {
  const int64_t longest = *std::max_element(place.first.begin(), place.first.end());
  for (size_t i = 0; i < stores.size(); ++i) {
    const int64_t B = fresh[i].size(0), T = fresh[i].size(1);
    const auto type = stored_type(options_.tokens, fresh[i].scalar_type());
    reserve_tokens(stores[i], B, longest + T, options_.block_tokens,
                   fresh[i].options().dtype(type).requires_grad(false));
    put_tokens(stores[i], fresh[i], place.first);
  }
}

std::unique_ptr<LayerCache> TokenCache::select(const std::vector<int64_t>& rows) const {
  auto chosen = std::make_unique<TokenCache>(options_, std::vector<std::vector<int64_t>>{});
  for (const auto& store : stores) {
    chosen->stores.push_back({.values = rows_of(store.values, rows),
                              .scales = rows_of(store.scales, rows),
                              .parts = store.parts});
  }
  return chosen;
}

void TokenCache::append(const LayerCache& other) {
  const auto* more = dynamic_cast<const TokenCache*>(&other);
  TORCH_CHECK(more != nullptr && more->stores.size() == stores.size(),
              "cache: expected rows of the same kind of layer");
  for (size_t i = 0; i < stores.size(); ++i) {
    auto below = more->stores[i];
    const int64_t room = std::max(stores[i].room(), below.room());
    for (auto* store : {&stores[i], &below}) {
      if (store->room() == 0) continue;
      reserve_tokens(*store, store->values.size(0), room, options_.block_tokens,
                     store->values.options());
    }
    stores[i].values = joined(stores[i].values, below.values);
    stores[i].scales = joined(stores[i].scales, below.scales);
  }
}

// ---- the model's --------------------------------------------------------------------------------

int64_t ModelCache::length() const {
  return lengths.empty() ? 0 : *std::max_element(lengths.begin(), lengths.end());
}

int64_t ModelCache::bytes() const {
  int64_t tokens = 0, total = 0;
  for (const int64_t length : lengths) tokens += length;
  for (const auto& layer : layers)
    total += tokens * layer->bytes_per_token() + layer->state_bytes();
  return total;
}

int64_t ModelCache::reserved_bytes() const {
  int64_t total = 0;
  for (const auto& layer : layers) total += layer->reserved_bytes();
  return total;
}

void ModelCache::keep(const std::vector<int64_t>& counts) {
  TORCH_CHECK(tentative && counts.size() == lengths.size(),
              "cache keep: expected a proposed piece of ", counts.size(), " rows");
  for (const auto& layer : layers) layer->keep(counts);
  for (size_t b = 0; b < counts.size(); ++b) lengths[b] += counts[b];
  tentative = false;
}

ModelCache ModelCache::select(const std::vector<int64_t>& rows) const {
  TORCH_CHECK(!tentative, "cache select: a proposed piece waits for keep()");
  ModelCache chosen;
  for (const auto& layer : layers) chosen.layers.push_back(layer->select(rows));
  for (const int64_t row : rows) chosen.lengths.push_back(lengths.at(row));
  return chosen;
}

void ModelCache::append(const ModelCache& other) {
  TORCH_CHECK(!tentative && !other.tentative, "cache append: a proposed piece waits for keep()");
  TORCH_CHECK(layers.size() == other.layers.size(), "cache append: expected a cache of ",
              layers.size(), " layers, got ", other.layers.size());
  for (size_t i = 0; i < layers.size(); ++i) layers[i]->append(*other.layers[i]);
  lengths.insert(lengths.end(), other.lengths.begin(), other.lengths.end());
}

CacheMark ModelCache::mark() const {
  TORCH_CHECK(!tentative, "cache mark: a proposed piece waits for keep()");
  CacheMark mark{.states = {}, .lengths = lengths};
  for (const auto& layer : layers) mark.states.push_back(layer->states());
  return mark;
}

void ModelCache::rewind(const CacheMark& mark) {
  tentative = false;
  lengths = mark.lengths;
  for (size_t i = 0; i < layers.size(); ++i) layers[i]->restore(mark.states[i]);
}

}  // namespace zebra
