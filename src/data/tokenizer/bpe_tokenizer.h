// The parts of a BPE tokenizer, put together.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/bpe.h"
#include "data/tokenizer/decoder.h"
#include "data/tokenizer/normalizer.h"
#include "data/tokenizer/pre_tokenizer.h"
#include "data/tokenizer/tokenizer_files.h"
#include "zebra/tokenizer.h"

namespace zebra {

struct BpeTokenizerParts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  Bpe model;
  Decoder decoder;
  AddedTokens added;
  std::vector<std::string> names;  // by id, as the file writes them; "" for none
  int64_t bos_id = -1, eos_id = -1;
  bool adds_bos = false, adds_eos = false;
  uint64_t hash = 0;
};

class BpeTokenizer final : public Tokenizer {
 public:
  explicit BpeTokenizer(BpeTokenizerParts parts);
  ~BpeTokenizer() override;

  std::vector<int64_t> encode(std::string_view text) const override;
  Encoding encode_with_spans(std::string_view text) const override;
  std::string decode(const std::vector<int64_t>& ids) const override;
  std::string decode_with_special(const std::vector<int64_t>& ids) const override;
  int64_t vocab_size() const override { return static_cast<int64_t>(parts_.names.size()); }
  int64_t bos_id() const override { return parts_.bos_id; }
  int64_t eos_id() const override { return parts_.eos_id; }
  bool adds_bos() const override { return parts_.adds_bos; }
  bool adds_eos() const override { return parts_.adds_eos; }
  std::string piece(int64_t id) const override;
  int64_t id_of(std::string_view piece) const override;
  bool is_special(int64_t id) const override;
  uint64_t hash() const override { return parts_.hash; }

 private:
  class Run;
  struct Scratch;
  class ScratchLease;

  void check_id(const char* subject, int64_t id) const;
  Encoding run(std::string_view text, bool wants_spans) const;

  BpeTokenizerParts parts_;
  std::unordered_map<std::string_view, int64_t> by_name_;  // into parts_.names
  mutable std::mutex mutex_;
  mutable std::vector<std::unique_ptr<Scratch>> scratch_;  // what no thread uses
};

// tokenizer.json of the Hugging Face library: BPE.
std::unique_ptr<Tokenizer> read_json_tokenizer(TokenizerFiles files);
// tokenizer.model of Llama 3: a line of base64 and rank for each token.
std::unique_ptr<Tokenizer> read_ranks_tokenizer(TokenizerFiles files, std::string_view text);
bool looks_like_ranks(std::string_view text);
// tokenizer.model of Llama 1 and 2.
enum class Spaces {
  kAsInFile,
  kKept,  // every one counts, whatever the file says: harness_tokenizer.h
};
std::unique_ptr<Tokenizer> read_sentencepiece_tokenizer(TokenizerFiles files,
                                                        const std::string& bytes, Spaces spaces);

}  // namespace zebra
