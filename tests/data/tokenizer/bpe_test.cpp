// Byte-pair encoding against its slow twin, which looks through all neighbours for each merge.
#include "data/tokenizer/bpe.h"

#include <map>

#include "data/random.h"
#include "support/testing.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

using Ids = std::vector<int32_t>;

// All bytes, and `count` merges of random tokens.
BpeVocabulary random_vocabulary(uint64_t seed, int count, int letters) {
  BpeVocabulary vocabulary{
      .tokens = {}, .merges = {}, .byte_level = true, .byte_ids = {}, .word_mark = ""};
  for (int byte = 0; byte < 256; ++byte) {
    vocabulary.tokens.emplace_back(1, static_cast<char>(byte));
  }
  Random random(seed);
  Ids usable;
  for (int i = 0; i < letters; ++i) usable.push_back('a' + i);
  std::map<std::string, int32_t> known;
  while (count-- > 0) {
    const auto left = usable[random.below(usable.size())];
    const auto right = usable[random.below(usable.size())];
    const auto text = vocabulary.tokens[left] + vocabulary.tokens[right];
    const auto [found, added] = known.emplace(text, static_cast<int32_t>(vocabulary.tokens.size()));
    if (added) {
      vocabulary.tokens.push_back(text);
      usable.push_back(found->second);
    }
    vocabulary.merges.push_back(
        {left, right, found->second, static_cast<int32_t>(vocabulary.merges.size())});
  }
  return vocabulary;
}

Ids slow_encode(const BpeVocabulary& vocabulary, const std::string& text) {
  std::map<std::pair<int32_t, int32_t>, BpeMerge> merges;
  for (const auto& merge : vocabulary.merges) merges[{merge.left, merge.right}] = merge;
  Ids ids;
  for (const char c : text) ids.push_back(static_cast<unsigned char>(c));
  while (true) {
    const BpeMerge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < ids.size(); ++i) {
      const auto found = merges.find({ids[i], ids[i + 1]});
      if (found == merges.end() || (best != nullptr && found->second.rank >= best->rank)) continue;
      best = &found->second;
      at = i;
    }
    if (best == nullptr) return ids;
    ids[at] = best->result;
    ids.erase(ids.begin() + static_cast<int64_t>(at) + 1);
  }
}

std::vector<BpeToken> encode(const Bpe& model, const std::string& text, Bpe::Scratch& scratch) {
  std::vector<BpeToken> tokens;
  model.encode(text, scratch, tokens);
  return tokens;
}

Ids ids_of(const std::vector<BpeToken>& tokens) {
  Ids ids;
  for (const auto& token : tokens) ids.push_back(token.id);
  return ids;
}

}  // namespace

TEST_CASE("bpe: ids equal those of the slow twin on random vocabularies and words") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    const auto vocabulary = random_vocabulary(seed, 60, /*letters=*/3);
    const Bpe model(vocabulary);
    Bpe::Scratch scratch;
    Random random(seed + 100);
    for (int round = 0; round < 200; ++round) {
      std::string word;
      for (auto left = random.below(40) + 1; left > 0; --left) {
        word += static_cast<char>('a' + random.below(3));
      }
      INFO(seed << " " << word);
      const auto expected = slow_encode(vocabulary, word);
      CHECK(ids_of(encode(model, word, scratch)) == expected);
      CHECK(ids_of(encode(model, word, scratch)) == expected);  // now it may be remembered
    }
  }
}

TEST_CASE("bpe: tokens lie side by side and spell the word") {
  const auto vocabulary = random_vocabulary(5, 80, /*letters=*/4);
  const Bpe model(vocabulary);
  Bpe::Scratch scratch;
  const std::string word = "abcdabbbcaadddcbaabcdabcdabcaaaa";
  for (int round = 0; round < 2; ++round) {
    uint32_t last = 0;
    for (const auto& [id, begin, end] : encode(model, word, scratch)) {
      CHECK(begin == last);
      CHECK(model.tokens()[id] == word.substr(begin, end - begin));
      last = end;
    }
    CHECK(last == word.size());
  }
}

TEST_CASE("bpe: a long word takes a time that grows with its length, not with its square") {
  const auto vocabulary = random_vocabulary(7, 100, /*letters=*/3);
  const Bpe model(vocabulary);
  Bpe::Scratch scratch;
  std::string word;
  Random random(9);
  for (int i = 0; i < 400'000; ++i) word += static_cast<char>('a' + random.below(3));
  const auto tokens = encode(model, word, scratch);  // by squares this takes hours
  CHECK(tokens.size() < word.size());
  CHECK(tokens.back().end == word.size());
}

TEST_CASE("bpe: tokens are found by their bytes") {
  const auto vocabulary = random_vocabulary(3, 50, /*letters=*/3);
  const Bpe model(vocabulary);
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    CHECK(model.id_of(vocabulary.tokens[id]) == static_cast<int32_t>(id));
  }
  CHECK(model.id_of("zz") == -1);
  CHECK(model.id_of("") == -1);
}
