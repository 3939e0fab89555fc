// zebra data prepare, data show and bench packing as a user runs them.
#include <signal.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "e2e/program.h"
#include "support/testing.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

std::string recipe(const std::string& data) {
  return "name: small\noutput: run\nnew_model: {tokenizer: " +
         source_path("data/tiny/tokenizer.model").string() +
         "}\nstages: {pretrain: {}}\ndata:\n  sequence_length: 64\n" + data;
}

// A chat a line; line 3 of `bad` is none.
std::string chats(int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    text += R"({"messages": [{"role": "user", "content": "Who lost the ball?"}, )"
            R"({"role": "assistant", "content": "Tom number )" +
            std::to_string(i) + "\"}]}\n";
  }
  return text;
}

const std::string kChats =
    "  chat_template: plain\n  loss_on: assistant\n  packing: best_fit\n"
    "  train: [{path: chats.jsonl, format: messages}]\n  validation_split: 0.2\n";

class Workshop {
 public:
  explicit Workshop(const std::string& data) { write("r.yaml", recipe(data)); }
  void write(const std::string& name, const std::string& text) {
    write_text(folder_.path() / name, text);
  }
  Outcome zebra(std::vector<std::string> arguments,
                const std::optional<Interruption>& interruption = std::nullopt) {
    return run_zebra(arguments, folder_.path(), interruption);
  }
  nlohmann::json json(std::vector<std::string> arguments) {
    arguments.emplace_back("--json");
    const auto outcome = zebra(arguments);
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return nlohmann::json::parse(outcome.out);
  }
  fs::path path(const std::string& name) const { return folder_.path() / name; }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("data prepare: text is made into tokens once, and a change is refused") {
  Workshop at(kChats);
  at.write("chats.jsonl", chats(50));
  const auto first = at.json({"data", "prepare", "r.yaml"});
  REQUIRE(first["sources"].size() == 2);
  CHECK(first["sources"][0]["role"] == "train");
  CHECK(first["sources"][1]["role"] == "validation");
  const auto documents = [&](size_t i) { return first["sources"][i]["documents"].get<int64_t>(); };
  CHECK(documents(0) + documents(1) == 50);
  CHECK(documents(1) > 0);
  CHECK(first["sources"][0]["seconds"] > 0);
  CHECK(at.json({"data", "prepare", "r.yaml"})["sources"][0]["seconds"] == 0);
  const auto again = at.zebra({"data", "prepare", "r.yaml"});
  CHECK_THAT(again.out, ContainsSubstring("(all there)"));

  at.write("chats.jsonl", chats(51));
  const auto changed = at.zebra({"data", "prepare", "r.yaml"});
  CHECK(changed.exit_code == 2);
  CHECK_THAT(changed.err, ContainsSubstring("from another text"));
  CHECK(at.zebra({"run", "r.yaml"}).exit_code == 2);
  CHECK(at.json({"data", "prepare", "r.yaml", "--fresh"})["sources"][0]["seconds"] > 0);
}

TEST_CASE("data prepare: a bad line is refused by its number and leaves nothing, or is counted") {
  Workshop at(kChats);
  at.write("chats.jsonl", chats(2) + "{\"messages\": 3}\n" + chats(9));
  const auto refused = at.zebra({"data", "prepare", "r.yaml"});
  CHECK(refused.exit_code == 2);
  CHECK(refused.err.find("zebra: error: chats.jsonl:3: messages: expected a list of messages, got 3"
                         "\n") != std::string::npos);
  for (const auto& entry : fs::directory_iterator(at.path("run/data"))) {
    CHECK(entry.path().extension() == ".lock");
  }
  const auto counted = at.json({"data", "prepare", "r.yaml", "--set", "data.bad_lines=count"});
  CHECK(counted["sources"][0]["bad_lines"] == 1);
}

TEST_CASE("data prepare: lists of messages without a template are refused with the reason") {
  Workshop at(
      "  train: [{path: turns.jsonl, format: prompt_completion}]\n"
      "  validation: [{path: turns.jsonl, format: prompt_completion}]\n");
  at.write("turns.jsonl", R"({"prompt": [{"role": "user", "content": "a"}], )"
                          R"("completion": [{"role": "assistant", "content": "b"}]})");
  const auto refused = at.zebra({"data", "prepare", "r.yaml"});
  CHECK_THAT(refused.err, ContainsSubstring("turns.jsonl:1: messages need a chat template: "));
  check_refused(refused, "expected a chat template (chat_template.jinja");
}

TEST_CASE("run: text is prepared before the first step, and its answers alone are learnt") {
  Workshop at(kChats);
  at.write("chats.jsonl", chats(60));
  at.write("r.yaml", recipe(kChats) +
                         "eval: {max_sequences: 2, speed: false}\n"
                         "seed: 1\n");
  const std::vector<std::string> run = {
      "run",
      "r.yaml",
      "--set",
      "new_model.hidden_size=32",
      "--set",
      "new_model.num_layers=1",
      "--set",
      "stages.pretrain={tokens: 20000, batch_size: 8, micro_batch_size: 4, "
      "optimizer: {learning_rate: 1.0e-2}}"};
  const auto done = at.zebra(run);
  INFO(done.err);
  REQUIRE(done.exit_code == 0);
  std::istringstream lines(read_text(at.path("run/metrics.jsonl")));
  std::vector<double> losses;
  for (std::string line; std::getline(lines, line);) {
    losses.push_back(nlohmann::json::parse(line).at("loss").get<double>());
  }
  REQUIRE(losses.size() > 20);
  CHECK(losses.back() < losses.front() / 3);
  CHECK(at.json({"data", "prepare", "r.yaml"})["sources"][0]["seconds"] == 0);
  CHECK(at.zebra(run).exit_code == 0);
}

TEST_CASE("data show: documents with tokens and loss, and how they are packed") {
  Workshop at(kChats);
  at.write("chats.jsonl", chats(50));
  const auto shown = at.json({"data", "show", "r.yaml", "-n", "2"});
  REQUIRE(shown["documents"].size() == 2);
  std::string with_loss, without;
  const auto& document = shown["documents"][0];
  for (size_t i = 0; i < document["pieces"].size(); ++i) {
    (document["loss"][i] == 1 ? with_loss : without) += document["pieces"][i].get<std::string>();
  }
  CHECK_THAT(with_loss, ContainsSubstring("Tom"));
  CHECK(with_loss.ends_with("</s>"));
  CHECK_THAT(without, ContainsSubstring("lost"));
  CHECK(without.starts_with("<s>"));
  CHECK(shown["packing"]["efficiency"] > 0.5);
  CHECK(shown["packing"]["truncated"] == 0);
  CHECK_FALSE(fs::exists(at.path("run")));  // showing makes nothing

  const auto plain = at.zebra({"data", "show", "r.yaml", "-n", "1"});
  CHECK(plain.out.find('\x1b') == std::string::npos);
  CHECK_THAT(plain.out, ContainsSubstring("chats.jsonl, document 1: "));
  CHECK_THAT(plain.out, ContainsSubstring("\u27e8<s>|"));
  CHECK_THAT(plain.out, ContainsSubstring("% full"));
  const auto colored = at.zebra({"data", "show", "r.yaml", "-n", "1", "--color", "always"});
  CHECK(colored.out.find("\x1b[32m") != std::string::npos);
}

TEST_CASE("data show: packed sequences with segments, positions, padding and loss") {
  Workshop at(kChats);
  at.write("chats.jsonl", chats(50));
  const auto shown = at.json({"data", "show", "r.yaml", "-n", "0", "--packed", "3"});
  CHECK(shown["documents"].empty());
  REQUIRE(shown["packed"].size() == 3);
  int64_t boundaries = 0, padding = 0;
  for (const auto& row : shown["packed"]) {
    CHECK(row["stage"] == "pretrain");
    REQUIRE(row["ids"].size() == 64);
    for (size_t t = 0; t < 64; ++t) {
      const bool starts = t == 0 || row["segments"][t] != row["segments"][t - 1];
      CHECK(row["positions"][t] == (starts ? 0 : row["positions"][t - 1].get<int64_t>() + 1));
      boundaries += starts && row["segments"][t] > 0 ? 1 : 0;
      if (row["segments"][t] >= 0) continue;
      CHECK(row["loss"][t] == 0);
      ++padding;
    }
    CHECK(row["loss"][0] == 0);  // an answer's tokens are not behind BOS
  }
  CHECK(boundaries > 0);
  CHECK(padding > 0);

  const auto plain = at.zebra({"data", "show", "r.yaml", "-n", "0", "--packed", "1"});
  CHECK_THAT(plain.out, ContainsSubstring("pretrain, sequence 1: 64 places, "));
  CHECK_THAT(plain.out, ContainsSubstring("-- 0 to "));
  CHECK_THAT(plain.out, ContainsSubstring(": segment 1, positions 0 to "));
  CHECK_THAT(plain.out, ContainsSubstring(" to 63: padding\n"));
  CHECK_THAT(plain.out, ContainsSubstring("  truncated  0, 0 tokens lost\n"));
  CHECK_THAT(plain.out, ContainsSubstring("  dropped    0 tokens\n"));
  CHECK_THAT(at.zebra({"data", "show", "r.yaml"}).out, !ContainsSubstring("-- 0 to "));
}

TEST_CASE("data show: a mixture's shares") {
  Workshop at(
      "  packing: best_fit\n  train:\n"
      "    - {path: a.txt, format: stories, weight: 3}\n"
      "    - {path: b.txt, format: stories, weight: 1}\n"
      "  validation: [{path: a.txt, format: stories}]\n");
  const auto stories = [](const std::string& word, int64_t count) {
    std::string text;
    for (int64_t i = 0; i < count; ++i) text += word + " was a dog and had a ball.\n\n";
    return text;
  };
  at.write("a.txt", stories("Tim", 300));
  at.write("b.txt", stories("Mia", 300));
  const auto shown = at.json({"data", "show", "r.yaml"});
  REQUIRE(shown["mixture"].size() == 2);
  CHECK(shown["mixture"][0]["share"].get<double>() == Approx(0.75).margin(0.02));
  CHECK(shown["mixture"][0]["epochs"].get<double>() == Approx(1));
  CHECK_THAT(at.zebra({"data", "show", "r.yaml"}).out, ContainsSubstring("mixture by tokens"));
}

TEST_CASE("data prepare: killed or stopped in the middle, it ends in the same bytes", "[slow]") {
  Workshop at(
      "  train: [{path: text.jsonl, format: jsonl}]\n"
      "  validation: [{path: valid.jsonl, format: jsonl}]\n");
  at.write("valid.jsonl", "{\"text\": \"A story of which there is one.\"}\n");
  std::string text;
  for (int64_t i = 0; i < 120000; ++i) {
    text += "{\"text\": \"" + std::to_string(i) +
            " Once upon a time there was a little girl named Nina. She had a gold ring, and it "
            "could fit on one finger. One morning Nina went to the park with her mom. Then a "
            "playful puppy came, and the ring was gone! Nina looked under the bench. There it was, "
            "because the puppy had hidden it there, and she was very happy.\"}\n";
  }
  at.write("text.jsonl", text);
  int stops = 0;
  for (double seconds = 0.4; stops < 40; seconds += 0.4) {
    const auto signal = stops % 2 == 0 ? SIGKILL : SIGTERM;
    const auto outcome = at.zebra({"data", "prepare", "r.yaml", "--set", "data.cache=stopped"},
                                  Interruption{seconds, signal});
    INFO(outcome.err);
    if (outcome.exit_code == 0) break;
    CHECK((outcome.exit_code == 75 || outcome.exit_code == -1));
    ++stops;
  }
  CHECK(stops > 0);
  at.json({"data", "prepare", "r.yaml", "--set", "data.cache=whole"});
  int shards = 0;
  for (const auto& entry : fs::recursive_directory_iterator(at.path("whole"))) {
    if (entry.path().extension() != ".tokens") continue;
    const auto other = at.path("stopped") / fs::relative(entry.path(), at.path("whole"));
    CHECK((read_text(entry.path()) == read_text(other)));
    ++shards;
  }
  CHECK(shards >= 3);
}

TEST_CASE("bench packing: figures of every way to pack") {
  Workshop at("");
  const auto tokenizer = source_path("data/tiny/tokenizer.model").string();
  const auto figures = at.json({"bench", "packing", "--megabytes", "1", "--sequence-length", "512",
                                "--tokenizer", tokenizer});
  CHECK(figures["prepare"]["megabytes_per_second"] > 0);
  REQUIRE(figures["packing"].size() == 7);
  CHECK(figures["packing"][0]["efficiency"] == 1.0);
  CHECK(figures["packing"][4]["efficiency"] > figures["packing"][1]["efficiency"]);
  CHECK_FALSE(fs::exists(at.path("bench-packing")));
}

TEST_CASE("bench packing: text that is refused leaves no folder") {
  Workshop at("");
  at.write("bad.jsonl", "{}\n");
  const auto refused = [&](const std::string& text) {
    const auto tokenizer = source_path("data/tiny/tokenizer.model").string();
    return at.zebra({"bench", "packing", "--text", text, "--tokenizer", tokenizer});
  };
  check_refused(refused("bad.jsonl"), "bad.jsonl:1: text: expected a value, got none");
  CHECK_FALSE(fs::exists(at.path("bench-packing")));
  check_refused(refused("none.jsonl"), "--text: expected a file, got none.jsonl");
}

}  // namespace zebra::testing
