// Chat templates: what each writes, which tokens are answers, and how a folder's own is recognised.
#include "zebra/chat_template.h"

#include "data/fixtures.h"
#include "data/tokenizer/tokenizer_golden.h"
#include "support/tokenizer_files.h"

using namespace zebra;
using namespace zebra::testing;
using json = nlohmann::json;

namespace {

using Messages = std::vector<ChatMessage>;

const Messages kTurns = {{"system", " Be kind. "},
                         {"user", "Hi\n"},
                         {"assistant", " Hello "},
                         {"user", "the and"},
                         {"assistant", "or"}};

std::unique_ptr<Tokenizer> small_tokenizer() {
  const Folder folder;
  folder.write("tokenizer.json", small_tokenizer_json().dump());
  folder.write("tokenizer_config.json", small_tokenizer_config().dump());
  return load_tokenizer(folder.path(""));
}

std::string render(const char* name, const Messages& messages, bool prompt = false) {
  const ByteTokenizer tokenizer;
  return ChatTemplate::named(name, tokenizer).render(messages, prompt).text;
}

// BOS and EOS with names, as render() shows them.
class NamedTokenizer : public ByteTokenizer {
 public:
  std::string piece(int64_t id) const override {
    return id == 1 ? "<s>" : id == 2 ? "</s>" : ByteTokenizer::piece(id);
  }
};

std::string named(const char* name, const Messages& messages, bool prompt = false) {
  const NamedTokenizer tokenizer;
  return ChatTemplate::named(name, tokenizer).render(messages, prompt).text;
}

std::string recognised(const std::string& source) {
  const Folder folder;
  folder.write("chat_template.jinja", source);
  return ChatTemplate::of_folder(folder.path(""), NamedTokenizer()).name();
}

std::string not_recognised(const std::string& source) {
  return config_error([&] { recognised(source); });
}

const std::string kLlama3 =
    "{% for m in messages %}{% set c = '<|start_header_id|>' + m['role'] + '<|end_header_id|>\n\n' "
    "+"
    " m['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set c = bos_token + c %}"
    "{% endif %}{{ c }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

}  // namespace

TEST_CASE("chat template: texts and ids equal the golden vectors", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/tokenizers/chat.json");
  const auto folder = shared_path("data/tokenizers/llama3-style");
  const auto tokenizer = load_tokenizer(folder);
  const auto chat = ChatTemplate::of_folder(folder, *tokenizer);
  CHECK(chat.name() == "llama3");
  for (const auto& vector : golden_json("chat.json")) {
    Messages messages;
    for (const auto& item : vector["messages"]) {
      messages.push_back({item["role"].get<std::string>(), item["content"].get<std::string>()});
    }
    const bool prompt = vector["generation_prompt"].get<bool>();
    CHECK(chat.render(messages, prompt).text == vector["text"].get<std::string>());
    CHECK(encode_chat(*tokenizer, chat, messages, prompt).ids ==
          vector["ids"].get<std::vector<int64_t>>());
  }
}

TEST_CASE("chat template: each writes as its model was taught") {
  CHECK(named("llama3", {kTurns[0], kTurns[1]}, true) ==
        "<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n");
  CHECK(named("llama3.1", {kTurns[1]}) ==
        "<s><|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n"
        "Today Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>");
  CHECK(named("llama2", kTurns) ==
        "<s>[INST] <<SYS>>\n Be kind. \n<</SYS>>\n\nHi [/INST] Hello </s>"
        "<s>[INST] the and [/INST] or </s>");
  CHECK(named("chatml", {kTurns[1], kTurns[2]}, true) ==
        "<|im_start|>user\nHi\n<|im_end|>\n<|im_start|>assistant\n Hello <|im_end|>\n"
        "<|im_start|>assistant\n");
  CHECK(named("zephyr", {kTurns[0], kTurns[4]}, true) ==
        "<|system|>\n Be kind. </s>\n<|assistant|>\nor</s>\n<|assistant|>\n");
  CHECK(named("plain", {kTurns[1], kTurns[4], kTurns[1]}, true) ==
        "User: Hi\n\nAssistant: or</s>\nUser: Hi\n\nAssistant:");
}

