// Which of the compiled templates a folder's own one is: the one that writes the same.
#include <optional>

#include "base/file.h"
#include "base/json.h"
#include "data/jinja.h"
#include "zebra/chat_template.h"
#include "zebra/error.h"

namespace zebra {
namespace {

namespace fs = std::filesystem;

using Messages = std::vector<ChatMessage>;

// Between them: a system message or none, white space at every edge, several turns, an answer at
// the end or not.
const std::vector<Messages>& probes() {
  static const std::vector<Messages> kProbes = {
      {{"user", "Hi"}},
      {{"user", " a\n"}, {"assistant", "\n b "}},
      {{"system", " Be kind.\n"}, {"user", "\ta "}, {"assistant", " b"}, {"user", "c\n\n"}},
      {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}},
  };
  return kProbes;
}

struct Source {
  std::string text, where;
};

// tokenizer_config.json holds one template, or a list of named ones of which `default` counts.
std::optional<Source> from_config(const fs::path& folder) {
  const auto file = folder / "tokenizer_config.json";
  if (!fs::exists(file)) return std::nullopt;
  const auto value = find_value<json>(read_json(file), "chat_template", file.string());
  if (!value) return std::nullopt;
  if (value->is_string()) return Source{value->get<std::string>(), file.string()};
  if (!value->is_array()) fail_json(file.string(), "chat_template", "a text or a list", *value);
  for (const auto& item : *value) {
    if (require<std::string>(item, "name", file.string()) == "default") {
      return Source{require<std::string>(item, "template", file.string()), file.string()};
    }
  }
  return std::nullopt;
}

std::optional<Source> find_source(const fs::path& folder) {
  const auto file = folder / "chat_template.jinja";
  if (fs::exists(file)) return Source{read_file(file), file.string()};
  return from_config(folder);
}

json variables_for(const Messages& messages, bool prompt, const Tokenizer& tokenizer) {
  json variables = {{"add_generation_prompt", prompt},
                    {"tools", nullptr},
                    {"documents", nullptr},
                    {"zebra_today", "26 Jul 2024"},  // what strftime_now gives
                    {"messages", json::array()}};
  for (const auto& [role, content] : messages) {
    variables["messages"].push_back({{"role", role}, {"content", content}});
  }
  if (tokenizer.bos_id() >= 0) variables["bos_token"] = tokenizer.piece(tokenizer.bos_id());
  if (tokenizer.eos_id() >= 0) variables["eos_token"] = tokenizer.piece(tokenizer.eos_id());
  return variables;
}

struct Rendering {
  const Messages* messages;
  bool prompt;
  std::string text;
};

std::vector<Rendering> render_probes(const JinjaTemplate& source, const Tokenizer& tokenizer) {
  std::vector<Rendering> result;
  for (const auto& messages : probes()) {
    for (const bool prompt : {false, true}) {
      result.push_back(
          {&messages, prompt, source.render(variables_for(messages, prompt, tokenizer))});
    }
  }
  return result;
}

bool writes_the_same(const ChatTemplate& candidate, const std::vector<Rendering>& expected) {
  for (const auto& [messages, prompt, text] : expected) {
    if (candidate.render(*messages, prompt).text != text) return false;
  }
  return true;
}

std::optional<ChatTemplate> candidate_named(const std::string& name, const Tokenizer& tokenizer) {
  try {
    return ChatTemplate::named(name, tokenizer);
  } catch (const ConfigError&) {  // it needs a token that is not there: it cannot be this one
    return std::nullopt;
  }
}

std::string choices() {
  std::string names;
  for (const auto& name : ChatTemplate::names()) names += (names.empty() ? "" : ", ") + name;
  return "; choose one by its name with data.chat_template (--chat-template): " + names;
}

}  // namespace

ChatTemplate ChatTemplate::of_folder(const fs::path& folder, const Tokenizer& tokenizer) {
  const auto source = find_source(folder);
  if (!source) {
    throw ConfigError(str(folder.string(),
                          ": expected a chat template (chat_template.jinja or chat_template in "
                          "tokenizer_config.json), got none",
                          choices()));
  }
  std::string reason = "it writes as none of them does";
  try {
    const auto expected = render_probes(JinjaTemplate(source->text), tokenizer);
    for (const auto& name : names()) {
      auto candidate = candidate_named(name, tokenizer);
      if (candidate && writes_the_same(*candidate, expected)) return *candidate;
    }
  } catch (const JinjaError& error) {
    reason = error.what();
  }
  throw ConfigError(str(source->where,
                        ": chat_template: expected one of the known templates, got "
                        "another (",
                        reason, ")", choices()));
}

}  // namespace zebra
