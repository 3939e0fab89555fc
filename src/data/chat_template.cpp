#include "zebra/chat_template.h"

#include <algorithm>
#include <array>

#include "base/json.h"
#include "data/utf8.h"
#include "zebra/error.h"
#include "zebra/options.h"

namespace zebra {

// A conversation while it is written.
struct Transcript {
  std::string_view bos, eos;
  std::string text;
  std::vector<TextSpan> answers;

  Transcript& operator<<(std::string_view part) {
    text += part;
    return *this;
  }
  // `part` is an answer up to and with its end token, or what another role says.
  void say(const ChatMessage& message, std::string_view part) {
    if (message.role == "assistant") answers.push_back({text.size(), text.size() + part.size()});
    text += part;
  }
};

using Messages = std::vector<ChatMessage>;

struct ChatTemplate::Format {
  const char* name;
  bool needs_bos, needs_eos;  // of the tokenizer
  bool any_role;              // else system, user and assistant alone
  bool takes_bos;
  void (*write)(Transcript& out, const Messages& messages, bool add_generation_prompt);
};

namespace {

std::string_view trim(const std::string& content) { return strip_white_space(content); }

void write_header(Transcript& out, std::string_view role) {
  out << "<|start_header_id|>" << role << "<|end_header_id|>\n\n";
}

void write_llama3_turns(Transcript& out, const Messages& messages, size_t first, bool prompt) {
  for (size_t i = first; i < messages.size(); ++i) {
    write_header(out, messages[i].role);
    out.say(messages[i], std::string(trim(messages[i].content)) + "<|eot_id|>");
  }
  if (prompt) write_header(out, "assistant");
}

void write_llama3(Transcript& out, const Messages& messages, bool prompt) {
  out << out.bos;
  write_llama3_turns(out, messages, 0, prompt);
}

// Llama 3.1 and later tell every conversation two dates. That of today is pinned to the one the
// template itself falls back to, so that the same data give the same tokens on every day.
void write_llama31(Transcript& out, const Messages& messages, bool prompt) {
  const bool system = messages[0].role == "system";
  out << out.bos;
  write_header(out, "system");
  out << "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
  if (system) out << trim(messages[0].content);
  out << "<|eot_id|>";
  write_llama3_turns(out, messages, system ? 1 : 0, prompt);
}

// Each pair of turns is a sequence of its own, with its BOS and EOS.
void write_llama2(Transcript& out, const Messages& messages, bool /*prompt*/) {
  const size_t first = messages[0].role == "system" ? 1 : 0;
  for (size_t i = first; i < messages.size(); ++i) {
    const auto& message = messages[i];
    const bool user = (i - first) % 2 == 0;
    if (message.role != (user ? "user" : "assistant")) {
      throw ConfigError(str("chat template llama2: message ", i + 1, ": expected a message of the ",
                            user ? "user" : "assistant", ", got one of ", message.role));
    }
    if (!user) {
      out.say(message, str(" ", trim(message.content), " ", out.eos));
      continue;
    }
    std::string content = message.content;
    if (i == 1 && first == 1) {
      content = "<<SYS>>\n" + messages[0].content + "\n<</SYS>>\n\n" + content;
    }
    out << out.bos << "[INST] " << trim(content) << " [/INST]";
  }
}

void write_chatml(Transcript& out, const Messages& messages, bool prompt) {
  for (const auto& message : messages) {
    out << "<|im_start|>" << message.role << "\n";
    out.say(message, message.content + "<|im_end|>");
    out << "\n";
  }
  if (prompt) out << "<|im_start|>assistant\n";
}

void write_zephyr(Transcript& out, const Messages& messages, bool prompt) {
  for (const auto& message : messages) {
    out << "<|" << message.role << "|>\n";
    out.say(message, str(message.content, out.eos));
    out << "\n";
  }
  if (prompt) out << "<|assistant|>\n";
}

std::string_view plain_name(const std::string& role) {
  if (role == "system") return "System:";
  return role == "user" ? "User:" : "Assistant:";
}

void write_plain(Transcript& out, const Messages& messages, bool prompt) {
  for (const auto& message : messages) {
    if (!out.text.empty()) out << "\n";
    out << plain_name(message.role);
    const bool answer = message.role == "assistant";
    out.say(message, str(" ", message.content, answer ? out.eos : ""));
  }
  if (prompt) out << "\nAssistant:";
}

using Format = ChatTemplate::Format;
constexpr std::array<Format, 6> kFormats = {{
    {"llama3", true, false, true, false, write_llama3},
    {"llama3.1", true, false, true, false, write_llama31},
    {"llama2", true, true, false, false, write_llama2},
    {"chatml", false, false, true, false, write_chatml},
    {"zephyr", false, true, false, false, write_zephyr},
    {"plain", false, false, false, true, write_plain},
}};

std::string listed_names() {
  std::string names;
  for (const auto& format : kFormats) names += str(names.empty() ? "" : ", ", format.name);
  return names;
}

std::string token_text(const Tokenizer& tokenizer, int64_t id) {
  return id < 0 ? "" : tokenizer.piece(id);
}

bool overlap(const TextSpan& token, const TextSpan& answer) {
  if (token.begin == token.end) return token.begin >= answer.begin && token.begin < answer.end;
  return token.begin < answer.end && token.end > answer.begin;
}

// Both lists are in order, so one walk marks them all.
std::vector<uint8_t> mark(const std::vector<TextSpan>& tokens,
                          const std::vector<TextSpan>& answers) {
  std::vector<uint8_t> marks(tokens.size(), 0);
  size_t answer = 0;
  for (size_t i = 0; i < tokens.size(); ++i) {
    while (answer < answers.size() && answers[answer].end <= tokens[i].begin) ++answer;
    if (answer == answers.size()) break;
    marks[i] = overlap(tokens[i], answers[answer]) ? 1 : 0;
  }
  return marks;
}

}  // namespace

ChatTemplate::ChatTemplate(const Format& format, std::string bos, std::string eos)
    : format_(&format), bos_(std::move(bos)), eos_(std::move(eos)) {}

std::vector<std::string> ChatTemplate::names() {
  std::vector<std::string> names;
  for (const auto& format : kFormats) names.emplace_back(format.name);
  return names;
}

ChatTemplate ChatTemplate::named(const std::string& name, const Tokenizer& tokenizer) {
  const auto found = std::find_if(kFormats.begin(), kFormats.end(),
                                  [&](const Format& format) { return name == format.name; });
  if (found == kFormats.end()) {
    const auto nearest = nearest_name(name, names());
    throw ConfigError(str("chat template: expected one of ", listed_names(), ", got ", name,
                          nearest.empty() ? "" : str("; did you mean ", nearest, "?")));
  }
  if (found->needs_bos && tokenizer.bos_id() < 0) {
    throw ConfigError(
        str("chat template ", name, ": expected a tokenizer with a BOS token, got one without"));
  }
  if (found->needs_eos && tokenizer.eos_id() < 0) {
    throw ConfigError(
        str("chat template ", name, ": expected a tokenizer with an EOS token, got one without"));
  }
  return {*found, token_text(tokenizer, tokenizer.bos_id()),
          token_text(tokenizer, tokenizer.eos_id())};
}

const std::string& ChatTemplate::name() const {
  static const auto kNames = names();
  return kNames[static_cast<size_t>(format_ - kFormats.data())];
}

bool ChatTemplate::takes_bos() const { return format_->takes_bos; }

RenderedChat ChatTemplate::render(const Messages& messages, bool add_generation_prompt) const {
  if (messages.empty()) {
    throw ConfigError(str("chat template ", name(), ": expected a message, got none"));
  }
  for (const auto& [role, content] : messages) {
    if (!format_->any_role && role != "system" && role != "user" && role != "assistant") {
      throw ConfigError(str("chat template ", name(),
                            ": expected the roles system, user and assistant, got ",
                            json(role).dump(-1, ' ', false, json::error_handler_t::replace)));
    }
  }
  Transcript out{.bos = bos_, .eos = eos_, .text = "", .answers = {}};
  format_->write(out, messages, add_generation_prompt);
  return {std::move(out.text), std::move(out.answers)};
}

EncodedChat encode_chat(const Tokenizer& tokenizer, const ChatTemplate& chat_template,
                        const Messages& messages, bool add_generation_prompt) {
  const auto rendered = chat_template.render(messages, add_generation_prompt);
  auto [ids, spans] = tokenizer.encode_with_spans(rendered.text);
  auto marks = mark(spans, rendered.assistant);
  const int64_t bos = tokenizer.bos_id();
  if (chat_template.takes_bos() && tokenizer.adds_bos() && (ids.empty() || ids[0] != bos)) {
    ids.insert(ids.begin(), bos);
    marks.insert(marks.begin(), 0);
  }
  return {std::move(ids), std::move(marks)};
}

}  // namespace zebra