TEST_CASE("chat template: answers are marked with their end token, in every template") {
  const NamedTokenizer tokenizer;
  const std::map<std::string, std::vector<std::string>> answers = {
      {"llama3", {"Hello<|eot_id|>", "or<|eot_id|>"}},
      {"llama3.1", {"Hello<|eot_id|>", "or<|eot_id|>"}},
      {"llama2", {" Hello </s>", " or </s>"}},
      {"chatml", {" Hello <|im_end|>", "or<|im_end|>"}},
      {"zephyr", {" Hello </s>", "or</s>"}},
      {"plain", {"  Hello </s>", " or</s>"}}};
  for (const auto& name : ChatTemplate::names()) {
    INFO(name);
    const auto [text, spans] = ChatTemplate::named(name, tokenizer).render(kTurns, false);
    std::vector<std::string> found;
    for (const auto& [begin, end] : spans) found.push_back(text.substr(begin, end - begin));
    CHECK(found == answers.at(name));
  }
}

TEST_CASE("chat template: the tokens of an answer and its end token are marked, no others") {
  const auto tokenizer = small_tokenizer();
  const auto chat = ChatTemplate::named("llama3", *tokenizer);
  const auto [ids, marks] = encode_chat(*tokenizer, chat, kTurns, /*add_generation_prompt=*/true);
  REQUIRE(ids.size() == marks.size());
  std::vector<int64_t> marked;
  for (size_t i = 0; i < ids.size(); ++i) {
    if (marks[i] != 0) marked.push_back(ids[i]);
  }
  CHECK(tokenizer->decode_with_special(marked) == "Hello<|eot_id|>or<|eot_id|>");
  CHECK(std::count(marked.begin(), marked.end(), kSmallEot) == 2);
}

TEST_CASE("chat template: a conversation begins with one BOS at most") {
  const auto tokenizer = small_tokenizer();
  for (const auto& name : ChatTemplate::names()) {
    INFO(name);
    const auto chat = ChatTemplate::named(name, *tokenizer);
    const auto ids = encode_chat(*tokenizer, chat, {kTurns[1], kTurns[2]}, false).ids;
    const bool none = name == "chatml" || name == "zephyr";
    CHECK(std::count(ids.begin(), ids.end(), kSmallBos) == (none ? 0 : 1));
    if (!none) CHECK(ids[0] == kSmallBos);
  }
}

TEST_CASE("chat template: conversations that cannot be shown are refused") {
  const auto refusal = [](const char* name, const Messages& messages) {
    return config_error([&] { render(name, messages); });
  };
  CHECK_THAT(refusal("llama3", {}), ContainsSubstring("llama3: expected a message, got none"));
  CHECK_THAT(refusal("zephyr", {{"tool", "x"}}), ContainsSubstring("got \"tool\""));
  CHECK_THAT(refusal("plain", {{"tool", "x"}}), ContainsSubstring("got \"tool\""));
  CHECK(refusal("llama3", {{"tool", "x"}}).empty());
  CHECK_THAT(refusal("llama2", {{"user", "a"}, {"user", "b"}}),
             ContainsSubstring("message 2: expected a message of the assistant, got one of user"));
  CHECK_THAT(refusal("llama2", {{"assistant", "a"}}), ContainsSubstring("message 1"));
  CHECK_THAT(
      refusal("llama4", {{"user", "a"}}),
      ContainsSubstring("expected one of llama3, llama3.1, llama2, chatml, zephyr, plain, got "
                        "llama4; did you mean llama"));
}

