// The built program: its verbs, what they print, and the exit codes of a wrong command line.
#include <nlohmann/json.hpp>

#include "e2e/program.h"
#include "support/testing.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

Outcome zebra(const std::vector<std::string>& arguments) {
  const TempFolder folder;
  return run_zebra(arguments, folder.path());
}

}  // namespace

TEST_CASE("program: --version and --help go to stdout and are no errors") {
  const auto version = zebra({"--version"});
  CHECK(version.exit_code == 0);
  CHECK(version.out.starts_with("zebra "));
  CHECK(version.err.empty());
  const auto help = zebra({"--help"});
  CHECK(help.exit_code == 0);
  for (const char* verb : {"run", "validate", "recipes", "inspect", "convert", "logits", "generate",
                           "eval", "data", "chat", "bench"}) {
    INFO(verb);
    CHECK_THAT(help.out, ContainsSubstring(std::string("\n  ") + verb));
    const auto own = zebra({verb, "--help"});
    CHECK(own.exit_code == 0);
    CHECK_THAT(own.out, ContainsSubstring("Example:\n  zebra "));
  }
}

TEST_CASE("program: a command line that cannot be understood is refused in one line") {
  check_refused(zebra({}), "A subcommand is required");
  check_refused(zebra({"rnu", "x.yaml"}), "unknown verb 'rnu'; did you mean 'run'?");
  check_refused(zebra({"data", "prepair"}), "unknown verb 'prepair'; did you mean 'prepare'?");
  check_refused(zebra({"data", "xyz"}), "unknown verb 'xyz' (see zebra data --help)");
  check_refused(zebra({"run"}), "recipe is required");
  check_refused(zebra({"run", "x.yaml", "--frehs"}), "--frehs");
  check_refused(zebra({"run", "x.yaml", "--threads", "-1"}), "--threads");
  check_refused(zebra({"eval", "m", "--bos", "somewhere"}), "--bos");
  check_refused(zebra({"generate", "m", "--prompt", "x", "--top-p", "1.5"}), "--top-p");
  check_refused(zebra({"convert", "a", "b", "--shard-size", "5XB"}), "--shard-size");
  check_refused(zebra({"eval", "m"}),
                "expected --tasks, --data, --choices or --pairs, got none of them");
  check_refused(zebra({"eval", "m", "--choices", "c", "--teacher", "t"}),
                "--teacher: needs --data");
}

TEST_CASE("program: a number or name that a flag cannot take is told with what it can take") {
  check_refused(zebra({"eval", "m", "--tasks", "piqa", "--limit", "-1"}),
                "--limit: expected a whole number of at least 0, got -1 (see");
  check_refused(zebra({"eval", "m", "--data", "d", "--batch-size", "0"}),
                "--batch-size: expected a whole number of at least 1, got 0 (see");
  check_refused(zebra({"bench", "generate", "--batches", "1,a"}),
                "--batches: expected a whole number of at least 1, got a (see");
  const auto refused = [](const char* flag, const char* value, const std::string& what) {
    check_refused(zebra({"generate", "m", "--prompt", "x", flag, value}),
                  std::string(flag) + ": expected " + what + ", got " + value + " (see");
  };
  refused("--max-new-tokens", "1.5", "a whole number of at least 0");
  refused("--temperature", "-1", "a number of at least 0");
  refused("--temperature", "inf", "a number of at least 0");
  refused("--temperature", "1e", "a number of at least 0");
  refused("--repetition-penalty", "0", "a number above 0");
  refused("--top-p", "0", "a number above 0, at most 1");
  refused("--min-p", "2", "a number from 0 to 1");
  refused("--cache-dtype", "int4", "one of model, fp32, bf16, int8");
  refused("--cache-dtype", "3", "one of model, fp32, bf16, int8");
  refused("--state-dtype", "int8", "one of fp32, bf16");
  refused("--seed", "-1", "a whole number of at least 0");
  refused("--seed", "99999999999999999999", "a whole number of at most 18446744073709551615");
}

TEST_CASE("program: eval refuses flags that what it measures does not have") {
  for (const char* flag : {"--limit", "--fewshot", "--nproc", "--seed", "--max-length"}) {
    check_refused(zebra({"eval", "m", "--data", "d", flag, "2"}), flag + std::string(": needs"));
  }
  check_refused(zebra({"eval", "m", "--data", "d", "--samples"}), "--samples: needs --tasks");
  check_refused(zebra({"eval", "m", "--choices", "c", "--eos"}), "--eos: needs --data");
  check_refused(zebra({"eval", "m", "--choices", "c", "--chat-template", "chatml"}),
                "--chat-template: needs --data");
  check_refused(zebra({"eval", "m", "--pairs", "p", "--max-sequences", "3"}),
                "--max-sequences: needs --data");
  const auto beside_tasks = [](const char* flag, const char* value) {
    check_refused(zebra({"eval", "m", "--tasks", "piqa", flag, value}),
                  std::string("--tasks: expected no ") + flag + " beside it");
  };
  beside_tasks("--chat-template", "nonesuch");
  beside_tasks("--format", "messages");
  beside_tasks("--max-sequences", "3");
  beside_tasks("--pairs", "p");
  beside_tasks("--teacher", "t");
}

