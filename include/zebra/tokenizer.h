// Text to token ids and back, as Hugging Face does it. docs/data.md tells which files are read.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace zebra {

struct TextSpan {
  size_t begin = 0, end = 0;  // bytes of a text
  bool operator==(const TextSpan&) const = default;
};

struct Encoding {
  std::vector<int64_t> ids;
  // Of each id, in order and without overlap. A token that stands for no byte (a prefix that the
  // tokenizer puts in front) has an empty span.
  std::vector<TextSpan> spans;
};

// All methods may be called from several threads at once.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  // Ids of the text alone: no BOS, no EOS. Names of added tokens in the text become these tokens,
  // as in Hugging Face. Bytes that are no UTF-8 count as U+FFFD; NUL is a character like any other.
  virtual std::vector<int64_t> encode(std::string_view text) const = 0;
  // The same ids, and where in the text they come from.
  virtual Encoding encode_with_spans(std::string_view text) const = 0;

  // Valid UTF-8: bytes that form no character become U+FFFD. Special tokens are left out, or shown.
  virtual std::string decode(const std::vector<int64_t>& ids) const = 0;
  virtual std::string decode_with_special(const std::vector<int64_t>& ids) const = 0;

  virtual int64_t vocab_size() const = 0;  // one more than the largest id
  virtual int64_t bos_id() const = 0;      // -1: none
  virtual int64_t eos_id() const = 0;      // -1: none
  // Whether Hugging Face puts BOS before, and EOS after, a text that a model is to read.
  virtual bool adds_bos() const = 0;
  virtual bool adds_eos() const = 0;

  virtual std::string piece(int64_t id) const = 0;          // as the tokenizer's file writes it
  virtual int64_t id_of(std::string_view piece) const = 0;  // -1: no such token
  virtual bool is_special(int64_t id) const = 0;
  virtual uint64_t hash() const = 0;  // of the files: equal for tokenizers that give equal ids
};

// From a model folder: tokenizer.json, otherwise tokenizer.model (SentencePiece, or Llama 3's
// ranks), with tokenizer_config.json, special_tokens_map.json and added_tokens.json where they lie
// beside it. Or from one of the two files, then alone. ConfigError for a folder without either, and
// for a file with a component that is not known, by its name.
std::unique_ptr<Tokenizer> load_tokenizer(const std::filesystem::path& folder_or_file);

// The ids of a text with BOS before them where the tokenizer adds one; never a second before a text
// that begins with it.
std::vector<int64_t> encode_with_bos(const Tokenizer& tokenizer, std::string_view text);

}  // namespace zebra
