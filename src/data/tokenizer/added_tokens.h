// Tokens that are found in a text by their names, before anything else is done to it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"

namespace zebra {

struct AddedToken {
  int64_t id = -1;  // -1: not given
  std::string content;
  bool single_word = false;  // not within a word
  bool lstrip = false;       // takes the white space before it
  bool rstrip = false;       // and after it
  bool normalized = true;    // looked for in the normalised text, in normalised form
  bool special = false;      // left out of decoded text
  std::string where = {};    // the file that names it as BOS or EOS, where that is another one
};
// From an item of `added_tokens`, an entry of `added_tokens_decoder`, or the value of bos_token and
// the like; a plain string is a special token that is not normalised.
AddedToken added_token_from_json(const json& value, const std::string& where);

// Finds the longest of several strings that begins at a place.
class Matcher {
 public:
  void add(std::string_view content, int64_t id);
  struct Match {
    size_t begin = 0, end = 0;
    int64_t id = -1;  // -1: none
  };
  Match find(std::string_view text, size_t from) const;  // the first at or after `from`
  bool empty() const { return nodes_.empty(); }

 private:
  struct Node {
    std::vector<std::pair<char, int32_t>> children;
    int64_t id = -1;
  };
  const Node* child(const Node& node, char c) const;
  Match match_at(std::string_view text, size_t at) const;

  std::vector<Node> nodes_;  // the first is the root
  std::vector<bool> begins_ = std::vector<bool>(256, false);
};

class AddedTokens {
 public:
  // `normal` is the content as the normaliser leaves it. A content that is there already gets these
  // flags and this id.
  void add(const AddedToken& token);
  // Looks for normalised tokens by `normalize`d names. To be called once, after the last add().
  template <class Normalize>
  void index(Normalize&& normalize) {
    for (const auto& [id, token] : by_id_) {
      if (token.normalized) {
        normalized_.add(normalize(token.content), id);
      } else {
        raw_.add(token.content, id);
      }
    }
  }

  struct Part {
    size_t begin = 0, end = 0;
    int64_t id = -1;  // -1: text
  };
  // All of the text in order.
  std::vector<Part> split_raw(std::string_view text) const { return split(text, raw_); }
  std::vector<Part> split_normalized(std::string_view text) const {
    return split(text, normalized_);
  }
  bool any_raw() const { return !raw_.empty(); }
  bool any_normalized() const { return !normalized_.empty(); }

  const AddedToken* find(int64_t id) const;
  int64_t id_of(std::string_view content) const;  // -1: none
  const std::map<int64_t, AddedToken>& by_id() const { return by_id_; }

 private:
  std::vector<Part> split(std::string_view text, const Matcher& matcher) const;

  std::map<int64_t, AddedToken> by_id_;
  std::map<std::string, int64_t, std::less<>> by_content_;
  Matcher raw_, normalized_;
};

}  // namespace zebra
