#include "data/sources.h"

#include <zlib.h>

#include "data/records.h"
#include "data/shard_maker.h"
#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

std::vector<std::string> read_documents(const SourceOptions& source, DocumentOptions options = {}) {
  options.bos = options.eos = false;
  const ByteTokenizer tokenizer;
  const auto store = read_source(source, DocumentKind::kText, options, tokenizer);
  std::vector<std::string> texts;
  for (int64_t i = 0; i < store->documents(); ++i) {
    const auto document = store->document(i);
    texts.push_back(tokenizer.decode({document.ids(), document.ids() + document.count}));
    CHECK(store->document_bytes(i) == static_cast<int64_t>(texts.back().size()));
  }
  return texts;
}

// Each document's text with what counts as answer in brackets.
std::vector<std::string> with_answers(const SourceOptions& source, const DocumentOptions& options) {
  const ByteTokenizer tokenizer;
  const auto store = read_source(source, DocumentKind::kText, options, tokenizer);
  std::vector<std::string> texts;
  for (int64_t i = 0; i < store->documents(); ++i) {
    const auto document = store->document(i);
    auto& text = texts.emplace_back();
    bool open = false;
    for (int64_t t = 0; t < document.count; ++t) {
      const bool answer = document.shard->in_answer(document.first + t);
      if (answer != open) text += answer ? "[" : "]";
      open = answer;
      const int64_t id = document.ids()[t];
      text += id == 1 ? "^" : id == 2 ? "$" : tokenizer.decode({id});
    }
    if (open) text += "]";
  }
  return texts;
}

void write_gzip(const std::string& path, const std::string& text) {
  const gzFile file = gzopen(path.c_str(), "wb");
  REQUIRE(gzwrite(file, text.data(), static_cast<unsigned>(text.size())) ==
          static_cast<int>(text.size()));
  gzclose(file);
}

}  // namespace

TEST_CASE("sources: a text file is one document, byte for byte") {
  const Folder folder;
  const std::string text = "a b\n\nZo\xC3\xAB \xF0\x9F\x90\x8E \n";
  CHECK(read_documents({folder.write("a.txt", text), SourceFormat::kText}) ==
        std::vector<std::string>{text});
}

TEST_CASE("sources: a byte order mark is dropped") {
  const Folder folder;
  const auto file = folder.write("a.txt", "\xEF\xBB\xBFhi");
  CHECK(read_documents({file, SourceFormat::kText}) == std::vector<std::string>{"hi"});
}

TEST_CASE("sources: line ends of any kind become line feeds") {
  const Folder folder;
  const auto file = folder.write("a.txt", "one\r\ntwo\rthree\n\r\n\r");
  CHECK(read_documents({file, SourceFormat::kText}) ==
        std::vector<std::string>{"one\ntwo\nthree\n\n\n"});
}

TEST_CASE("sources: stories are separated by blank lines of any kind") {
  const Folder folder;
  const auto file = folder.write("a.txt", "\n\none\ntwo\n\n \t\nthree\r\n\r\nfour");
  CHECK(read_documents({file, SourceFormat::kStories}) ==
        std::vector<std::string>{"one\ntwo", "three", "four"});
}

TEST_CASE("sources: JSON lines give their text and blank lines do not count") {
  const Folder folder;
  const auto file = folder.write(
      "a.jsonl", "{\"text\": \"one\", \"id\": 3}\n\n{\"text\": \"t\\u00e9\"}\n{\"text\": \"\"}");
  CHECK(read_documents({file, SourceFormat::kJsonl}) ==
        std::vector<std::string>{"one", "t\xC3\xA9"});
}

TEST_CASE("sources: messages are shown with their roles") {
  const Folder folder;
  const auto file = folder.write(
      "a.jsonl", R"({"messages": [{"role": "system", "content": "Be kind."}, )"
                 R"({"role": "user", "content": "Hi"}, {"from": "gpt", "value": "Hello!"}]})");
  CHECK(read_documents({file, SourceFormat::kMessages}) ==
        std::vector<std::string>{"System: Be kind.\nUser: Hi\nAssistant: Hello!"});
}

