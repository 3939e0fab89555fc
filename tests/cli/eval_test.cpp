// zebra eval: what it measures, prints and writes, and what it refuses.
#include <csignal>
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "cli/workshop.h"

namespace zebra::testing {

namespace fs = std::filesystem;

TEST_CASE("program: eval prints what it measures, and writes it as JSON") {
  const auto table = require_success(
      zebra({"eval", "llama", "--data", "text/valid.txt", "--format", "stories",
             "--sequence-length", "64", "--teacher", "llama", "--choices", "text/choices.jsonl",
             "--pairs", "text/pairs-valid.jsonl", "--output", "scores.json"}));
  for (const char* name : {"text.nats_per_token", "text.bits_per_byte", "text.kl_per_token",
                           "text.top1_agreement", "choices.accuracy", "pairs.accuracy"}) {
    CHECK_THAT(table, ContainsSubstring(name));
  }
  const auto json = read_json(workshop() / "scores.json");
  CHECK(json.at("text").at("top1_agreement") == 1.0);
  CHECK(json.at("text").at("kl_per_token").get<double>() == Approx(0).margin(1e-6));
  CHECK(json.at("choices").at("questions") == 6);
  CHECK(json.at("pairs").at("pairs") == 4);
  check_refused(zebra({"eval", "llama", "--data", "none.txt", "--output", "text"}),
                "text: expected a file to write, got a folder");
  check_refused(zebra({"eval", "llama", "--data", "none.txt", "--output", "none/scores.json"}),
                "none/scores.json");
}

TEST_CASE("program: eval runs harness tasks, with results, samples and a table") {
  write_text(workshop() / "rows/piqa/validation.jsonl",
             "{\"goal\":\"Open it\",\"sol1\":\"Push\",\"sol2\":\"Eat\",\"label\":0}\n"
             "{\"goal\":\"Shut it\",\"sol1\":\"Burn\",\"sol2\":\"Pull\",\"label\":1}\n");
  write_text(workshop() / "own.yaml",
             "task: own\ntest_split: test\noutput_type: multiple_choice\n"
             "dataset_kwargs: {data_files: {test: rows/piqa/validation.jsonl}}\n"
             "doc_to_text: goal\ndoc_to_choice: '{{[sol1, sol2]}}'\ndoc_to_target: label\n");
  const auto table =
      require_success(zebra({"eval", "llama", "--tasks", "piqa,own.yaml", "--data", "rows",
                             "--limit", "1", "--output", "tasks.json", "--samples"}));
  for (const char* word : {"piqa", "own", "acc_norm", "n-shot"}) {
    CHECK_THAT(table, ContainsSubstring(word));
  }
  const auto json = read_json(workshop() / "tasks.json");
  CHECK(json.at("results").at("piqa").contains("acc,none"));
  CHECK(json.at("results").at("piqa").at("acc_norm_stderr,none") == "N/A");
  CHECK(json.at("n-samples").at("piqa") == nlohmann::json{{"original", 2}, {"effective", 1}});
  CHECK(json.at("versions").at("piqa") == 1.0);
  CHECK(json.at("config").at("limit") == 1);
  CHECK(json.at("max_length") == 128);
  CHECK(json.at("model_name") == "llama");
  CHECK(json.at("zebra_version").get<std::string>() != "");
  CHECK(json.at("date").get<double>() > 1.7e9);
  CHECK(std::stod(json.at("total_evaluation_time_seconds").get<std::string>()) > 0);
  CHECK(json.at("tokenizer_eos_token") == nlohmann::json{"</s>", "2"});
  CHECK(json.at("task_hashes").at("own").get<std::string>().size() == 64);
  const auto& own = json.at("configs").at("own");
  CHECK(own.at("output_type") == "multiple_choice");
  CHECK(own.at("doc_to_choice") == "{{[sol1, sol2]}}");
  CHECK(own.at("num_fewshot") == 0);
  const auto sample = read_json(workshop() / "tasks_samples/samples_own.jsonl");
  CHECK(sample.at("arguments").at("gen_args_1").at("arg_1") == " Eat");
  CHECK(sample.at("doc_hash").get<std::string>().size() == 64);

  // The next run with this output leaves none of the samples that are not its own.
  const auto piqa = workshop() / "tasks_samples/samples_piqa.jsonl";
  CHECK(fs::exists(piqa));
  write_text(workshop() / "tasks_samples/notes.txt", "mine");
  std::vector<std::string> again = {"eval",   "llama", "--tasks",  "own.yaml",
                                    "--data", "rows",  "--output", "tasks.json"};
  again.emplace_back("--samples");
  require_success(zebra(again));
  CHECK_FALSE(fs::exists(piqa));
  CHECK(fs::exists(workshop() / "tasks_samples/samples_own.jsonl"));
  again.pop_back();
  require_success(zebra(again));
  CHECK_FALSE(fs::exists(workshop() / "tasks_samples/samples_own.jsonl"));
  CHECK(fs::exists(workshop() / "tasks_samples/notes.txt"));
}

TEST_CASE("program: ranks share out the documents of a task and find the same scores") {
  std::string rows;
  for (int i = 0; i < 7; ++i) {
    rows += R"({"goal":"Thing )" + std::to_string(i * 37) +
            R"(","sol1":"Push it","sol2":"Pull it up","label":)" + std::to_string(i % 2) + "}\n";
  }
  write_text(workshop() / "shared/piqa/validation.jsonl", rows);
  const auto scores = [](std::vector<std::string> more, const std::string& file) {
    std::vector<std::string> arguments = {"eval",   "llama",  "--tasks",  "piqa",
                                          "--data", "shared", "--output", file};
    arguments.insert(arguments.end(), more.begin(), more.end());
    require_success(zebra(arguments));
    return read_json(workshop() / file).at("results");
  };
  const auto alone = scores({}, "alone.json");
  CHECK(scores({"--nproc", "2"}, "two.json") == alone);
  const auto chat = scores({"--apply-chat-template", "chatml"}, "chat.json");
  CHECK(chat.at("piqa").at("sample_len") == alone.at("piqa").at("sample_len"));
  CHECK(read_json(workshop() / "chat.json").at("apply_chat_template") == true);
  check_refused(zebra({"eval", "llama", "--tasks", "piqa", "--data", "shared",
                       "--apply-chat-template", "chatlm"}),
                "chatml");
  check_refused(
      zebra({"eval", "llama", "--tasks", "piqa", "--data", "shared", "--fewshot-as-multiturn"}),
      "--fewshot-as-multiturn: needs --apply-chat-template");
}

