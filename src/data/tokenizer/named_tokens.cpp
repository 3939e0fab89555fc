#include "data/tokenizer/named_tokens.h"

#include "zebra/error.h"

namespace zebra {
namespace {

constexpr int64_t kMostIds = int64_t{1} << 24U;  // more than any vocabulary; a wrong id is told

}  // namespace

NamedTokens::NamedTokens(std::vector<std::string> names) : names_(std::move(names)) {
  ids_.reserve(names_.size());
  for (size_t id = 0; id < names_.size(); ++id) {
    if (!names_[id].empty()) ids_.emplace(names_[id], static_cast<int64_t>(id));
  }
}

int64_t NamedTokens::id_of(const std::string& content) const {
  const auto found = ids_.find(content);
  return found == ids_.end() ? -1 : found->second;
}

void NamedTokens::add(AddedToken token, const std::string& where) {
  if (token.content.empty()) return;
  if (const int64_t known = id_of(token.content); known >= 0) {
    token.id = known;
  } else if (token.id < 0) {
    token.id = static_cast<int64_t>(names_.size());
  }
  if (token.id >= kMostIds) {
    throw ConfigError(
        str(where, ": ", token.content, ": expected an id below ", kMostIds, ", got ", token.id));
  }
  const auto id = static_cast<size_t>(token.id);
  if (id >= names_.size()) names_.resize(id + 1);
  if (!names_[id].empty() && names_[id] != token.content) {
    throw ConfigError(str(where, ": id ", id, ": expected ", names_[id],
                          ", which the vocabulary has there, got ", token.content));
  }
  names_[id] = token.content;
  ids_[token.content] = token.id;
  added_.add(token);
}

// A name given as plain text says nothing of flags: those of the token stay.
int64_t NamedTokens::add_named(const std::optional<AddedToken>& token, const char* key,
                               const TokenizerFiles& files) {
  if (!token || token->content.empty()) return -1;
  const int64_t id = id_of(token->content);
  if (id < 0) {
    throw ConfigError(str(token->where.empty() ? files.where() : token->where, ": ", key,
                          ": expected a token of the vocabulary, got ", token->content));
  }
  const auto* known = added_.find(id);
  auto named = known != nullptr ? *known : *token;
  named.special = true;
  add(named, files.where());
  return id;
}

void NamedTokens::add(const TokenizerFiles& files) {
  for (const auto& token : files.added) {
    const bool name_only = token.id < 0 && token.special && !token.normalized;
    if (name_only && added_.find(id_of(token.content)) != nullptr) continue;
    add(token, files.where());
  }
  bos_id_ = add_named(files.bos, "bos_token", files);
  eos_id_ = add_named(files.eos, "eos_token", files);
  if (files.unk && id_of(files.unk->content) >= 0) add_named(files.unk, "unk_token", files);
}

}  // namespace zebra