TEST_CASE("sources: a glob reads its files in the order of their names") {
  const Folder folder;
  folder.write("b.txt", "B");
  folder.write("a.txt", "A");
  folder.write("c.md", "C");
  CHECK(read_documents({folder.path("*.txt"), SourceFormat::kText}) ==
        std::vector<std::string>{"A", "B"});
}

TEST_CASE("sources: a file whose name looks like a glob is read as it is named") {
  const Folder folder;
  const auto file = folder.write("a[1].txt", "A");
  CHECK(read_documents({file, SourceFormat::kText}) == std::vector<std::string>{"A"});
}

TEST_CASE("sources: missing files are refused by name") {
  const Folder folder;
  CHECK(config_error([&] {
          read_documents({folder.path("x.txt"), SourceFormat::kText});
        }) == "data: expected a file, got " + folder.path("x.txt") + ", which does not exist");
  CHECK(config_error([&] {
          read_documents({folder.path("*.txt"), SourceFormat::kText});
        }) == "data: expected files, got none that match " + folder.path("*.txt"));
}

TEST_CASE("sources: a folder in a file's place is refused") {
  const Folder folder;
  CHECK(config_error([&] {
          read_documents({folder.path("."), SourceFormat::kText});
        }) == "data: expected a file, got " + folder.path(".") + ", which is a folder");
}

TEST_CASE("sources: what is no plain file is refused, as is JSON that would be read as text") {
  CHECK(config_error([] {
          read_documents({"/dev/null", SourceFormat::kText});
        }) == "data: expected a plain file, got /dev/null");
  const Folder folder;
  for (const char* name : {"a.json", "a.jsonl", "a.jsonl.gz"}) {
    const auto file = folder.write(name, "{\"text\": \"x\"}\n");
    for (const auto format : {SourceFormat::kText, SourceFormat::kStories}) {
      const auto error = config_error([&] { read_documents({file, format}); });
      CHECK(error.starts_with(file + ": expected plain text"));
      CHECK_THAT(error, ContainsSubstring("choose the format jsonl"));
    }
  }
}

TEST_CASE("sources: invalid UTF-8 is refused with file and offset") {
  const Folder folder;
  const std::vector<std::pair<std::string, int>> cases{
      {"ab\xFF"
       "c",
       2},                      // never a byte of UTF-8
      {"\xC3\xA9\xC0\xAF", 2},  // overlong
      {"x\xED\xA0\x80", 1},     // a surrogate
      {"\xF4\x90\x80\x80", 0},  // beyond U+10FFFF
      {"end\xE2\x82", 3},       // cut off
      {"\x80", 0},              // a continuation alone
  };
  for (const auto& [text, offset] : cases) {
    const auto file = folder.write("bad.txt", text);
    for (const auto format : {SourceFormat::kText, SourceFormat::kStories, SourceFormat::kJsonl}) {
      const auto where = format == SourceFormat::kJsonl ? file + ":1" : file;
      CHECK(config_error([&] {
              read_documents({file, format});
            }) == str(where, ": expected UTF-8, got an invalid byte at offset ", offset));
    }
  }
}

TEST_CASE("sources: NUL bytes are text") {
  const Folder folder;
  const std::string text("a\0b", 3);
  CHECK(read_documents({folder.write("a.txt", text), SourceFormat::kText}) ==
        std::vector<std::string>{text});
}

