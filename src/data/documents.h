// From a record's text to the tokens of its documents.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "data/records.h"
#include "zebra/chat_template.h"
#include "zebra/dataset.h"
#include "zebra/tokenizer.h"

namespace zebra {

// What a source's records are: documents of one of the formats, or preference pairs, of which each
// becomes three documents: prompt, chosen, rejected.
enum class DocumentKind : uint32_t { kText = 0, kPairs = 1 };

struct EncodedDocument {
  std::vector<int64_t> ids;     // BOS and EOS among them, as the options say; never empty
  std::vector<uint8_t> answer;  // one an id: 1 in an assistant's answer; empty: 1 everywhere
  uint64_t bytes = 0;           // of its text, UTF-8
};

// One object serves all threads.
class DocumentEncoder {
 public:
  // ConfigError when the tokenizer lacks what the options want, or does not fit the template.
  // `no_template` tells why the options name none, where messages need one.
  DocumentEncoder(DocumentKind kind, SourceFormat format, const DocumentOptions& options,
                  const Tokenizer& tokenizer, std::string no_template = "");

  RecordKind record_kind() const;

  // One document, three of a pair, none of a record without tokens or of the other side of the
  // split. A bad record is a ConfigError that begins with where it stands.
  std::vector<EncodedDocument> encode(const Record& record) const;

 private:
  EncodedDocument of_text(const std::string& text) const;
  EncodedDocument of_messages(const std::vector<ChatMessage>& messages,
                              const std::string& where) const;
  EncodedDocument of_turn(const std::string& prompt, const std::string& answer) const;
  EncodedDocument of_prompt_completion(const json& value, const std::string& where) const;
  EncodedDocument of_json(const Record& record) const;
  std::vector<EncodedDocument> of_pair(const Record& record) const;
  const ChatTemplate* chat() const { return chat_ ? &*chat_ : nullptr; }
  void add_ends(EncodedDocument& document) const;
  bool wanted(const std::string& text) const;

  DocumentKind kind_;
  SourceFormat format_;
  DocumentOptions options_;
  const Tokenizer& tokenizer_;
  std::optional<ChatTemplate> chat_;
  std::string no_template_;
};

}  // namespace zebra
