// What a tokenizer does to a text before it is cut.
#pragma once

#include <deque>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/tokenizer/mapped_text.h"
#include "data/tokenizer/pattern.h"

namespace zebra {

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // `normalizer` of a tokenizer.json: Sequence, NFC, NFD, NFKC, NFKD, Prepend, Replace, Strip.
  // Another type is a ConfigError.
  Normalizer(const json& value, const std::string& where);

  // The changed text lies in `texts`, which has one entry a step.
  Piece apply(Piece piece, bool wants_map, std::deque<MappedText>& texts,
              PatternScratch& scratch) const;
  std::string apply(const std::string& text) const;
  bool empty() const { return steps_.empty(); }

 private:
  enum class Kind { kUnicode, kPrepend, kReplace, kStrip };
  struct Step {
    Kind kind;
    int form = 0;                      // kUnicode: utf8proc's options
    std::string content;               // kPrepend, kReplace
    std::vector<Pattern> pattern;      // kReplace: one
    bool left = false, right = false;  // kStrip
  };
  void add(const json& value, const std::string& where);
  static Piece apply_step(const Step& step, const Piece& piece, MappedText& text,
                          PatternScratch& scratch);

  std::vector<Step> steps_;
};

}  // namespace zebra
