// Which tokens are added to a vocabulary, and which of them are BOS and EOS.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "data/tokenizer/added_tokens.h"
#include "data/tokenizer/tokenizer_files.h"

namespace zebra {

class NamedTokens {
 public:
  // The names of a vocabulary by id, "" for an id without one.
  explicit NamedTokens(std::vector<std::string> names);

  // With the flags it comes with; one without an id gets that of its content, or the next free one.
  // An id that stands for another token is a ConfigError, whose text `where` begins.
  void add(AddedToken token, const std::string& where);
  // What the files beside the tokenizer name. A BOS or EOS that is no token is a ConfigError.
  void add(const TokenizerFiles& files);

  const std::vector<std::string>& names() const { return names_; }  // those added among them
  int64_t id_of(const std::string& content) const;                  // -1: none
  const AddedTokens& added() const { return added_; }
  int64_t bos_id() const { return bos_id_; }
  int64_t eos_id() const { return eos_id_; }

 private:
  int64_t add_named(const std::optional<AddedToken>& token, const char* key,
                    const TokenizerFiles& files);

  std::vector<std::string> names_;
  std::unordered_map<std::string, int64_t> ids_;
  AddedTokens added_;
  int64_t bos_id_ = -1, eos_id_ = -1;
};

}  // namespace zebra
