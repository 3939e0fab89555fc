// The built program on models whose tokenizer is a tokenizer.json, and its verbs for tokenizers.
#include <nlohmann/json.hpp>

#include "cli/small_model.h"
#include "e2e/program.h"
#include "support/testing.h"
#include "support/tokenizer_files.h"
#include "zebra/convert.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

// A Llama with random weights and a tokenizer.json, some text, and conversations; made once.
const fs::path& workshop() {
  static const TempFolder folder;
  static const bool made = [] {
    const auto& at = folder.path();
    fs::create_directories(at / "tokenizer");
    write_text(at / "tokenizer/tokenizer.json", small_tokenizer_json().dump());
    write_text(at / "tokenizer/tokenizer_config.json", small_tokenizer_config().dump());
    std::string text;
    for (int i = 0; i < 60; ++i)
      text += "hello and the other word number " + std::to_string(i) + "\n\n";
    write_text(at / "text.txt", text);
    auto options = small_llama(kSmallVocabulary);
    options.bos_token_id = kSmallBos;
    options.eos_token_ids = {kSmallEot};
    torch::manual_seed(1);
    save_model(at / "llama", CausalLm(options), {.tokenizer_from = at / "tokenizer"});
    return true;
  }();
  REQUIRE(made);
  return folder.path();
}

Outcome zebra(const std::vector<std::string>& arguments) {
  return run_zebra(arguments, workshop());
}

}  // namespace

TEST_CASE("tokenizer.json: a model with one generates and is measured") {
  const auto text = require_success(
      zebra({"generate", "llama", "--prompt", "hello and", "--max-new-tokens", "4"}));
  CHECK(text.starts_with("hello and"));
  const auto json = nlohmann::json::parse(
      require_success(zebra({"eval", "llama", "--data", "text.txt", "--json"})));
  CHECK(!json.empty());
}

TEST_CASE("tokenizer.json: a recipe runs with one, and its models keep the files") {
  write_text(workshop() / "recipe.yaml",
             small_recipe("out", "text.txt", "text.txt",
                          "stages: {}\neval: {max_sequences: 2, speed: false}\n"));
  require_success(zebra({"run", "recipe.yaml"}));
  const auto model = workshop() / "out/stages/compose";
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    CHECK(read_text(model / name) == read_text(workshop() / "tokenizer" / name));
  }
}

TEST_CASE("check-tokenizer: texts with equal ids are counted, the first other id is told") {
  const std::string separator = "\n__ggml_vocab_test__\n";
  write_text(workshop() / "t.inp", "hello" + separator + separator + "\n\nthe" + separator +
                                       "a\xFF" + separator + "<|eot_id|>");
  const std::string bad = " 195 145 160 195 145 189";
  const auto check = [&](const std::string& expected) {
    write_text(workshop() / "t.out", expected);
    return zebra(
        {"data", "check-tokenizer", "tokenizer", "--inputs", "t.inp", "--expected", "t.out"});
  };
  const std::string good = " 259\n\n10 10 265\n97 239 191 189\n272\n";
  CHECK(require_success(check(good)) == "5 texts: the same ids\n");
  check_refused(check(" 259\n\n10 10 264\n97 239 191 189\n272\n"),
                "t.inp: text 3 of 5, \"\\n\\nthe\": id 3: expected 264 ");
  check_refused(check(" 259 7\n\n10 10 265\n97 239 191 189\n272\n"),
                "text 1 of 5, \"hello\": id 2: expected 7 (\"\u0107\"), got no more");
  check_refused(check(" 259\n\n10 10 265\n97 239 191 189 9999\n272\n"),
                "expected 9999 (not in the vocabulary), got no more");
  check_refused(check(" 259\n\n10 1x 265\n97 239 191 189\n272\n"),
                "t.out:3: expected ids with spaces between them, got '1x 265'");
  check_refused(check("259\n"), "t.out: expected a line for each of the 5 texts of t.inp, got 1");
  check_refused(
      zebra({"data", "check-tokenizer", "nowhere", "--inputs", "t.inp", "--expected", "t"}),
      "nowhere");
}

