// Conversations as the text that a model was taught them in.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "zebra/tokenizer.h"

namespace zebra {

struct ChatMessage {
  std::string role;  // system, user or assistant; llama3 and chatml show any other as it is named
  std::string content;
  bool operator==(const ChatMessage&) const = default;
};

struct RenderedChat {
  std::string text;
  std::vector<TextSpan> assistant;  // of each answer in the text, its end token included
};

// One of the compiled templates: llama3, llama3.1 (also 3.2 and 3.3), llama2, chatml, zephyr,
// plain.
class ChatTemplate {
 public:
  static std::vector<std::string> names();

  // ConfigError for another name, with the nearest one, and where the template needs a BOS or EOS
  // that the tokenizer lacks.
  static ChatTemplate named(const std::string& name, const Tokenizer& tokenizer);

  // The one that renders as the `chat_template` of the folder (chat_template.jinja or
  // tokenizer_config.json) does. None, and one that is not among the compiled ones, are a
  // ConfigError that says how to choose.
  static ChatTemplate of_folder(const std::filesystem::path& folder, const Tokenizer& tokenizer);

  const std::string& name() const;

  // The text that Hugging Face's apply_chat_template gives for the template of this name; with
  // `add_generation_prompt` it ends where the next answer begins. ConfigError for a conversation
  // that the template cannot show: no message, a role it has no form for, roles out of turn.
  RenderedChat render(const std::vector<ChatMessage>& messages, bool add_generation_prompt) const;

  // Whether a BOS that the tokenizer adds to text goes before this template's text: it does for
  // plain, which is text; the others write their own or have none.
  bool takes_bos() const;

  struct Format;  // how one template writes; chat_template.cpp

 private:
  ChatTemplate(const Format& format, std::string bos, std::string eos);

  const Format* format_;
  std::string bos_, eos_;
};

struct EncodedChat {
  std::vector<int64_t> ids;
  std::vector<uint8_t> assistant;  // per id: 1 in an answer and at its end token
};

// Renders and encodes. Markers of the template become their tokens. A conversation begins with at
// most one BOS (llama2 has one before each turn, as its model was taught).
EncodedChat encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                        const std::vector<ChatMessage>& messages, bool add_generation_prompt);

}  // namespace zebra
