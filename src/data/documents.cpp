#include "data/documents.h"

#include <algorithm>

#include "base/hash.h"
#include "data/random.h"
#include "data/sources.h"
#include "zebra/error.h"

namespace zebra {

namespace {

void check_tokenizer(const DocumentOptions& options, const Tokenizer& tokenizer) {
  if (options.bos && tokenizer.bos_id() < 0) {
    throw ConfigError("data.bos: expected a tokenizer with a BOS token, got one without");
  }
  if (options.eos && tokenizer.eos_id() < 0) {
    throw ConfigError("data.eos: expected a tokenizer with an EOS token, got one without");
  }
}

// A prompt's trailing spaces go to what follows: tokenizers join a space with the word after it.
std::string take_spaces(std::string& prompt) {
  const auto end = prompt.find_last_not_of(' ');
  auto spaces = prompt.substr(end == std::string::npos ? 0 : end + 1);
  prompt.resize(prompt.size() - spaces.size());
  return spaces;
}

// The first `count` answers carry no loss: they belong to the prompt.
void forget_answers(std::vector<uint8_t>& mask, int64_t count) {
  for (auto at = mask.begin(); count > 0 && at != mask.end(); --count) {
    at = std::find(at, mask.end(), 1);
    const auto end = std::find(at, mask.end(), 0);
    std::fill(at, end, 0);
    at = end;
  }
}

}  // namespace

DocumentEncoder::DocumentEncoder(DocumentKind kind, SourceFormat format,
                                 const DocumentOptions& options, const Tokenizer& tokenizer,
                                 std::string no_template)
    : kind_(kind),
      format_(format),
      options_(options),
      tokenizer_(tokenizer),
      no_template_(std::move(no_template)) {
  check_tokenizer(options, tokenizer);
  if (!options.chat_template.empty()) {
    chat_ = ChatTemplate::named(options.chat_template, tokenizer);
  }
}

RecordKind DocumentEncoder::record_kind() const {
  if (kind_ == DocumentKind::kPairs) return RecordKind::kJson;
  switch (format_) {
    case SourceFormat::kText:
      return RecordKind::kFile;
    case SourceFormat::kStories:
      return RecordKind::kStories;
    default:
      return RecordKind::kJson;
  }
}

std::vector<EncodedDocument> DocumentEncoder::encode(const Record& record) const {
  if (!record.error.empty()) throw ConfigError(record.error);
  if (kind_ == DocumentKind::kPairs) return of_pair(record);
  auto document = record_kind() == RecordKind::kJson ? of_json(record) : of_text(record.text);
  if (document.ids.empty()) return {};
  add_ends(document);
  return {std::move(document)};
}

EncodedDocument DocumentEncoder::of_text(const std::string& text) const {
  if (!wanted(text)) return {};
  return {.ids = tokenizer_.encode(text), .answer = {}, .bytes = text.size()};
}

EncodedDocument DocumentEncoder::of_messages(const std::vector<ChatMessage>& messages,
                                             const std::string& where) const {
  if (!chat_) fail_template(where, no_template_);
  try {
    const auto text = chat_->render(messages, /*add_generation_prompt=*/false).text;
    if (!wanted(text)) return {};
    auto chat = encode_chat(tokenizer_, *chat_, messages, /*add_generation_prompt=*/false);
    return {.ids = std::move(chat.ids), .answer = std::move(chat.assistant), .bytes = text.size()};
  } catch (const ConfigError& error) {
    throw ConfigError(str(where, ": ", error.what()));
  }
}

// Tokens of a prompt and of what follows it, which alone counts as answer.
EncodedDocument DocumentEncoder::of_turn(const std::string& prompt,
                                         const std::string& answer) const {
  if (!wanted(prompt + answer)) return {};
  auto head = prompt;
  const auto tail = take_spaces(head) + answer;
  EncodedDocument document{
      .ids = tokenizer_.encode(head), .answer = {}, .bytes = prompt.size() + answer.size()};
  document.answer.assign(document.ids.size(), 0);
  const auto ids = encode_answer(tokenizer_, head, tail);
  document.ids.insert(document.ids.end(), ids.begin(), ids.end());
  document.answer.resize(document.ids.size(), 1);
  return document;
}

EncodedDocument DocumentEncoder::of_prompt_completion(const json& value,
                                                      const std::string& where) const {
  const auto prompt = require<json>(value, "prompt", where);
  const auto completion = require<json>(value, "completion", where);
  if (prompt.is_string()) return of_turn(prompt, require<std::string>(value, "completion", where));
  const auto before = parse_messages(prompt, where + ": prompt");
  const auto after = completion.is_object()
                         ? std::vector<ChatMessage>{parse_message(completion, where)}
                         : parse_messages(completion, where + ": completion");
  auto messages = before;
  messages.insert(messages.end(), after.begin(), after.end());
  auto document = of_messages(messages, where);
  forget_answers(document.answer, std::count_if(before.begin(), before.end(), [](const auto& m) {
                   return m.role == "assistant";
                 }));
  return document;
}

EncodedDocument DocumentEncoder::of_json(const Record& record) const {
  const auto& where = record.where;
  const auto value = parse_json(record.text, where);
  switch (format_) {
    case SourceFormat::kMessages:
      return of_messages(parse_messages(require<json>(value, "messages", where), where), where);
    case SourceFormat::kConversations:
      return of_messages(parse_messages(require<json>(value, "conversations", where), where),
                         where);
    case SourceFormat::kPromptCompletion:
      return of_prompt_completion(value, where);
    default:
      return of_text(require<std::string>(value, "text", where));
  }
}

std::vector<EncodedDocument> DocumentEncoder::of_pair(const Record& record) const {
  auto text =
      parse_pair({parse_json(record.text, record.where), record.where}, chat(), no_template_);
  const auto spaces = take_spaces(text.prompt);
  std::vector<EncodedDocument> documents(3);
  auto& prompt = documents[0].ids;
  prompt = tokenizer_.encode(text.prompt);
  documents[0].bytes = text.prompt.size();
  const char* names[] = {"chosen", "rejected"};
  const std::string* answers[] = {&text.chosen, &text.rejected};
  const int64_t eos = tokenizer_.eos_id(), bos = tokenizer_.bos_id();
  for (size_t i = 0; i < 2; ++i) {
    auto& ids = documents[i + 1].ids;
    ids = encode_answer(tokenizer_, text.prompt, spaces + *answers[i]);
    documents[i + 1].bytes = spaces.size() + answers[i]->size();
    if (ids.empty()) {
      throw ConfigError(str(record.where, ": expected two answers with text, got an empty one at '",
                            names[i], "'"));
    }
    if (eos >= 0 && ids.back() != eos) ids.push_back(eos);
  }
  if (bos >= 0 && (prompt.empty() || prompt[0] != bos)) prompt.insert(prompt.begin(), bos);
  if (prompt.empty()) {
    throw ConfigError(record.where + ": expected a prompt or a tokenizer with BOS, got neither");
  }
  return documents;
}

// A document has one BOS or none, as the options say, whatever its template wrote. The EOS counts
// as answer where the token before it does.
void DocumentEncoder::add_ends(EncodedDocument& document) const {
  auto& [ids, answer, bytes] = document;
  const int64_t bos = tokenizer_.bos_id(), eos = tokenizer_.eos_id();
  const bool has_bos = bos >= 0 && ids[0] == bos;
  if (options_.bos && !has_bos) {
    ids.insert(ids.begin(), bos);
    if (!answer.empty()) answer.insert(answer.begin(), 0);
  } else if (!options_.bos && has_bos && ids.size() > 1) {
    ids.erase(ids.begin());
    if (!answer.empty()) answer.erase(answer.begin());
  }
  if (options_.eos && ids.back() != eos) {
    ids.push_back(eos);
    if (!answer.empty()) answer.push_back(answer.back());
  }
  if (std::all_of(answer.begin(), answer.end(), [](uint8_t bit) { return bit != 0; })) {
    answer.clear();
  }
}

// Equal documents stand on the same side, wherever they come from and whatever the tokenizer.
bool DocumentEncoder::wanted(const std::string& text) const {
  if (options_.split == Split::kAll) return true;
  const uint64_t key = mix64(hash_string(text));
  const bool held_out = static_cast<double>(key >> 11) * 0x1p-53 < options_.held_out;
  return held_out == (options_.split == Split::kHeldOut);
}

}  // namespace zebra