TEST_CASE("sources: a bad JSON line is refused with file, line and reason") {
  const Folder folder;
  const auto read = [&](const std::string& line, SourceFormat format) {
    const auto file = folder.write(
        "bad.jsonl",
        "{\"text\": \"ok\", \"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}\n\n" + line);
    const auto error = config_error([&] { read_documents({file, format}); });
    CHECK(error.starts_with(file + ":3"));
    CHECK(error.find('\n') == std::string::npos);
    return error.substr(std::min(error.size(), file.size() + 4));
  };
  CHECK_THAT(read("{\"text\": \"x\"", SourceFormat::kJsonl), ContainsSubstring("JSON"));
  CHECK(read("[1]", SourceFormat::kJsonl) == "text: expected an object around it, got [1]");
  CHECK(read("{\"txt\": 1}", SourceFormat::kJsonl) == "text: expected a value, got none");
  CHECK(read("{\"text\": 1}", SourceFormat::kJsonl) == "text: expected a string, got 1");
  CHECK(read("{\"text\": \"x\"}", SourceFormat::kMessages) ==
        "messages: expected a value, got none");
  CHECK(read("{\"messages\": []}", SourceFormat::kMessages) ==
        "messages: expected a list of messages, got []");
  CHECK(read("{\"messages\": [3]}", SourceFormat::kMessages) ==
        "message: expected an object, got 3");
  CHECK_THAT(
      read("{\"messages\": [{\"role\": \"cat\", \"content\": \"\"}]}", SourceFormat::kMessages),
      ContainsSubstring("cat"));
}

TEST_CASE("sources: a JSON array gives its items with their numbers") {
  const Folder folder;
  const auto file = folder.write("a.json", " [{\"text\": \"x\"},\n {\"text\": \"y\"}]");
  const auto records = read_json_records(file);
  REQUIRE(records.size() == 2);
  CHECK(records[1].value["text"] == "y");
  CHECK(records[1].where == file + ": item 2");
}

TEST_CASE("sources: gzip files read as what they hold") {
  const Folder folder;
  const std::string lines = "{\"text\": \"one\"}\r\n{\"text\": \"two\"}\n";
  write_gzip(folder.path("a.jsonl.gz"), lines);
  CHECK(read_documents({folder.path("a.jsonl.gz"), SourceFormat::kJsonl}) ==
        std::vector<std::string>{"one", "two"});
  write_gzip(folder.path("a.txt.gz"), "one\r\n\ntwo");
  CHECK(read_documents({folder.path("a.txt.gz"), SourceFormat::kText}) ==
        std::vector<std::string>{"one\n\ntwo"});
  CHECK(read_documents({folder.path("a.txt.gz"), SourceFormat::kStories}) ==
        std::vector<std::string>{"one", "two"});
}

