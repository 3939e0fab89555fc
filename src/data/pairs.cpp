// Preference pairs as text, in the shapes that they are published in.
#include <algorithm>

#include "data/sources.h"
#include "zebra/error.h"

namespace zebra {
namespace {

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t'; }

// Two whole texts: the prompt is what they share, up to the last "Assistant:" if there is one in
// it, otherwise up to the last space, so that no word is cut.
TextPair split_shared(const std::string& chosen, const std::string& rejected) {
  const auto differ =
      std::mismatch(chosen.begin(), chosen.end(), rejected.begin(), rejected.end()).first;
  const auto shared = chosen.substr(0, static_cast<size_t>(differ - chosen.begin()));
  static const std::string kTurn = "\n\nAssistant:";
  size_t end = shared.rfind(kTurn);
  if (end != std::string::npos) {
    end += kTurn.size();
  } else {
    end = shared.size();
    while (end > 0 && !(end < chosen.size() && is_space(chosen[end]))) --end;
  }
  return {chosen.substr(0, end), chosen.substr(end), rejected.substr(end)};
}

// An answer given as a list of messages, one message, or a string.
struct Answer {
  std::vector<ChatMessage> before;  // what the list holds ahead of its last message
  std::string text;
};

Answer parse_answer(const JsonRecord& record, const std::string& key) {
  const auto field = record.value.find(key);
  if (field == record.value.end() || field->is_string()) {
    return {{}, require<std::string>(record.value, key, record.where)};
  }
  const auto where = str(record.where, ": ", key);
  auto messages = field->is_object() ? std::vector<ChatMessage>{parse_message(*field, where)}
                                     : parse_messages(*field, where);
  if (messages.back().role != "assistant") {
    fail_json(where, "role", "a last message of the assistant", messages.back().role);
  }
  auto text = messages.back().content;
  messages.pop_back();
  return {std::move(messages), std::move(text)};
}

// How a record names its parts.
struct Names {
  const char* chosen = "chosen";
  const char* rejected = "rejected";
  std::vector<const char*> messages = {"prompt", "conversations", "messages"};
  std::vector<const char*> prompts = {"prompt", "question"};
  bool ranked = false;  // answers to a question, which do not repeat it
};

Names names_of(const json& value) {
  if (value.contains("preferred_output")) {
    return {"preferred_output", "non_preferred_output", {"messages"}, {"prompt"}, false};
  }
  if (value.contains("response_j")) return {"response_j", "response_k", {}, {"question"}, true};
  return {};
}

// The messages both answers follow: the record's own list, or the beginning of the answers' lists,
// beside which data sets also keep whole conversations under other names.
std::vector<ChatMessage> shared_messages(const JsonRecord& record, const Names& names,
                                         const Answer& chosen, const Answer& rejected) {
  if (chosen.before != rejected.before) {
    throw ConfigError(str(record.where, ": expected ", names.chosen, " and ", names.rejected,
                          " to follow the same messages, got different ones"));
  }
  for (const auto* key : names.messages) {
    const auto field = record.value.find(key);
    if (field == record.value.end() || !field->is_array()) continue;
    if (!chosen.before.empty() && std::string_view(key) != "prompt") continue;
    auto messages = parse_messages(*field, str(record.where, ": ", key));
    if (!chosen.before.empty() && chosen.before != messages) {
      throw ConfigError(
          str(record.where, ": expected the answers to follow '", key, "', got other messages"));
    }
    return messages;
  }
  return chosen.before;
}

// OpenAI's form has the messages one level deeper.
JsonRecord flattened(const JsonRecord& record) {
  if (!record.value.is_object()) fail_json(record.where, "pair", "an object", record.value);
  if (!record.value.contains("preferred_output")) return record;
  auto flat = record;
  const auto input = require<json>(record.value, "input", record.where);
  flat.value["messages"] = require<json>(input, "messages", record.where + ": input");
  return flat;
}

}  // namespace

TextPair parse_pair(const JsonRecord& given, const ChatTemplate* chat,
                    const std::string& no_template) {
  const auto record = flattened(given);
  const auto names = names_of(record.value);
  const auto chosen = parse_answer(record, names.chosen);
  const auto rejected = parse_answer(record, names.rejected);
  const auto messages = shared_messages(record, names, chosen, rejected);
  const auto answers_to = [&](const std::vector<ChatMessage>& before) -> TextPair {
    if (chat == nullptr) fail_template(record.where, no_template);
    const auto turn = [&](const std::string& text) {
      return render_turn(*chat, before, {{.role = "assistant", .content = text}}, record.where);
    };
    return {turn(chosen.text).prompt, turn(chosen.text).answer, turn(rejected.text).answer};
  };
  if (!messages.empty()) return answers_to(messages);
  for (const auto* key : {"conversations", "messages"}) {
    if (record.value.contains(key)) {
      fail_json(record.where, key, "a list of messages", record.value[key]);
    }
  }
  const auto system = find_value<std::string>(record.value, "system", record.where).value_or("");
  for (const auto* key : names.prompts) {
    const auto prompt = find_value<std::string>(record.value, key, record.where);
    if (!prompt) continue;
    if (system.empty()) return {*prompt, chosen.text, rejected.text};
    return answers_to(
        {{.role = "system", .content = system}, {.role = "user", .content = *prompt}});
  }
  if (names.ranked) fail_json(record.where, "question", "a string", nullptr);
  for (const auto* key : {"instruction", "input", "query", "context", "system"}) {
    if (record.value.contains(key)) {
      fail_json(record.where, key, "the answers' prompt at 'prompt' or 'question'",
                record.value[key]);
    }
  }
  auto pair = split_shared(chosen.text, rejected.text);
  // Two bare texts may share nothing; beside other fields, a prompt must be among these.
  if (pair.prompt.empty() && record.value.size() > 2) {
    throw ConfigError(record.where +
                      ": expected a prompt, or answers that begin alike, got neither");
  }
  return pair;
}

}  // namespace zebra
