#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

// Bytes as text, ^ for BOS and $ for EOS.
std::string shown(const std::vector<int64_t>& ids) {
  std::string text;
  for (const auto id : ids) text += id == 1 ? '^' : id == 2 ? '$' : static_cast<char>(id - 3);
  return text;
}

PreferenceDataset pairs(const Folder& folder, const std::string& content,
                        const PreferenceOptions& options = {}) {
  return {{folder.write("pairs.jsonl", content)}, ByteTokenizer(), options};
}

void check_pair(const std::string& line, const std::vector<std::string>& expected) {
  const Folder folder;
  const auto data = pairs(folder, line);
  REQUIRE(data.size() == 1);
  CHECK(std::vector<std::string>{shown(data.pair(0).prompt), shown(data.pair(0).chosen),
                                 shown(data.pair(0).rejected)} == expected);
}

}  // namespace

TEST_CASE("preference: prompt and answers as strings") {
  check_pair(R"({"prompt": "Q:", "chosen": " yes", "rejected": " no"})", {"^Q:", " yes$", " no$"});
}

TEST_CASE("preference: a prompt's trailing spaces go to the answers") {
  check_pair(R"({"prompt": "Q: ", "chosen": "yes", "rejected": "no"})", {"^Q:", " yes$", " no$"});
}

TEST_CASE("preference: whole texts share their beginning up to the last word") {
  check_pair(R"({"chosen": "the cat sat down", "rejected": "the cat saw me"})",
             {"^the cat", " sat down$", " saw me$"});
  check_pair(R"({"chosen": "abc", "rejected": "abd"})", {"^", "abc$", "abd$"});
}

TEST_CASE("preference: whole dialogues share everything up to the last turn") {
  check_pair(R"({"chosen": "\n\nHuman: a\n\nAssistant: I am b", )"
             R"("rejected": "\n\nHuman: a\n\nAssistant: I am c"})",
             {"^\n\nHuman: a\n\nAssistant:", " I am b$", " I am c$"});
}

TEST_CASE("preference: message lists in their usual shapes") {
  const std::vector<std::string> expected{"^User: hi\nAssistant:", " yo$", " no$"};
  const std::string user = R"({"role": "user", "content": "hi"})";
  const std::string yes = R"({"role": "assistant", "content": "yo"})",
                    no = R"({"role": "assistant", "content": "no"})";
  check_pair(
      R"({"prompt": [)" + user + R"(], "chosen": [)" + yes + R"(], "rejected": [)" + no + "]}",
      expected);
  check_pair(R"({"messages": [)" + user + R"(], "chosen": )" + yes + R"(, "rejected": "no"})",
             expected);
  check_pair(R"({"chosen": [)" + user + "," + yes + R"(], "rejected": [)" + user + "," + no + "]}",
             expected);
  check_pair(R"({"prompt": "hi", "chosen": [)" + user + "," + yes + R"(], "rejected": [)" + user +
                 "," + no + "]}",
             expected);
  check_pair(R"({"conversations": [{"from": "human", "value": "hi"}], )"
             R"("chosen": {"from": "gpt", "value": "yo"}, )"
             R"("rejected": {"from": "gpt", "value": "no"}})",
             expected);
}

TEST_CASE("preference: pairs in OpenAI's form, and ranked answers to a question") {
  const std::string user = R"({"role": "user", "content": "hi"})";
  check_pair(R"({"input": {"messages": [)" + user + R"(]}, "preferred_output": )" +
                 R"([{"role": "assistant", "content": "yo"}], "non_preferred_output": )" +
                 R"([{"role": "assistant", "content": "no"}]})",
             {"^User: hi\nAssistant:", " yo$", " no$"});
  check_pair(R"({"question": "Q:", "response_j": " yes", "response_k": " no"})",
             {"^Q:", " yes$", " no$"});
}

TEST_CASE("preference: a conversation beside the answers' own lists is no prompt") {
  const std::string user = R"({"role": "user", "content": "hi"})";
  const std::string yes = R"({"role": "assistant", "content": "yo"})";
  const std::string no = R"({"role": "assistant", "content": "no"})";
  check_pair(R"({"prompt": "hi", "chosen": [)" + user + "," + yes + R"(], "rejected": [)" + user +
                 "," + no + R"(], "messages": [)" + user + "," + yes + "]}",
             {"^User: hi\nAssistant:", " yo$", " no$"});
}