TEST_CASE("check-tokenizer: a separator is a line, and what is empty or on two lines is told") {
  fs::create_directories(workshop() / "lines");
  auto file = small_tokenizer_json();
  file["added_tokens"].push_back(
      {{"id", kSmallVocabulary}, {"content", "x\ny"}, {"special", true}});
  write_text(workshop() / "lines/tokenizer.json", file.dump());
  const auto check = [&](const std::string& inputs, const std::string& expected) {
    write_text(workshop() / "l.inp", inputs);
    write_text(workshop() / "l.out", expected);
    return zebra({"data", "check-tokenizer", "lines", "--inputs", "l.inp", "--expected", "l.out"});
  };
  const std::string separator = "__ggml_vocab_test__";
  CHECK(require_success(check(separator + "\nhello\n" + separator, "\n259\n")) ==
        "2 texts: the same ids\n");
  check_refused(check("", ""), "l.inp: expected texts, got none");
  check_refused(check("hello", "273\n"), "id 1: expected 273 (\"x\\ny\"), got 259 (\"hello\")");
}

TEST_CASE("data show: tokens as text, those of a pair among them") {
  write_text(workshop() / "show.yaml", small_recipe("show-out", "show.txt", "show.txt",
                                                    "stages:\n  dpo: {train: [show.jsonl]}\n"));
  std::string text;
  for (int i = 0; i < 60; ++i) text += "\u041F\u0440 and the\n\n";
  write_text(workshop() / "show.txt", text);
  write_text(workshop() / "show.jsonl",
             R"({"prompt": "hello", "chosen": " and", "rejected": " the"})");
  const auto shown = require_success(zebra({"data", "show", "show.yaml", "-n", "1"}));
  CHECK_THAT(shown, ContainsSubstring("\u041F||\u0440| |and| the|<|eot_id|>"));
  CHECK_THAT(shown, ContainsSubstring("show.jsonl, pair 1, prompt: 2 tokens, 0 with a loss\n"
                                      "\u27e8<|begin_of_text|>|hello\u27e9\n"));
  CHECK_THAT(shown, ContainsSubstring("show.jsonl, pair 1, chosen: 3 tokens, 3 with a loss\n"
                                      " |and|<|eot_id|>\n"));
  const auto json = nlohmann::json::parse(
      require_success(zebra({"data", "show", "show.yaml", "-n", "1", "--json"})));
  REQUIRE(json["pairs"].size() == 3);
  CHECK(json["pairs"][2]["part"] == "rejected");
}

TEST_CASE("bench tokenizer: speed and tokens are told, as text and as JSON") {
  const auto json = nlohmann::json::parse(require_success(zebra(
      {"bench", "tokenizer", "tokenizer", "--text", "text.txt", "--seconds", "0", "--json"})));
  CHECK(json["vocab_size"] == kSmallVocabulary);
  CHECK(json["bytes"] == read_text(workshop() / "text.txt").size());
  CHECK(json["tokens"].get<int64_t>() > 0);
  CHECK(json["megabytes_per_second"].get<double>() > 0);
  CHECK_THAT(require_success(zebra(
                 {"bench", "tokenizer", "tokenizer", "--text", "text.txt", "--seconds", "0"})),
             ContainsSubstring("MB/s"));
}

TEST_CASE("bench tokenizer: a peer that is not there is told, and what it cannot read") {
  const auto bench = [](const std::vector<std::string>& more) {
    std::vector<std::string> arguments = {"bench", "tokenizer", "tokenizer", "--seconds", "0"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return zebra(arguments);
  };
  write_text(workshop() / "python", "#!/bin/sh\nexit 3\n");
  fs::permissions(workshop() / "python", fs::perms::owner_all);
  check_refused(bench({"--text", "text.txt", "--peer", "--python", "./python"}),
                "tokenizers is not installed for ./python: pip install tokenizers");
  check_refused(bench({"--text", "nowhere.txt"}), "nowhere.txt");
  write_text(workshop() / "empty.txt", "");
  check_refused(bench({"--text", "empty.txt"}), "expected text, got empty files");
  write_text(workshop() / "t.model", "YQ== 0\n");
  check_refused(zebra({"bench", "tokenizer", "t.model", "--text", "text.txt", "--peer"}),
                "--peer: expected a tokenizer.json, which the peer reads, got t.model");
}

}  // namespace zebra::testing