TEST_CASE("sources: a gzip file that is cut off or damaged is refused by name") {
  const Folder folder;
  std::string text;
  for (int i = 0; i < 20000; ++i) text += str("{\"text\": \"", i * i, "\"}\n");
  write_gzip(folder.path("whole.gz"), text);
  std::ifstream in(folder.path("whole.gz"), std::ios::binary);
  std::string packed((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const auto cut = folder.write("cut.gz", packed.substr(0, packed.size() / 2));
  CHECK_THAT(config_error([&] {
               read_documents({cut, SourceFormat::kJsonl});
             }),
             ContainsSubstring(cut + ": cannot be read: unexpected end of file"));
  packed[packed.size() / 2] ^= 0x55;
  const auto damaged = folder.write("damaged.gz", packed);
  CHECK_THAT(config_error([&] {
               read_documents({damaged, SourceFormat::kJsonl});
             }),
             ContainsSubstring(damaged));
}

TEST_CASE("sources: bad lines are left out and counted when the recipe says so") {
  const Folder folder;
  const auto file = folder.write(
      "a.jsonl", "{\"text\": \"one\"}\nnot JSON\n{\"text\": \"tw\xFF\"}\n{\"text\": \"three\"}\n");
  CHECK(config_error([&] {
          read_documents({file, SourceFormat::kJsonl});
        }).starts_with(file + ":2"));
  CHECK(read_documents({file, SourceFormat::kJsonl}, {.bad_lines = BadLines::kCount}) ==
        std::vector<std::string>{"one", "three"});
  const auto list =
      folder.write("a.json", "[{\"text\": \"one\"}, {\"text\": \"\xFF\"}, {\"text\": \"three\"}]");
  CHECK(config_error([&] {
          read_documents({list, SourceFormat::kJsonl});
        }) == list + ": item 2: expected UTF-8, got an invalid byte at offset 28");
  CHECK(read_documents({list, SourceFormat::kJsonl}, {.bad_lines = BadLines::kCount}) ==
        std::vector<std::string>{"one", "three"});
}

TEST_CASE("sources: a list that is cut off or goes wrong is refused after its last good item") {
  const Folder folder;
  const auto refused = [&](const std::string& text) {
    const auto file = folder.write("a.json", text);
    const auto error = config_error([&] { read_documents({file, SourceFormat::kJsonl}); });
    CHECK(error.starts_with(file + ": "));
    return error.substr(std::min(error.size(), file.size() + 2));
  };
  CHECK(refused(R"([{"text": "x"})") ==
        "expected JSON: a comma or ] after item 1, got the end of the file");
  CHECK_THAT(refused(R"([{"text": "x"}, {"text": "y)"), ContainsSubstring("item 2: expected JSON"));
  CHECK_THAT(refused(R"([{"text": "x"}, ])"), ContainsSubstring("item 2: expected JSON"));
  CHECK(refused(R"([{"text": "x"}] 3)") == "expected JSON: nothing after the list's end, got more");
  CHECK(read_documents({folder.write("b.json", R"([{"text": "[,]\"}"}])"), SourceFormat::kJsonl}) ==
        std::vector<std::string>{"[,]\"}"});
}

TEST_CASE("sources: records can be read on from any place") {
  const Folder folder;
  std::string lines, list = "[", stories;
  for (int i = 0; i < 40; ++i) {
    lines += str("{\"text\": \"", i, "\"}", i % 3 == 0 ? "\r\n\n" : "\n");
    list += str(i > 0 ? " , " : "", "{\"text\": \"", i, "\"}");
    stories += str("story ", i, "\n goes on\n\n", i % 2 == 0 ? "\n" : "");
  }
  write_gzip(folder.path("b.gz"), lines);
  const std::vector<std::pair<std::vector<std::filesystem::path>, RecordKind>> cases = {
      {{folder.write("a.jsonl", lines), folder.path("b.gz")}, RecordKind::kJson},
      {{folder.write("a.json", list + "]")}, RecordKind::kJson},
      {{folder.write("a.txt", stories)}, RecordKind::kStories},
      {{folder.path("a.txt"), folder.write("b.txt", lines)}, RecordKind::kFile}};
  for (const auto& [files, kind] : cases) {
    RecordReader whole(files, kind);
    std::vector<Record> records;
    std::vector<Place> places{whole.place()};
    while (auto record = whole.next()) {
      records.push_back(*record);
      places.push_back(whole.place());
    }
    CHECK(whole.bytes_read() == whole.bytes());
    for (size_t start = 0; start < places.size(); start += 7) {
      RecordReader rest(files, kind, places[start]);
      CHECK((start == 0 || rest.bytes_read() > 0));
      for (size_t i = start; i < records.size(); ++i) {
        const auto record = rest.next();
        REQUIRE(record);
        CHECK(record->text == records[i].text);
        CHECK(record->where == records[i].where);
      }
      CHECK_FALSE(rest.next());
    }
  }
}

TEST_CASE("sources: lines longer than the buffer and line ends across its border stay whole") {
  const Folder folder;
  for (const size_t size : {size_t{(1 << 18) - 1}, size_t{1 << 18}, size_t{600000}}) {
    const auto file = folder.write("a.txt", std::string(size, 'x') + "\r\n\r\nend");
    CHECK(read_documents({file, SourceFormat::kStories}) ==
          std::vector<std::string>{std::string(size, 'x'), "end"});
  }
}

TEST_CASE("sources: conversations have the answers that a loss may be confined to") {
  const Folder folder;
  const auto file =
      folder.write("a.jsonl", R"({"conversations": [{"from": "human", "value": "Hi"}, )"
                              R"({"from": "gpt", "value": "Hello!"}]})");
  const auto shown = with_answers({file, SourceFormat::kConversations}, {});
  REQUIRE(shown.size() == 1);
  CHECK(shown[0].starts_with("^User: Hi\nAssistant:["));
  CHECK(shown[0].ends_with("Hello!$]"));
}

TEST_CASE("sources: of a prompt and its completion the completion counts as answer") {
  const Folder folder;
  const auto file =
      folder.write("a.jsonl",
                   "{\"prompt\": \"Say \", \"completion\": \"yes\"}\n"
                   "{\"prompt\": [{\"role\": \"user\", \"content\": \"a\"}], "
                   "\"completion\": [{\"role\": \"assistant\", \"content\": \"b\"}]}\n");
  CHECK(with_answers({file, SourceFormat::kPromptCompletion}, {}) ==
        std::vector<std::string>{"^Say[ yes$]", "^User: a\nAssistant:[ b$]"});
  CHECK(with_answers({file, SourceFormat::kPromptCompletion}, {.bos = false, .eos = false}) ==
        std::vector<std::string>{"Say[ yes]", "User: a\nAssistant:[ b]"});
}

TEST_CASE("sources: of a completion of several turns the assistant's alone count as answer") {
  const Folder folder;
  const auto message = [](const char* role, const char* content) {
    return str("{\"role\": \"", role, "\", \"content\": \"", content, "\"}");
  };
  const auto file = folder.write(
      "a.jsonl", str("{\"prompt\": [", message("user", "a"), ", ", message("assistant", "b"), ", ",
                     message("user", "c"), "], \"completion\": [", message("assistant", "d"), ", ",
                     message("user", "e"), ", ", message("assistant", "f"), "]}"));
  CHECK(with_answers({file, SourceFormat::kPromptCompletion}, {}) ==
        std::vector<std::string>{"^User: a\nAssistant: b\nUser: c\nAssistant:[ d]\nUser: e\n"
                                 "Assistant:[ f$]"});
  const auto chatml =
      with_answers({file, SourceFormat::kPromptCompletion}, {.chat_template = "chatml"});
  CHECK(chatml.at(0).ends_with("<|im_start|>assistant\n[f<|im_end|>]\n$"));
}

TEST_CASE("sources: a prompt without its completion is refused") {
  const Folder folder;
  const auto refused = [&](const std::string& line) {
    const auto file = folder.write("a.jsonl", line);
    const auto error = config_error([&] {
      read_documents({file, SourceFormat::kPromptCompletion});
    });
    CHECK(error.starts_with(file + ":1: "));
    return error.substr(std::min(error.size(), file.size() + 4));
  };
  CHECK(refused("{\"completion\": \"x\"}") == "prompt: expected a value, got none");
  CHECK(refused("{\"prompt\": \"x\"}") == "completion: expected a value, got none");
  CHECK(refused("{\"prompt\": \"x\", \"completion\": 1}") ==
        "completion: expected a string, got 1");
}

TEST_CASE("sources: messages without a template to show them are refused by their line") {
  const Folder folder;
  const auto file =
      folder.write("a.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"x\"}]}");
  const auto error = config_error([&] {
    read_documents({file, SourceFormat::kMessages}, {.chat_template = ""});
  });
  CHECK_THAT(error, ContainsSubstring(file + ":1: messages need a chat template"));
  CHECK_THAT(error, ContainsSubstring("llama3"));
}

TEST_CASE("sources: a split by hash gives each document to one side, whatever file it is in") {
  const Folder folder;
  std::string lines, again;
  for (int i = 0; i < 400; ++i) {
    const auto line = str("{\"text\": \"document ", i, "\"}\n");
    lines += line;
    if (i % 3 == 0) again += line;
  }
  const auto both = [&](const std::string& text) {
    const auto file = folder.write("a.jsonl", text);
    const auto side = [&](Split split) {
      return read_documents({file, SourceFormat::kJsonl}, {.split = split, .held_out = 0.25});
    };
    return std::pair{side(Split::kTrain), side(Split::kHeldOut)};
  };
  const auto [train, held_out] = both(lines);
  CHECK(train.size() + held_out.size() == 400);
  CHECK(held_out.size() > 60);
  CHECK(held_out.size() < 140);
  const auto [train_again, held_out_again] = both(again);
  for (const auto& text : held_out_again) {
    CHECK(std::count(held_out.begin(), held_out.end(), text) == 1);
  }
  for (const auto& text : train_again) CHECK(std::count(train.begin(), train.end(), text) == 1);
}