TEST_CASE("preference: a question is a prompt, and none at all is refused") {
  check_pair(R"({"question": "Q:", "chosen": " yes", "rejected": " no"})",
             {"^Q:", " yes$", " no$"});
  check_pair(R"({"system": "S", "question": "Q", "chosen": "yes", "rejected": "no"})",
             {"^System: S\nUser: Q\nAssistant:", " yes$", " no$"});
  const Folder folder;
  const auto refused = [&](const std::string& line) {
    const auto error = config_error([&] { pairs(folder, line); });
    const auto where = folder.path("pairs.jsonl") + ":1: ";
    CHECK(error.starts_with(where));
    return error.substr(std::min(error.size(), where.size()));
  };
  CHECK(refused(R"({"ask": "Q", "chosen": "yes", "rejected": "no"})") ==
        "expected a prompt, or answers that begin alike, got neither");
  CHECK(refused(R"({"instruction": "Q", "chosen": "a yes", "rejected": "a no"})") ==
        "instruction: expected the answers' prompt at 'prompt' or 'question', got \"Q\"");
  CHECK(refused(R"({"response_j": "a yes", "response_k": "a no"})") ==
        "question: expected a string, got null");
}

TEST_CASE("preference: a JSON array is read like lines") {
  const Folder folder;
  const auto data = pairs(folder,
                          "[{\"prompt\": \"a\", \"chosen\": \"b\", \"rejected\": \"c\"},\n"
                          "{\"prompt\": \"d\", \"chosen\": \"e\", \"rejected\": \"f\"}]");
  REQUIRE(data.size() == 2);
  CHECK(shown(data.pair(1).prompt) == "^d");
}

TEST_CASE("preference: bad lines are refused with file, line and reason") {
  const Folder folder;
  const auto refused = [&](const std::string& line) {
    const auto error = config_error([&] { pairs(folder, "\n" + line); });
    const auto where = folder.path("pairs.jsonl") + ":2: ";
    CHECK(error.starts_with(where));
    return error.substr(std::min(error.size(), where.size()));
  };
  CHECK(refused("3") == "pair: expected an object, got 3");
  CHECK(refused(R"({"prompt": "a", "chosen": "b"})") == "rejected: expected a value, got none");
  CHECK(refused(R"({"prompt": "a", "chosen": 1, "rejected": "c"})") ==
        "chosen: messages: expected a list of messages, got 1");
  CHECK(refused(R"({"prompt": 1, "chosen": "b", "rejected": "c"})") ==
        "prompt: expected a string, got 1");
  CHECK(refused(R"({"prompt": "a", "chosen": "", "rejected": "c"})") ==
        "expected two answers with text, got an empty one at 'chosen'");
  CHECK(refused(R"({"messages": "x", "chosen": "b", "rejected": "c"})") ==
        "messages: expected a list of messages, got \"x\"");
  CHECK(refused(R"({"chosen": [{"role": "user", "content": "x"}], "rejected": "c"})") ==
        "chosen: role: expected a last message of the assistant, got \"user\"");
  const std::string yes = R"({"role": "assistant", "content": "y"}], )";
  CHECK(refused(R"({"chosen": [{"role": "user", "content": "x"}, )" + yes +
                R"("rejected": [{"role": "user", "content": "z"}, )" + yes + R"("id": 1})") ==
        "expected chosen and rejected to follow the same messages, got different ones");
  CHECK(refused(R"({"input": 3, "preferred_output": [], "non_preferred_output": []})") ==
        "input: messages: expected an object around it, got 3");
  CHECK(config_error([&] { pairs(folder, ""); }) ==
        "data: expected preference pairs, got none from " + folder.path("pairs.jsonl"));
}

TEST_CASE(
    "preference: a pair that is too long loses the left of its prompt, then the end of its "
    "answers") {
  const Folder folder;
  const std::string line = R"({"prompt": "abcdefgh", "chosen": "ijklmn", "rejected": "op"})";
  const auto cut = [&](int64_t max_length, int64_t max_prompt_length) {
    const auto data = pairs(folder, line, {max_length, max_prompt_length});
    return shown(data.pair(0).prompt) + "|" + shown(data.pair(0).chosen) + "|" +
           shown(data.pair(0).rejected);
  };
  CHECK(cut(16, 4) == "^abcdefgh|ijklmn$|op$");  // fits: nothing is cut
  CHECK(cut(15, 4) == "^fgh|ijklmn$|op$");
  CHECK(cut(9, 4) == "^fgh|ijklm|op$");
  CHECK(cut(9, 1) == "^|ijklmn$|op$");
  CHECK(cut(12, 9) == "^abcdefgh|ijk|op$");  // answers: to max_length - max_prompt_length
  CHECK_THAT(config_error([&] { cut(4, 4); }), ContainsSubstring("data.max_length"));
  CHECK_THAT(config_error([&] { cut(4, 0); }), ContainsSubstring("data.max_length"));
}

