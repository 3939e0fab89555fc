// All documents of one or several sources as one stream of tokens, over shards.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/shard.h"

namespace zebra {

class TokenStore {
 public:
  // Shards in the order of the stream; `name` is what error texts call the text.
  TokenStore(std::vector<std::shared_ptr<const Shard>> shards, std::string name);
  // The documents of several stores, one store after the other.
  static std::shared_ptr<const TokenStore> joined(
      const std::vector<std::shared_ptr<const TokenStore>>& stores);

  int64_t documents() const { return first_document_.back(); }
  int64_t tokens() const { return first_token_.back(); }
  uint64_t hash() const;  // of all tokens, boundaries and answers
  const std::string& name() const { return name_; }

  // Tokens that lie side by side and belong to one document.
  struct Piece {
    const Shard* shard = nullptr;
    int64_t first = 0;  // of the shard's tokens
    int64_t count = 0;
    bool starts = false;  // the document begins here
    const uint32_t* ids() const { return shard->ids() + first; }
  };

  Piece document(int64_t index) const;
  int64_t document_bytes(int64_t index) const;  // of its text
  int64_t document_start(int64_t index) const;  // in the stream
  int64_t document_at(int64_t token) const;     // the one that the stream's token belongs to

  // Calls visit(piece) for the pieces that make [begin, end) of the stream.
  template <class Visit>
  void visit(int64_t begin, int64_t end, Visit&& visit) const {
    for (size_t s = shard_of_token(begin); begin < end; ++s) {
      const auto starts = shards_[s]->starts();
      const int64_t base = first_token_[s];
      const int64_t stop = std::min(end, first_token_[s + 1]);
      auto document = local_document(s, begin - base);
      for (; begin < stop; ++document) {
        const auto last = std::min(stop, base + static_cast<int64_t>(starts[document + 1]));
        visit(Piece{.shard = shards_[s].get(),
                    .first = begin - base,
                    .count = last - begin,
                    .starts = begin - base == static_cast<int64_t>(starts[document])});
        begin = last;
      }
    }
  }

 private:
  size_t shard_of_token(int64_t token) const;
  size_t shard_of_document(int64_t index) const;
  int64_t local_document(size_t shard, int64_t token) const;

  std::vector<std::shared_ptr<const Shard>> shards_;         // none empty
  std::vector<int64_t> first_document_{0}, first_token_{0};  // of each shard, and the totals
  std::string name_;
};

}  // namespace zebra
