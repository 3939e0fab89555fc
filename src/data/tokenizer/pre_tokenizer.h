// Cuts a text into the pieces that are encoded one by one.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/tokenizer/mapped_text.h"
#include "data/tokenizer/pattern.h"

namespace zebra {

class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual void take(const Piece& piece) = 0;
};

struct CutContext {
  bool wants_map;
  PatternScratch& scratch;
  PieceSink& sink;
};

class PreTokenizer {
 public:
  PreTokenizer() = default;  // one piece
  // `pre_tokenizer` of a tokenizer.json: Sequence, Split, ByteLevel, Metaspace, Digits,
  // Punctuation, Whitespace, WhitespaceSplit. Another type, and a ByteLevel that is not the last,
  // are a ConfigError.
  PreTokenizer(const json& value, const std::string& where);
  // Isolated matches of one regular expression, then bytes.
  static PreTokenizer byte_level(const std::string& expression);

  bool is_byte_level() const { return byte_level_; }
  // The character of a Metaspace, or "".
  const std::string& replacement() const { return replacement_; }

  void cut(const Piece& piece, const CutContext& context) const { run(0, piece, context); }

  // One step; each knows what to do with a piece and hands the results on.
  class Step;

 private:
  void add(const json& value, const std::string& where);
  void add_byte_level(const json& value, const std::string& where);
  void add_metaspace(const json& value, const std::string& where);
  void add_split(const Pattern& pattern, const std::string& behavior, bool invert,
                 const std::string& where);
  void run(size_t step, const Piece& piece, const CutContext& context) const;

  std::vector<std::shared_ptr<const Step>> steps_;
  bool byte_level_ = false;
  std::string replacement_;
};

}  // namespace zebra
