#include "data/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <functional>

#include "base/hash.h"
#include "data/utf8.h"

namespace zebra {
namespace {

constexpr int32_t kNone = -1;

uint64_t pair_of(int32_t left, int32_t right) {
  return (static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32U) | static_cast<uint32_t>(right);
}

size_t pair_hash(uint64_t pair) {
  pair *= 0x9E3779B97F4A7C15ULL;
  return pair ^ (pair >> 29U);
}

size_t table_size(size_t entries) { return std::bit_ceil(std::max<size_t>(16, 2 * entries)); }

}  // namespace

Bpe::Bpe(BpeVocabulary vocabulary) : vocabulary_(std::move(vocabulary)) {
  const auto& tokens = vocabulary_.tokens;
  by_bytes_.assign(table_size(tokens.size()), kNone);
  first_.fill(kNone);
  for (size_t id = 0; id < tokens.size(); ++id) {
    if (!tokens[id].empty()) add_token(static_cast<int32_t>(id));
  }
  merges_.resize(table_size(vocabulary_.merges.size()));
  for (const auto& merge : vocabulary_.merges) add_merge(merge);
  apart_ = words_are_apart();
  vocabulary_.merges = {};
}

void Bpe::add_token(int32_t id) {
  const auto& token = vocabulary_.tokens[id];
  if (token.size() == 1) first_[static_cast<unsigned char>(token[0])] = id;
  size_t at = hash_string(token);
  while (by_bytes_[at & (by_bytes_.size() - 1)] != kNone) ++at;
  by_bytes_[at & (by_bytes_.size() - 1)] = id;
}

int32_t Bpe::id_of(std::string_view token) const {
  for (size_t at = hash_string(token);; ++at) {
    const int32_t id = by_bytes_[at & (by_bytes_.size() - 1)];
    if (id == kNone || vocabulary_.tokens[id] == token) return id;
  }
}

// Of a pair that is listed twice the later rank counts, as in Hugging Face.
void Bpe::add_merge(const BpeMerge& merge) {
  const uint64_t pair = pair_of(merge.left, merge.right);
  for (size_t at = pair_hash(pair);; ++at) {
    auto& slot = merges_[at & (merges_.size() - 1)];
    if (slot.result != kNone && slot.pair != pair) continue;
    slot = {pair, merge.rank, merge.result};
    return;
  }
}

const Bpe::MergeSlot* Bpe::find_merge(int32_t left, int32_t right) const {
  const uint64_t pair = pair_of(left, right);
  for (size_t at = pair_hash(pair);; ++at) {
    const auto& slot = merges_[at & (merges_.size() - 1)];
    if (slot.result == kNone) return nullptr;
    if (slot.pair == pair) return &slot;
  }
}

// Whether no merge reaches from a word to the mark of the next. Where characters are left out, what
// lies at both sides of them may merge, so that no word ends for sure.
bool Bpe::words_are_apart() const {
  const auto& mark = vocabulary_.word_mark;
  if (mark.empty() || vocabulary_.ignore_merges || id_of(mark) == kNone) return false;
  const auto& bytes = vocabulary_.byte_ids;
  const bool all_bytes = !bytes.empty() && std::count(bytes.begin(), bytes.end(), kNone) == 0;
  if (!all_bytes && vocabulary_.unk_id == kNone) return false;
  return std::none_of(vocabulary_.merges.begin(), vocabulary_.merges.end(), [&](const auto& merge) {
    const auto& left = vocabulary_.tokens[merge.left];
    const auto& right = vocabulary_.tokens[merge.right];
    return right.starts_with(mark) && !left.ends_with(mark);
  });
}

void Bpe::encode(std::string_view piece, Scratch& scratch, std::vector<BpeToken>& tokens) const {
  size_t begin = 0;
  const auto& mark = vocabulary_.word_mark;
  while (apart_ && begin < piece.size()) {
    size_t end = begin;
    while (piece.substr(end).starts_with(mark)) end += mark.size();
    end = piece.find(mark, end);
    if (end == std::string_view::npos) break;
    encode_word(piece.substr(begin, end - begin), static_cast<uint32_t>(begin), scratch, tokens);
    begin = end;
  }
  if (begin < piece.size()) {
    encode_word(piece.substr(begin), static_cast<uint32_t>(begin), scratch, tokens);
  }
}

void Bpe::encode_word(std::string_view word, uint32_t begin, Scratch& scratch,
                      std::vector<BpeToken>& tokens) const {
  Scratch::Slot* slot = nullptr;
  if (word.size() <= sizeof slot->bytes) {
    slot = &scratch.slots_[hash_string(word) % Scratch::kSlots];
    if (slot->size == word.size() && std::memcmp(slot->bytes, word.data(), word.size()) == 0) {
      uint32_t last = begin;
      for (int i = 0; i < slot->count; ++i) {
        tokens.push_back({slot->ids[i], last, begin + slot->ends[i]});
        last = begin + slot->ends[i];
      }
      return;
    }
  }
  merge(word, scratch);
  const size_t first = tokens.size();
  for (int32_t at = scratch.symbols_.empty() ? kNone : 0; at != kNone;) {
    const auto& symbol = scratch.symbols_[at];
    tokens.push_back({symbol.id, begin + symbol.begin, begin + symbol.end});
    at = symbol.next;
  }
  const size_t count = tokens.size() - first;
  bool gap = false;  // what was left out; slots know no gaps
  for (size_t i = first; i < tokens.size(); ++i) {
    gap |= tokens[i].begin != (i == first ? begin : tokens[i - 1].end);
  }
  if (slot == nullptr || gap || count > std::size(slot->ids)) return;
  slot->size = static_cast<uint8_t>(word.size());
  slot->count = static_cast<uint8_t>(count);
  std::memcpy(slot->bytes, word.data(), word.size());
  for (size_t i = 0; i < count; ++i) {
    slot->ids[i] = tokens[first + i].id;
    slot->ends[i] = static_cast<uint8_t>(tokens[first + i].end - begin);
  }
}

// What has no token: its bytes, if they all have one; else the unknown token, which waits for more
// of its kind when they are fused.
void Bpe::begin_unknown(std::string_view word, BpeToken unit, BpeToken& unknown,
                        Scratch& scratch) const {
  const auto& bytes = vocabulary_.byte_ids;
  const auto text = word.substr(unit.begin, unit.end - unit.begin);
  const auto id_of_byte = [&](char c) { return bytes[static_cast<unsigned char>(c)]; };
  if (!bytes.empty() &&
      std::all_of(text.begin(), text.end(), [&](char c) { return id_of_byte(c) != kNone; })) {
    for (uint32_t at = unit.begin; at < unit.end; ++at) {
      scratch.symbols_.push_back({.id = id_of_byte(word[at]), .begin = at, .end = at + 1});
    }
    return;
  }
  if (vocabulary_.unk_id == kNone) return;
  if (unknown.id != kNone && vocabulary_.fuse_unk) {
    unknown.end = unit.end;
    return;
  }
  if (unknown.id != kNone) {
    scratch.symbols_.push_back({.id = unknown.id, .begin = unknown.begin, .end = unknown.end});
  }
  unknown = {vocabulary_.unk_id, unit.begin, unit.end};
}

// The word's bytes or characters as symbols.
void Bpe::begin(std::string_view word, Scratch& scratch) const {
  auto& symbols = scratch.symbols_;
  symbols.clear();
  BpeToken unknown{.id = kNone};
  const auto flush = [&] {
    if (unknown.id == kNone) return;
    symbols.push_back({.id = unknown.id, .begin = unknown.begin, .end = unknown.end});
    unknown.id = kNone;
  };
  for (uint32_t at = 0; at < word.size();) {
    const size_t length = vocabulary_.byte_level ? 1 : character_at(word, at).length;
    const auto end = at + static_cast<uint32_t>(length);
    const int32_t id =
        length == 1 ? first_[static_cast<unsigned char>(word[at])] : id_of(word.substr(at, length));
    if (id != kNone) {
      flush();
      symbols.push_back({.id = id, .begin = at, .end = end});
    } else {
      begin_unknown(word, {kNone, at, end}, unknown, scratch);
    }
    at = end;
  }
  flush();
}

void Bpe::merge(std::string_view word, Scratch& scratch) const {
  auto& symbols = scratch.symbols_;
  if (vocabulary_.ignore_merges) {
    if (const int32_t id = id_of(word); id != kNone) {
      symbols.assign(1, {.id = id, .begin = 0, .end = static_cast<uint32_t>(word.size())});
      return;
    }
  }
  begin(word, scratch);
  auto& queue = scratch.queue_;
  queue.clear();
  const auto consider = [&](int32_t at) {
    const int32_t next = at == kNone ? kNone : symbols[at].next;
    if (next == kNone) return;
    if (const auto* found = find_merge(symbols[at].id, symbols[next].id)) {
      queue.push_back({found->rank, found->result, static_cast<uint32_t>(at)});
      std::push_heap(queue.begin(), queue.end(), std::greater<>());
    }
  };
  const auto count = static_cast<int32_t>(symbols.size());
  for (int32_t i = 0; i < count; ++i) {
    symbols[i].previous = i - 1;
    symbols[i].next = i + 1 < count ? i + 1 : kNone;
  }
  for (int32_t i = 0; i < count; ++i) consider(i);
  while (!queue.empty()) {
    std::pop_heap(queue.begin(), queue.end(), std::greater<>());
    const auto best = queue.back();
    queue.pop_back();
    auto& left = symbols[best.at];
    if (left.id == kNone || left.next == kNone) continue;  // it was merged into another
    auto& right = symbols[left.next];
    const auto* still = find_merge(left.id, right.id);
    if (still == nullptr || still->result != best.result) continue;  // it grew since
    left.id = best.result;
    left.end = right.end;
    right.id = kNone;
    left.next = right.next;
    if (left.next != kNone) symbols[left.next].previous = static_cast<int32_t>(best.at);
    consider(left.previous);
    consider(static_cast<int32_t>(best.at));
  }
}

}  // namespace zebra