TEST_CASE("program: eval refuses tasks and rows that are not there, and writes nothing") {
  fs::create_directories(workshop() / "empty");
  const auto refused = [](std::vector<std::string> more, const std::string& what) {
    std::vector<std::string> arguments = {"eval", "llama", "--output", "none.json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    check_refused(zebra(arguments), what);
    CHECK_FALSE(fs::exists(workshop() / "none.json"));
  };
  refused({"--tasks", "piqua", "--data", "empty"}, "unknown task 'piqua'; did you mean 'piqa'?");
  refused({"--tasks", "piqa", "--data", "empty"}, "piqa/validation.jsonl, which is no file");
  refused({"--tasks", "piqa", "--data", "text/valid.txt"},
          "--data: with --tasks expected one folder of TASK/SPLIT.jsonl, got text/valid.txt");
  refused({"--tasks", "piqa", "--data", "empty", "--choices", "text/choices.jsonl"},
          "--tasks: expected no --choices beside it");
  refused({"--tasks", "piqa", "--data", "empty", "--max-length", "500"},
          "--max-length: expected at most the model's 128 positions, got 500");
  check_refused(zebra({"eval", "llama", "--tasks", "piqa", "--data", "empty", "--samples"}),
                "--samples: needs --output");
}

TEST_CASE("program: a signal ends eval's tasks, and nothing half-written stays") {
  std::string rows;
  for (int i = 0; i < 4000; ++i) {
    rows += R"({"goal":"Thing )" + std::to_string(i * 37) +
            R"(","sol1":"Push it","sol2":"Pull it up","label":0})" + "\n";
  }
  write_text(workshop() / "many/piqa/validation.jsonl", rows);
  const auto begun = [] { return fs::exists(workshop() / "killed.json.tmp"); };
  const auto outcome =
      run_zebra({"eval", "llama", "--tasks", "piqa", "--data", "many", "--output", "killed.json"},
                workshop(), Interruption{.seconds = 0, .signal = SIGTERM, .when = begun});
  CHECK(outcome.interrupted);
  CHECK(outcome.exit_code == 75);
  CHECK_THAT(outcome.err, ContainsSubstring("stopped by SIGTERM"));
  CHECK_FALSE(begun());
  CHECK_FALSE(fs::exists(workshop() / "killed.json"));
}

}  // namespace zebra::testing
