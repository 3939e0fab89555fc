// Byte-pair encoding of one piece of text.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace zebra {

// Two neighbours that become one token; the lowest rank goes first, at equal rank the leftmost.
struct BpeMerge {
  int32_t left = 0, right = 0;  // ids
  int32_t result = 0;           // id
  int32_t rank = 0;
};

struct BpeVocabulary {
  // By id: the bytes that a token stands for. "" is an id that no text gives.
  std::vector<std::string> tokens;
  std::vector<BpeMerge> merges;
  bool byte_level = false;        // a text begins as bytes, else as characters
  bool ignore_merges = false;     // a piece that is a token stays whole, whatever the merges say
  bool fuse_unk = false;          // neighbours that are unknown become one token
  int32_t unk_id = -1;            // of what has no token; -1: it is left out
  std::vector<int32_t> byte_ids;  // fallback for characters without a token: 256 ids or none; -1
  // A character such as U+2581 that words begin with. Where no token has it behind another
  // character, words are encoded one by one, which gives the same ids.
  std::string word_mark;
};

// A token of a piece, and its bytes in it.
struct BpeToken {
  int32_t id = 0;
  uint32_t begin = 0, end = 0;
};

class Bpe {
 public:
  explicit Bpe(BpeVocabulary vocabulary);

  // What a thread needs to encode, and the pieces it met before. Not to be shared.
  class Scratch;

  // Appends the tokens of a piece. Takes time O(n log n) in its length.
  void encode(std::string_view piece, Scratch& scratch, std::vector<BpeToken>& tokens) const;

  int32_t id_of(std::string_view token) const;  // -1: none
  const std::vector<std::string>& tokens() const { return vocabulary_.tokens; }

 private:
  struct MergeSlot {
    uint64_t pair = 0;
    int32_t rank = 0, result = -1;  // result -1: free
  };
  const MergeSlot* find_merge(int32_t left, int32_t right) const;
  void add_merge(const BpeMerge& merge);
  void add_token(int32_t id);
  bool words_are_apart() const;
  void encode_word(std::string_view word, uint32_t begin, Scratch& scratch,
                   std::vector<BpeToken>& tokens) const;
  void merge(std::string_view word, Scratch& scratch) const;
  void begin(std::string_view word, Scratch& scratch) const;
  void begin_unknown(std::string_view word, BpeToken unit, BpeToken& unknown,
                     Scratch& scratch) const;

  BpeVocabulary vocabulary_;
  std::vector<MergeSlot> merges_;   // open addressing, a power of two
  std::vector<int32_t> by_bytes_;   // ids by their bytes' hash; -1: free
  std::array<int32_t, 256> first_;  // ids of single bytes; -1: none
  bool apart_ = false;
};

class Bpe::Scratch {
 public:
  Scratch() : slots_(kSlots) {}

 private:
  friend class Bpe;

  // Short pieces with few tokens; a slot is a line of the processor's cache.
  static constexpr size_t kSlots = size_t{1} << 15U;
  struct alignas(64) Slot {
    uint8_t size = 0, count = 0;
    char bytes[30];
    int32_t ids[6];
    uint8_t ends[6];
  };
  static_assert(sizeof(Slot) == 64);

  struct Symbol {
    int32_t id = 0;
    uint32_t begin = 0, end = 0;
    int32_t previous = -1, next = -1;
  };
  struct Candidate {
    int32_t rank = 0, result = 0;
    uint32_t at = 0;
    bool operator>(const Candidate& other) const {
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };

  std::vector<Slot> slots_;
  std::vector<Symbol> symbols_;
  std::vector<Candidate> queue_;
};

}  // namespace zebra
