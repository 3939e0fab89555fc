#include "data/sources.h"

#include "data/records.h"
#include "zebra/error.h"

namespace zebra {

std::vector<JsonRecord> read_json_records(const std::filesystem::path& file) {
  RecordReader reader({file}, RecordKind::kJson);
  std::vector<JsonRecord> records;
  while (const auto record = reader.next()) {
    if (!record->error.empty()) throw ConfigError(record->error);
    records.push_back({parse_json(record->text, record->where), record->where});
  }
  return records;
}

ChatMessage parse_message(const json& item, const std::string& where) {
  if (!item.is_object()) fail_json(where, "message", "an object", item);
  auto role = require<std::string>(item, item.contains("from") ? "from" : "role", where);
  if (role == "human") role = "user";
  if (role == "gpt") role = "assistant";
  return {role, require<std::string>(item, item.contains("value") ? "value" : "content", where)};
}

std::vector<ChatMessage> parse_messages(const json& list, const std::string& where) {
  if (!list.is_array() || list.empty()) fail_json(where, "messages", "a list of messages", list);
  std::vector<ChatMessage> messages;
  for (const auto& item : list) messages.push_back(parse_message(item, where));
  return messages;
}

std::vector<int64_t> encode_answer(const Tokenizer& tokenizer, const std::string& prompt,
                                   const std::string& answer) {
  const auto head = tokenizer.encode(prompt), whole = tokenizer.encode(prompt + answer);
  const bool kept =
      whole.size() >= head.size() && std::equal(head.begin(), head.end(), whole.begin());
  if (!kept) return tokenizer.encode(answer);
  return {whole.begin() + static_cast<int64_t>(head.size()), whole.end()};
}

void fail_template(const std::string& where, const std::string& reason) {
  if (!reason.empty()) {
    throw ConfigError(str(where, ": messages need a chat template: ", reason));
  }
  std::string names;
  for (const auto& name : ChatTemplate::names()) names += (names.empty() ? "" : ", ") + name;
  throw ConfigError(str(where,
                        ": messages need a chat template, and the tokenizer's files name none that "
                        "is known; choose with data.chat_template (--chat-template) one of ",
                        names));
}

ChatTurn render_turn(const ChatTemplate& chat, const std::vector<ChatMessage>& before,
                     const std::vector<ChatMessage>& answer, const std::string& where) {
  try {
    auto all = before;
    all.insert(all.end(), answer.begin(), answer.end());
    auto prompt = chat.render(before, /*add_generation_prompt=*/true).text;
    const auto whole = chat.render(all, /*add_generation_prompt=*/false).text;
    if (!whole.starts_with(prompt)) {
      throw ConfigError(
          str("template ", chat.name(), " does not show the answer after its prompt"));
    }
    return {prompt, whole.substr(prompt.size())};
  } catch (const ConfigError& error) {
    throw ConfigError(str(where, ": ", error.what()));
  }
}

}  // namespace zebra