TEST_CASE("program: files and folders that are not there are named") {
  check_refused(zebra({"run", "nowhere.yaml"}), "nowhere.yaml");
  check_refused(zebra({"validate", "nowhere.yaml"}), "nowhere.yaml");
  check_refused(zebra({"inspect", "nowhere"}), "nowhere");
  check_refused(zebra({"generate", "nowhere", "--prompt", "x"}), "nowhere");
  check_refused(zebra({"logits", "nowhere", "--input", "ids", "--output", "o"}), "ids");
  check_refused(zebra({"convert", "nowhere", "there"}), "nowhere");
  check_refused(
      zebra({"data", "tokenizer", "--input", "no.txt", "--vocab", "300", "--output", "t"}),
      "no.txt");
}

TEST_CASE("program: devices and dtypes that do not exist are refused") {
  check_refused(zebra({"logits", "m", "--input", "i", "--output", "o", "--dtype", "fp8"}),
                "dtype: expected fp32, bf16, fp16 or fp64, got fp8");
  check_refused(zebra({"logits", "m", "--input", "i", "--output", "o", "--device", "gpu"}),
                "device: expected cpu, cuda or cuda:N, got gpu");
}

TEST_CASE("program: validate accepts a good recipe and tells all mistakes of a bad one") {
  const auto good = zebra({"validate", source_path("recipes/stories260k.yaml").string()});
  CHECK(good.exit_code == 0);
  CHECK_THAT(good.out, ContainsSubstring("stories260k.yaml: ok"));

  const TempFolder folder;
  write_text(folder.path() / "bad.yaml",
             "name: x\noutput: y\nbase: {model: m}\nhybrid: {mla_layer: [1]}\n");
  const auto bad = run_zebra({"validate", "bad.yaml", "--set", "device=tpu"}, folder.path());
  CHECK(bad.exit_code == 2);
  CHECK(bad.out.empty());
  CHECK(bad.err ==
        "zebra: error: --set device: expected cpu, cuda or cuda:N, got tpu\n"
        "zebra: error: bad.yaml:1: data: the key is missing\n"
        "zebra: error: bad.yaml:4: hybrid.mla_layer: unknown key 'mla_layer'; did you mean "
        "'mla_layers'?\n"
        "zebra: error: bad.yaml:4: hybrid.mla_layers: the key is missing\n");
}

TEST_CASE("program: --set may come before the recipe, and more than once") {
  const auto recipe = source_path("recipes/stories260k.yaml").string();
  CHECK(zebra({"validate", "--set", "seed=1", "--set", "threads=2", recipe}).exit_code == 0);
  CHECK(zebra({"validate", "--set", "hybrid.mla_layers=[1, 3]", recipe}).exit_code == 0);
  check_refused(zebra({"validate", recipe, "--set", "seed"}),
                "--set seed: expected key.path=value");
}

TEST_CASE("program: run refuses stages that do not exist") {
  const auto recipe = source_path("recipes/stories260k.yaml").string();
  check_refused(zebra({"run", recipe, "--only", "init,idl"}), "did you mean ild?");
  check_refused(zebra({"run", recipe, "--from", "distil"}), "did you mean distill?");
}

TEST_CASE("program: recipes are listed, shown and copied") {
  const auto all = zebra({"recipes", "list"});
  CHECK(all.exit_code == 0);
  CHECK_THAT(all.out, ContainsSubstring("tiny/quickstart "));
  CHECK_THAT(all.out, ContainsSubstring("Zebra-Llama 1B: 4 MLA and 12 Mamba2"));
  const auto text = read_text(source_path("recipes/tiny/quickstart.yaml"));
  CHECK(zebra({"recipes", "show", "tiny/quickstart"}).out == text);

  const TempFolder folder;
  const std::vector<std::string> copy = {"recipes", "copy", "tiny/quickstart.yaml", "mine.yaml"};
  CHECK(run_zebra(copy, folder.path()).out == "mine.yaml\n");
  CHECK(read_text(folder.path() / "mine.yaml") == text);
  check_refused(run_zebra(copy, folder.path()), "mine.yaml: exists already");
  check_refused(zebra({"recipes", "show", "tiny/quickstrat"}), "did you mean 'tiny/quickstart'?");
  check_refused(zebra({"recipes", "--recipes", "nowhere", "list"}), "nowhere");
}

TEST_CASE("program: the schema and the table of keys are printed") {
  const auto schema = zebra({"recipes", "schema"});
  CHECK(nlohmann::json::parse(schema.out).at("properties").contains("stages"));
  CHECK_THAT(zebra({"recipes", "keys"}).out, ContainsSubstring("| `stages.ild.tokens` | number |"));
}

TEST_CASE("program: generated stories are the same for the same seed") {
  const TempFolder folder;
  const auto make = [&](const char* name, const char* seed) {
    const auto outcome =
        run_zebra({"data", "stories", "--out", name, "--seed", seed, "--stories", "20",
                   "--held-out", "5", "--questions", "4", "--pairs", "4", "--held-out-pairs", "2"},
                  folder.path());
    INFO(outcome.err);
    CHECK(outcome.exit_code == 0);
    return read_text(folder.path() / name / "train.txt");
  };
  const auto first = make("a", "1");
  CHECK(!first.empty());
  CHECK(make("b", "1") == first);
  CHECK(make("c", "2") != first);
}

TEST_CASE("program: results that cannot be written are the user's disk") {
  const TempFolder folder;
  const char* given = std::getenv("ZEBRA_BIN");
  const std::string program = given != nullptr ? given : ZEBRA_BINARY;
  const int status = ::system(
      ("cd " + folder.path().string() + " && " + program + " recipes schema > /dev/full 2> err")
          .c_str());
  CHECK(WEXITSTATUS(status) == 2);
  CHECK_THAT(read_text(folder.path() / "err"), ContainsSubstring("stdout: cannot be written"));
}

}  // namespace zebra::testing