TEST_CASE("chat template: a folder's template is recognised by what it writes") {
  CHECK(recognised(kLlama3) == "llama3");
  CHECK(
      recognised("{{ bos_token }}{%- for message in messages -%}\n"
                 "{{- '<|start_header_id|>' ~ message.role ~ '<|end_header_id|>\\n\\n' }}"
                 "{{- message.content.strip() + '<|eot_id|>' -}}{% endfor %}"
                 "{%- if add_generation_prompt -%}\n"
                 "{{- \"<|start_header_id|>assistant<|end_header_id|>\\n\\n\" -}}{%- endif -%}") ==
      "llama3");
  CHECK(recognised("{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + "
                   "'<|im_end|>' + '\n' }}{% endfor %}{% if add_generation_prompt %}"
                   "{{ '<|im_start|>assistant\n' }}{% endif %}") == "chatml");
  CHECK(recognised("{% for m in messages %}\n{% if m['role'] in ['user', 'system'] %}\n"
                   "{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token }}\n{% else %}\n"
                   "{{ '<|assistant|>\n' + m['content'] + eos_token }}\n{% endif %}\n"
                   "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n"
                   "{% endif %}\n{% endfor %}") == "zephyr");
  CHECK(recognised("{% if messages[0]['role'] == 'system' %}{% set rest = messages[1:] %}"
                   "{% set sys = messages[0]['content'] %}{% else %}{% set rest = messages %}"
                   "{% set sys = false %}{% endif %}{% for m in rest %}"
                   "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
                   "{{ raise_exception('out of turn') }}{% endif %}"
                   "{% if loop.index0 == 0 and sys != false %}"
                   "{% set c = '<<SYS>>\\n' + sys + '\\n<</SYS>>\\n\\n' + m['content'] %}"
                   "{% else %}{% set c = m['content'] %}{% endif %}{% if m['role'] == 'user' %}"
                   "{{ bos_token + '[INST] ' + c.strip() + ' [/INST]' }}{% else %}"
                   "{{ ' ' + c.strip() + ' ' + eos_token }}{% endif %}{% endfor %}") == "llama2");
}

TEST_CASE("chat template: one with today's date is recognised by the date it is pinned to") {
  CHECK(
      recognised("{{- bos_token }}{%- set date = strftime_now('%d %b %Y') %}"
                 "{%- if messages[0].role == 'system' %}{%- set sys = messages[0].content | trim %}"
                 "{%- set messages = messages[1:] %}{%- else %}{%- set sys = '' %}{%- endif %}"
                 "{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}"
                 "{{- 'Cutting Knowledge Date: December 2023\\nToday Date: ' + date + '\\n\\n' }}"
                 "{{- sys + '<|eot_id|>' }}{%- for m in messages %}"
                 "{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
                 "{{- m.content | trim + '<|eot_id|>' }}{%- endfor %}"
                 "{%- if add_generation_prompt %}"
                 "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}") ==
      "llama3.1");
}

TEST_CASE("chat template: the config's template serves, alone or by the name default") {
  const Folder folder;
  folder.write("tokenizer_config.json", json{{"chat_template", kLlama3}}.dump());
  CHECK(ChatTemplate::of_folder(folder.path(""), NamedTokenizer()).name() == "llama3");
  const json list = {{{"name", "tool_use"}, {"template", "x"}},
                     {{"name", "default"}, {"template", kLlama3}}};
  folder.write("tokenizer_config.json", json{{"chat_template", list}}.dump());
  CHECK(ChatTemplate::of_folder(folder.path(""), NamedTokenizer()).name() == "llama3");
}

TEST_CASE("chat template: none, and one that writes otherwise, are refused with the names") {
  const std::string names =
      "choose one by its name with data.chat_template (--chat-template): llama3, llama3.1, llama2, "
      "chatml, zephyr, plain";
  const Folder folder;
  CHECK_THAT(config_error([&] { ChatTemplate::of_folder(folder.path(""), NamedTokenizer()); }),
             ContainsSubstring("expected a chat template") && ContainsSubstring(names));
  CHECK_THAT(not_recognised(kLlama3 + "!"),
             ContainsSubstring("chat_template.jinja: chat_template: expected one of the known") &&
                 ContainsSubstring(names));
  CHECK_THAT(not_recognised("{% macro x() %}{% endmacro %}"), ContainsSubstring("macro"));
  CHECK_THAT(not_recognised("{{ messages | selectattr('x') }}"), ContainsSubstring(names));
}
