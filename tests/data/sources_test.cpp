#include "data/sources.h"

#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

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
      CHECK(config_error([&] {
              read_documents({file, format});
            }) == str(file, ": expected UTF-8, got an invalid byte at offset ", offset));
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
  CHECK(read("{\"messages\": [{\"role\": \"cat\", \"content\": \"\"}]}", SourceFormat::kMessages) ==
        "role: expected system, user or assistant, got \"cat\"");
}

TEST_CASE("sources: a JSON array gives its items with their numbers") {
  const Folder folder;
  const auto file = folder.write("a.json", " [{\"text\": \"x\"},\n {\"text\": \"y\"}]");
  const auto records = read_json_records(file);
  REQUIRE(records.size() == 2);
  CHECK(records[1].value["text"] == "y");
  CHECK(records[1].where == file + ": item 2");
}
