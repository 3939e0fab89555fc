// The text of tokens while they are made.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "zebra/tokenizer.h"

namespace zebra {

// Gives each piece of text once it can no longer change: bytes of an unfinished character wait, and
// so does what may become a stop string, which ends the text and is not part of it.
class TextStream {
 public:
  // `context`: tokens before the first one, whose text is not given.
  TextStream(const Tokenizer& tokenizer, const std::vector<int64_t>& context,
             std::vector<std::string> stops);

  std::string add(int64_t id);  // what may be shown now
  std::string finish();         // what was still waiting
  bool stopped() const { return stopped_; }
  const std::string& text() const { return text_; }  // all that was given

 private:
  std::string decode_fresh(bool whole);
  std::string release(bool whole);

  const Tokenizer& tokenizer_;
  std::vector<std::string> stops_;
  std::vector<int64_t> ids_;
  size_t begin_ = 0, read_ = 0;  // ids_[begin_, read_) were decoded and are context for the next
  std::string waiting_, text_;
  bool stopped_ = false;
};

}  // namespace zebra
