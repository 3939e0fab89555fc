#include "data/tokenizer/added_tokens.h"

#include <algorithm>

#include "data/utf8.h"
#include "zebra/error.h"

namespace zebra {
namespace {

size_t last_character(std::string_view text) {  // where it begins
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0U) == 0x80U) --at;
  return at;
}

bool within_word(std::string_view text, size_t begin, size_t end) {
  const auto before = text.substr(0, begin);
  if (!before.empty() && is_word_character(character_at(before, last_character(before)).code)) {
    return true;
  }
  return end < text.size() && is_word_character(character_at(text, end).code);
}

size_t strip_left(std::string_view text, size_t begin, size_t least) {
  while (begin > least) {
    const size_t last = last_character(text.substr(0, begin));
    if (!is_white_space(character_at(text, last).code)) break;
    begin = last;
  }
  return std::max(begin, least);
}

size_t strip_right(std::string_view text, size_t end) {
  while (end < text.size()) {
    const auto [code, length] = character_at(text, end);
    if (!is_white_space(code)) break;
    end += length;
  }
  return end;
}

}  // namespace

AddedToken added_token_from_json(const json& value, const std::string& where) {
  AddedToken token;
  if (value.is_string()) {
    token.content = value.get<std::string>();
    token.normalized = false;
    token.special = true;
    return token;
  }
  token.id = find_value<int64_t>(value, "id", where).value_or(-1);
  token.content = require<std::string>(value, "content", where);
  const auto flag = [&](const char* key, bool usual) {
    return find_value<bool>(value, key, where).value_or(usual);
  };
  token.single_word = flag("single_word", false);
  token.lstrip = flag("lstrip", false);
  token.rstrip = flag("rstrip", false);
  token.special = flag("special", false);
  token.normalized = flag("normalized", !token.special);
  return token;
}

void Matcher::add(std::string_view content, int64_t id) {
  if (content.empty()) return;
  if (nodes_.empty()) nodes_.emplace_back();
  begins_[static_cast<unsigned char>(content[0])] = true;
  size_t at = 0;
  for (const char c : content) {
    const auto* next = child(nodes_[at], c);
    if (next == nullptr) {
      nodes_[at].children.emplace_back(c, static_cast<int32_t>(nodes_.size()));
      at = nodes_.size();
      nodes_.emplace_back();
    } else {
      at = static_cast<size_t>(next - nodes_.data());
    }
  }
  nodes_[at].id = id;
}

const Matcher::Node* Matcher::child(const Node& node, char c) const {
  for (const auto& [key, next] : node.children) {
    if (key == c) return &nodes_[next];
  }
  return nullptr;
}

Matcher::Match Matcher::match_at(std::string_view text, size_t at) const {
  Match best;
  const Node* node = &nodes_[0];
  for (size_t end = at; end < text.size(); ++end) {
    node = child(*node, text[end]);
    if (node == nullptr) break;
    if (node->id >= 0) best = {at, end + 1, node->id};
  }
  return best;
}

Matcher::Match Matcher::find(std::string_view text, size_t from) const {
  if (nodes_.empty()) return {};
  for (size_t at = from; at < text.size(); ++at) {
    if (!begins_[static_cast<unsigned char>(text[at])]) continue;
    if (const auto match = match_at(text, at); match.id >= 0) return match;
  }
  return {};
}

void AddedTokens::add(const AddedToken& token) {
  if (token.content.empty()) return;
  if (const auto old = by_content_.find(token.content); old != by_content_.end()) {
    by_id_.erase(old->second);
  }
  by_content_[token.content] = token.id;
  by_id_[token.id] = token;
}

const AddedToken* AddedTokens::find(int64_t id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : &found->second;
}

int64_t AddedTokens::id_of(std::string_view content) const {
  const auto found = by_content_.find(content);
  return found == by_content_.end() ? -1 : found->second;
}

std::vector<AddedTokens::Part> AddedTokens::split(std::string_view text,
                                                  const Matcher& matcher) const {
  std::vector<Part> parts;
  size_t done = 0;
  for (size_t from = 0; from < text.size();) {
    const auto match = matcher.find(text, from);
    if (match.id < 0) break;
    from = match.end;
    const auto& token = by_id_.at(match.id);
    if (match.begin < done) continue;  // the white space of the token before covers it
    if (token.single_word && within_word(text, match.begin, match.end)) continue;
    const size_t begin = token.lstrip ? strip_left(text, match.begin, done) : match.begin;
    const size_t end = token.rstrip ? strip_right(text, match.end) : match.end;
    if (done < begin) parts.push_back({done, begin, -1});
    parts.push_back({begin, end, match.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), -1});
  return parts;
}

}  // namespace zebra
