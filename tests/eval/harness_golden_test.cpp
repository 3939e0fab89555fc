// lm-evaluation-harness 0.4.13 on a real model: every log-likelihood, every metric, and the
// requests of whole tasks by their hashes.
#include <nlohmann/json.hpp>

#include "base/json.h"
#include "base/sha256.h"
#include "data/harness_tokenizer.h"
#include "eval/python.h"
#include "eval/tasks/documents.h"
#include "support/testing.h"
#include "zebra/convert.h"
#include "zebra/error.h"
#include "zebra/tasks.h"

namespace zebra::testing {

namespace {

constexpr double kHarness = 2e-3;  // docs/numerics.md

struct Stories {
  CausalLm model = load_model(shared_path("data/models/stories260k"),
                              {.dtype = test_dtype(), .device = test_device()});
  std::unique_ptr<Tokenizer> tokenizer =
      load_harness_tokenizer(shared_path("data/models/stories260k"));
};

double logged(const json& response) { return std::stod(response.at(0).at(0).get<std::string>()); }

void check_samples(const std::vector<std::string>& samples, const json& documents,
                   const std::string& task) {
  INFO(task);
  REQUIRE(samples.size() == documents.size());
  double worst = 0;
  for (size_t i = 0; i < samples.size(); ++i) {
    const auto sample = json::parse(samples[i]);
    const auto& expected = documents[i].at("loglikelihoods");
    REQUIRE(sample.at("resps").size() == expected.size());
    for (size_t c = 0; c < expected.size(); ++c) {
      const double error = std::abs(logged(sample["resps"][c]) - expected[c].get<double>());
      if (error > worst) worst = error;
    }
  }
  CHECK(worst <= kHarness);
}

void check_metrics(const TaskReport& report, const std::string& task, const json& metrics) {
  INFO(task);
  const auto found = std::find_if(report.results.begin(), report.results.end(),
                                  [&](const auto& result) { return result.name == task; });
  REQUIRE(found != report.results.end());
  CHECK(found->documents == metrics.at("sample_len"));
  for (const auto& [key, value] : metrics.items()) {
    if (key == "sample_len") continue;
    const auto* metric = found->find(key.substr(0, key.find(',')));
    REQUIRE(metric != nullptr);
    CHECK(metric->value == Approx(value.get<double>()).margin(1e-12));
  }
}

void check_golden(const std::string& file, int64_t shots) {
  const auto golden = read_json(shared_path("goldens/lm_eval/" + file));
  TaskOptions options{.tasks = {}, .data = shared_path("data/eval").string()};
  for (const auto& item : golden.at("tasks").items()) options.tasks.push_back(item.key());
  options.shots = shots;
  options.limit = 100;
  options.max_length = 512;
  options.samples = true;
  const Stories stories;
  const auto report = evaluate_tasks(stories.model, *stories.tokenizer, options);
  REQUIRE(report.samples.size() == golden.at("tasks").size());
  for (const auto& [task, samples] : report.samples) {
    const auto& expected = golden.at("tasks").at(task);
    check_samples(samples, expected.at("docs"), task);
    check_metrics(report, task, expected.at("metrics"));
  }
}

const TaskSpec& task_named(const std::string& name) {
  for (const auto& task : known_tasks()) {
    if (task.name == name) return task;
  }
  TORCH_CHECK(false, "no task ", name);
}

// The harness's release 0.3 asked MMLU with the choices' texts.
TaskSpec mmlu_of_release_3(const std::string& subject) {
  auto task = task_named("mmlu_" + subject);
  task.description = "";
  task.text =
      "Question: {{question}}\nChoices:\nA. {{choices[0]}}\nB. {{choices[1]}}\n"
      "C. {{choices[2]}}\nD. {{choices[3]}}\nAnswer:";
  task.choices = {"{{choices}}"};
  return task;
}

std::vector<TaskQuestion> all_questions(const TaskSpec& task) {
  const auto rows = read_rows(task, shared_path("data/eval").string(), task.eval_split(), 0);
  return make_questions(task, rows.documents, {}, /*shots=*/0, TaskOptions());
}

// That release shuffled the documents, and its tests pin the hash of all [context, continuation].
std::string requests_hash(std::vector<TaskQuestion> questions) {
  PythonRandom(42).shuffle(questions);
  std::string text = "[";
  for (const auto& question : questions) {
    for (const auto& [context, continuation] : question.requests) {
      text += (text.size() > 1 ? ", [" : "[") + python_json_string(context) + ", " +
              python_json_string(continuation) + "]";
    }
  }
  return sha256_hex(text + "]");
}

}  // namespace

TEST_CASE("harness: log-likelihoods and metrics of eight tasks without examples", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/lm_eval/stories260k-0shot.json");
  if (test_dtype() != torch::kFloat32) ZEBRA_SKIP("made in float32");
  check_golden("stories260k-0shot.json", 0);
}

TEST_CASE("harness: log-likelihoods and metrics of two tasks with five examples", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/lm_eval/stories260k-5shot.json");
  if (test_dtype() != torch::kFloat32) ZEBRA_SKIP("made in float32");
  check_golden("stories260k-5shot.json", 5);
}

TEST_CASE("harness: requests of whole tasks have the hashes of release 0.3", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/lm_eval/requests-v0.3.0.json");
  const auto golden = read_json(shared_path("goldens/lm_eval/requests-v0.3.0.json"));
  int compared = 0;
  for (const auto& [name, expected] : golden.items()) {
    // data/eval has no race, and of hellaswag only a part.
    if (name == "race" || name == "hellaswag") continue;
    INFO(name);
    const std::string old = "hendrycksTest-";
    const auto task =
        name.starts_with(old) ? mmlu_of_release_3(name.substr(old.size())) : task_named(name);
    CHECK(requests_hash(all_questions(task)) == expected.at("requests_sha256"));
    ++compared;
  }
  CHECK(compared == 62);
}

TEST_CASE("harness: accuracies of release 0.3 with random log-likelihoods", "[golden]") {
  ZEBRA_NEEDS_SHARED("goldens/lm_eval/requests-v0.3.0.json");
  const auto golden = read_json(shared_path("goldens/lm_eval/requests-v0.3.0.json"));
  for (const std::string name : {"arc_easy", "arc_challenge", "piqa", "openbookqa"}) {
    INFO(name);
    auto questions = all_questions(task_named(name));
    PythonRandom(42).shuffle(questions);
    PythonRandom answers(42);
    double acc = 0, acc_norm = 0;
    for (const auto& question : questions) {
      std::vector<double> plain, normed;
      for (const auto& choice : question.choices) {
        plain.push_back(-answers.random());
        normed.push_back(plain.back() / static_cast<double>(python_length(choice)));
      }
      const auto best = [](const auto& all) {
        return std::max_element(all.begin(), all.end()) - all.begin();
      };
      acc += best(plain) == question.answer ? 1 : 0;
      acc_norm += best(normed) == question.answer ? 1 : 0;
    }
    const auto count = static_cast<double>(questions.size());
    CHECK(acc / count == Approx(golden[name]["results"]["acc"].get<double>()).margin(1e-12));
    CHECK(acc_norm / count ==
          Approx(golden[name]["results"]["acc_norm"].get<double>()).margin(1e-12));
  }
}

}  // namespace zebra::testing
