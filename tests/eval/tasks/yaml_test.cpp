// Tasks of the user's own.
#include "eval/tasks/fixtures.h"
#include "eval/tasks/task.h"

namespace zebra::testing {

namespace {

const std::string kTask = R"(task: colours
dataset_path: json
dataset_kwargs:
  data_files: {test: rows.jsonl, dev: examples.jsonl}
test_split: test
fewshot_split: dev
fewshot_config: {sampler: first_n}
output_type: multiple_choice
description: "Colours.\n\n"
doc_to_text: "Q: {{q}}\nA:"
doc_to_choice: "{{['red', 'blue ' + shade]}}"
doc_to_target: answer
num_fewshot: 1
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
metadata: {version: 1.5}
)";

TaskReport run(const std::string& file, const Folder& folder) {
  return evaluate_tasks(bigram_model(random_table(2)), ByteTokenizer(),
                        {.tasks = {file}, .data = folder.path("."), .samples = true});
}

void refused(const std::string& from, const std::string& to, const std::string& what) {
  const Folder folder;
  auto text = kTask;
  const auto at = text.find(from);
  REQUIRE(at != std::string::npos);
  text.replace(at, from.size(), to);
  const auto file = folder.write("t.yaml", text);
  CHECK_THAT(config_error([&] { read_task(file); }), ContainsSubstring(what));
}

}  // namespace

TEST_CASE("yaml task: prompts, examples, choices and answers are what the file says") {
  const Folder folder;
  folder.write("rows.jsonl", "{\"q\": \"Sky?\", \"shade\": \"light\", \"answer\": 1}\n");
  folder.write("examples.jsonl", "{\"q\": \"Sea?\", \"shade\": \"dark\", \"answer\": 1}\n");
  const auto report = run(folder.write("t.yaml", kTask), folder);
  REQUIRE(report.results.size() == 1);
  CHECK(report.results[0].name == "colours");
  CHECK(report.results[0].version == 1.5);
  CHECK(report.results[0].shots == 1);
  CHECK(report.results[0].metrics.size() == 1);
  const auto sample = nlohmann::json::parse(report.samples[0].second[0]);
  CHECK(sample["arguments"]["gen_args_1"]["arg_0"] ==
        "Colours.\n\nQ: Sea?\nA: blue dark\n\nQ: Sky?\nA:");
  CHECK(sample["arguments"]["gen_args_1"]["arg_1"] == " blue light");
  CHECK(sample["target"] == "1");
}

TEST_CASE("yaml task: without data_files the rows lie in the data folder") {
  const Folder folder;
  std::filesystem::create_directories(folder.path("mine"));
  folder.write("mine/validation.jsonl", "{\"text\": \"a b\", \"opts\": [\"x\", \"y\"]}\n");
  const auto file =
      folder.write("t.yaml",
                   "task: mine\nvalidation_split: validation\noutput_type: multiple_choice\n"
                   "doc_to_text: text\ndoc_to_choice: opts\ndoc_to_target: 0\n");
  const auto report = run(file, folder);
  CHECK(report.results[0].find("acc_norm") != nullptr);
  CHECK(report.results[0].find("acc") != nullptr);
}

TEST_CASE("yaml task: a text's own perplexity") {
  const Folder folder;
  folder.write("r.jsonl", "{\"body\": \"one two\"}\n");
  const auto file =
      folder.write("t.yml",
                   "task: mine\ntest_split: test\noutput_type: loglikelihood_rolling\n"
                   "dataset_kwargs: {data_files: {test: r.jsonl}}\ndoc_to_target: body\n");
  const auto report = run(file, folder);
  const auto& result = report.results[0];
  // 8 tokens with BOS; two words, seven bytes.
  CHECK(result.find("bits_per_byte")->value ==
        Approx(std::log2(result.find("byte_perplexity")->value)));
  CHECK(std::log(result.find("word_perplexity")->value) * 2 ==
        Approx(std::log(result.find("byte_perplexity")->value) * 7));
  CHECK_FALSE(result.find("word_perplexity")->higher_is_better);
}

TEST_CASE("yaml task: mistakes are told with file, line and key") {
  refused("doc_to_text:", "doc_to_txt:",
          "t.yaml:10: unknown key 'doc_to_txt'; did you mean "
          "'doc_to_text'?");
  refused("multiple_choice", "multiple",
          "t.yaml:8: output_type: expected multiple_choice, loglikelihood or "
          "loglikelihood_rolling, got multiple");
  refused("metric: acc", "metric: accuracy",
          "metric_list.metric: expected one of acc, acc_norm, acc_bytes, got accuracy");
  refused("doc_to_target: answer\n", "", "doc_to_target: expected a value, got none");
  refused("test_split: test\n", "", "test_split or validation_split: expected a value, got none");
  refused("num_fewshot: 1", "num_fewshot: -1", "num_fewshot: expected an integer of at least 0");
  refused("doc_to_text: \"Q", "doc_to_text: !function \"Q", "got a Python function");
  refused("description: \"Colours", "description: \"\"Colours", "expected YAML");
  refused("sampler: first_n", "sampler: last", "expected sampler: first_n or default");
  refused("sampler: first_n", "samples: []",
          "t.yaml:7: fewshot_config: unknown key 'samples'; did you mean 'sampler'?");
  refused("aggregation: mean", "aggregation: median",
          "t.yaml:16: metric_list.aggregation: expected mean, as acc has it, got median");
  refused("aggregation: mean", "ignore_case: true", "metric_list: unknown key 'ignore_case'");
  refused("better: true", "better: much", "higher_is_better: expected true or false, got much");
  refused("\"{{['red', 'blue ' + shade]}}\"", "[red, \"{{shade}}\"]",
          "t.yaml:11: doc_to_choice: expected texts, or one template of a list, {{[a, b]}}, got a "
          "list with the template {{shade}}");
  refused("num_fewshot: 1", "num_fewshot: 1\nnum_fewshot: 1",
          "t.yaml:14: expected one 'num_fewshot', got two");
  refused("test: rows.jsonl,", "test: rows.jsonl, test: rows.jsonl,",
          "expected one 'test', got two");
  refused("version: 1.5", "version: 1.5, version: 1.5", "expected one 'version', got two");
  refused("task: colours", "task: my/colours",
          "t.yaml:1: task: expected a name without / and line ends, got my/colours");
  refused("task: colours", "task: \"a\\nb\"", "got a\\nb");
  refused("test_split: test", "\"a\\nb\": test", "unknown key 'a\\nb'");
}

