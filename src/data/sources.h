// What the records of a source hold: JSON values, messages.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "base/json.h"
#include "zebra/chat_template.h"
#include "zebra/dataset.h"

namespace zebra {

// One JSON value of a file, and where it stands: "file:12" or, in an array, "file: item 12".
struct JsonRecord {
  json value;
  std::string where;
};
// JSON lines, blank ones left out, or the items of one JSON array.
std::vector<JsonRecord> read_json_records(const std::filesystem::path& file);

// A list of {role, content} or {from, value}; `where` begins the error text.
std::vector<ChatMessage> parse_messages(const json& list, const std::string& where);
ChatMessage parse_message(const json& item, const std::string& where);

// A preference pair as text.
struct TextPair {
  std::string prompt, chosen, rejected;
};
// The shapes are those of PreferenceDataset. Message lists are shown by the template, which may be
// nullptr as long as there are none; `no_template` as below.
TextPair parse_pair(const JsonRecord& record, const ChatTemplate* chat,
                    const std::string& no_template);

// A record of messages with nothing to show them; `reason` says why, empty: nobody knows.
[[noreturn]] void fail_template(const std::string& where, const std::string& reason);

// The text that follows a prompt, and its ids: what it adds to the prompt's ids, or its own where
// the tokenizer joins the two.
std::vector<int64_t> encode_answer(const Tokenizer& tokenizer, const std::string& prompt,
                                   const std::string& answer);

// A prompt and its continuation as the template shows them. ConfigErrors begin with `where`.
struct ChatTurn {
  std::string prompt, answer;
};
ChatTurn render_turn(const ChatTemplate& chat, const std::vector<ChatMessage>& before,
                     const std::vector<ChatMessage>& answer, const std::string& where);

}  // namespace zebra
