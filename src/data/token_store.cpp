#include "data/token_store.h"

#include <algorithm>

#include "base/hash.h"

namespace zebra {

namespace {

// The last entry of an ascending list that is not above `value`.
template <class Values>
int64_t last_not_above(const Values& values, int64_t value) {
  const auto above =
      std::upper_bound(values.begin(), values.end(), value, [](auto left, auto right) {
        return static_cast<int64_t>(left) < static_cast<int64_t>(right);
      });
  return above - values.begin() - 1;
}

}  // namespace

TokenStore::TokenStore(std::vector<std::shared_ptr<const Shard>> shards, std::string name)
    : shards_(std::move(shards)), name_(std::move(name)) {
  std::erase_if(shards_, [](const auto& shard) { return shard->documents() == 0; });
  for (const auto& shard : shards_) {
    first_document_.push_back(first_document_.back() + shard->documents());
    first_token_.push_back(first_token_.back() + shard->tokens());
  }
}

std::shared_ptr<const TokenStore> TokenStore::joined(
    const std::vector<std::shared_ptr<const TokenStore>>& stores) {
  std::vector<std::shared_ptr<const Shard>> shards;
  std::string names;
  for (const auto& store : stores) {
    shards.insert(shards.end(), store->shards_.begin(), store->shards_.end());
    names += (names.empty() ? "" : ", ") + store->name_;
  }
  return std::make_shared<TokenStore>(std::move(shards), names.empty() ? "no source" : names);
}

uint64_t TokenStore::hash() const {
  Hasher hasher;
  for (const auto& shard : shards_) hasher.add(shard->header().body_hash);
  return hasher.value();
}

size_t TokenStore::shard_of_token(int64_t token) const {
  return static_cast<size_t>(last_not_above(first_token_, token));
}

size_t TokenStore::shard_of_document(int64_t index) const {
  return static_cast<size_t>(last_not_above(first_document_, index));
}

int64_t TokenStore::local_document(size_t shard, int64_t token) const {
  return last_not_above(shards_[shard]->starts(), token);
}

TokenStore::Piece TokenStore::document(int64_t index) const {
  const auto s = shard_of_document(index);
  const auto local = static_cast<size_t>(index - first_document_[s]);
  const auto starts = shards_[s]->starts();
  return {.shard = shards_[s].get(),
          .first = static_cast<int64_t>(starts[local]),
          .count = static_cast<int64_t>(starts[local + 1] - starts[local]),
          .starts = true};
}

int64_t TokenStore::document_bytes(int64_t index) const {
  const auto s = shard_of_document(index);
  return static_cast<int64_t>(shards_[s]->text_bytes(index - first_document_[s]));
}

int64_t TokenStore::document_start(int64_t index) const {
  if (index == documents()) return tokens();
  const auto s = shard_of_document(index);
  return first_token_[s] + document(index).first;
}

int64_t TokenStore::document_at(int64_t token) const {
  const auto s = shard_of_token(token);
  return first_document_[s] + local_document(s, token - first_token_[s]);
}

}  // namespace zebra