TEST_CASE(
    "preference: a batch holds the chosen, then the rejected, with targets on the answers alone") {
  const Folder folder;
  const auto data = pairs(folder,
                          "{\"prompt\": \"ab\", \"chosen\": \"cde\", \"rejected\": \"f\"}\n"
                          "{\"prompt\": \"g\", \"chosen\": \"h\", \"rejected\": \"i\"}\n");
  const auto batch = data.sequential(0, 2);
  REQUIRE(batch.input_ids.sizes() == at::IntArrayRef({4, 7}));
  const auto row = [](const torch::Tensor& tensor, int64_t i) { return values(tensor[i]); };
  CHECK(shown(row(batch.input_ids, 0)) == "^abcde$");
  CHECK(shown(row(batch.input_ids, 1)) == "^gh$$$$");
  CHECK(shown(row(batch.input_ids, 2)) == "^abf$$$");
  CHECK(shown(row(batch.input_ids, 3)) == "^gi$$$$");
  CHECK(row(batch.targets, 0) == std::vector<int64_t>{-1, -1, 'c' + 3, 'd' + 3, 'e' + 3, 2, -1});
  CHECK(row(batch.targets, 3) == std::vector<int64_t>{-1, 'i' + 3, 2, -1, -1, -1, -1});
  CHECK(batch.sample_ids == std::vector<int64_t>{0, 1});
}

TEST_CASE("preference: every epoch is a permutation, whatever the batches") {
  const Folder folder;
  std::string lines;
  for (int i = 0; i < 7; ++i)
    lines += str("{\"prompt\": \"p\", \"chosen\": \"a", i, "\", \"rejected\": \"b\"}\n");
  const auto data = pairs(folder, lines);
  const auto whole = data.batch(/*seed=*/4, 0, 21).sample_ids;
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<int64_t> ids(whole.begin() + epoch * 7, whole.begin() + epoch * 7 + 7);
    CHECK(ids.size() == 7);
  }
  for (int64_t i = 0; i < 21; ++i) CHECK(data.batch(/*seed=*/4, i, 1).sample_ids[0] == whole[i]);
  CHECK(pairs(folder, lines).hash() == data.hash());
  CHECK(pairs(folder, lines.substr(0, lines.size() / 7 * 6)).hash() != data.hash());
}

TEST_CASE("preference: real pairs of conversations", "[golden]") {
  ZEBRA_NEEDS_SHARED("data/prefs/dpo-en-demo.json");
  const auto tokenizer = load_tokenizer(shared_path("data/models/stories260k"));
  const PreferenceDataset data({shared_path("data/prefs/dpo-en-demo.json").string()}, *tokenizer,
                               {.max_length = 512, .max_prompt_length = 128});
  REQUIRE(data.size() == 300);
  CHECK(tokenizer->decode(data.pair(0).prompt).ends_with("\nAssistant:"));
  CHECK(tokenizer->decode(data.pair(0).chosen)
            .starts_with("That sounds like a fun and engaging idea!"));
  for (int64_t i = 0; i < data.size(); ++i) {
    const auto pair = data.pair(i);
    CHECK(pair.prompt[0] == 1);
    CHECK(std::max(pair.chosen.size(), pair.rejected.size()) + pair.prompt.size() <= 512);
    CHECK(std::count(pair.prompt.begin(), pair.prompt.end(), 1) == 1);
  }
}

TEST_CASE("multiple choice: questions are read as they stand") {
  const Folder folder;
  const auto file =
      folder.write("q.jsonl", R"({"context": "A", "choices": [" b", " c"], "answer": 1})");
  const auto questions = read_multiple_choice(file);
  REQUIRE(questions.size() == 1);
  CHECK(questions[0].context == "A");
  CHECK(questions[0].choices == std::vector<std::string>{" b", " c"});
  CHECK(questions[0].answer == 1);
}

TEST_CASE("multiple choice: bad questions are refused with file, line and reason") {
  const Folder folder;
  const auto refused = [&](const std::string& line) {
    const auto file = folder.write("q.jsonl", line);
    const auto error = config_error([&] { read_multiple_choice(file); });
    CHECK(error.starts_with(file + ":"));
    return error.substr(std::min(error.size(), file.size() + 1));
  };
  CHECK(refused(R"({"choices": ["a", "b"], "answer": 0})") ==
        "1: context: expected a value, got none");
  CHECK(refused(R"({"context": "A", "choices": ["a"], "answer": 0})") ==
        "1: choices: expected two strings or more, got [\"a\"]");
  CHECK(refused(R"({"context": "A", "choices": ["a", 2], "answer": 0})") ==
        "1: choices: expected a string, got 2");
  CHECK(refused(R"({"context": "A", "choices": ["a", "b"], "answer": 2})") ==
        "1: answer: expected 0 ... 1, got 2");
  CHECK(refused(R"({"context": "A", "choices": ["a", "b"]})") ==
        "1: answer: expected a value, got none");
  CHECK(refused("") == " expected questions, got none");
}