TEST_CASE("yaml task: examples come from the split that fewshot_config names") {
  const Folder folder;
  folder.write("rows.jsonl", "{\"q\": \"Sky?\", \"shade\": \"light\", \"answer\": 1}\n");
  folder.write("examples.jsonl", "{\"q\": \"Sea?\", \"shade\": \"dark\", \"answer\": 0}\n");
  auto text = kTask;
  text.replace(text.find("fewshot_split: dev"), 18, "fewshot_split: test");
  text.replace(text.find("sampler: first_n"), 16, "split: dev");
  text.replace(text.find("better: true"), 12, "better: false");
  const auto report = run(folder.write("t.yaml", text), folder);
  const auto sample = nlohmann::json::parse(report.samples[0].second[0]);
  CHECK(sample["arguments"]["gen_args_0"]["arg_0"] == "Colours.\n\nQ: Sea?\nA: red\n\nQ: Sky?\nA:");
  CHECK_FALSE(report.results[0].metrics[0].higher_is_better);
}

TEST_CASE("yaml task: where the text is an index, the choices are the contexts") {
  const Folder folder;
  std::filesystem::create_directories(folder.path("blanks"));
  folder.write("blanks/test.jsonl",
               "{\"opts\": [\"Ann\", \"Sue\"], \"end\": \"ran\", \"label\": 1}\n"
               "{\"opts\": [\"Tim\", \"Bob\"], \"end\": \"sat\", \"label\": 0}\n");
  for (const std::string source : {"label", "\"{{label}}\""}) {
    const auto file = folder.write(
        "t.yaml",
        "task: blanks\ntest_split: test\noutput_type: multiple_choice\ndoc_to_text: " + source +
            "\ndoc_to_choice: opts\ndoc_to_target: end\nnum_fewshot: 1\n"
            "fewshot_config: {sampler: first_n}\nshould_decontaminate: true\n"
            "doc_to_decontamination_query: end\nfewshot_split: test\n");
    const auto report = run(file, folder);
    const auto sample = nlohmann::json::parse(report.samples[0].second[0]);
    CHECK(sample["arguments"]["gen_args_1"] ==
          nlohmann::json{{"arg_0", "Tim sat\n\nSue"}, {"arg_1", " ran"}});
    CHECK(sample["target"] == "ran");
  }
}

TEST_CASE("yaml task: a field that the rows lack is told with its line and the nearest name") {
  const Folder folder;
  folder.write("rows.jsonl",
               "{\"q\": \"Sky?\", \"shade\": \"x\", \"answer\": 1}\n\n{\"p\": 1, \"answer\": 0}\n");
  folder.write("examples.jsonl", "{\"q\": \"Sea?\", \"shade\": \"dark\", \"answer\": 1}\n");
  const auto file = folder.write("t.yaml", kTask);
  CHECK_THAT(config_error([&] { run(file, folder); }),
             ContainsSubstring("rows.jsonl:3: {{q}}: field q: expected a value, got none"));
  folder.write("rows.jsonl", "{\"q\": \"Sky?\", \"shade\": \"x\", \"anwser\": 1}\n");
  CHECK_THAT(config_error([&] { run(file, folder); }),
             ContainsSubstring("rows.jsonl:1: doc_to_target: expected a field of the row or a "
                               "template, got 'answer'; did you mean anwser?"));
  folder.write("rows.jsonl", "{\"q\": \"Sky?\", \"shade\": \"x\", \"answer\": 2}\n");
  CHECK_THAT(config_error([&] { run(file, folder); }),
             ContainsSubstring("rows.jsonl:1: answer: expected an index in [0, 2) or one of the "
                               "choices, got 2"));
}

TEST_CASE("yaml task: the name of a known task is refused") {
  const Folder folder;
  auto text = kTask;
  text.replace(text.find("colours"), 7, "arc_easy");
  const auto file = folder.write("t.yaml", text);
  CHECK_THAT(config_error([&] { run(file, folder); }),
             ContainsSubstring("expected a name of its own, got arc_easy"));
}

}  // namespace zebra::testing
