// A task's settings under the keys of the harness.
#include "eval/tasks/metrics.h"
#include "eval/tasks/task.h"

namespace zebra {

namespace {

using Json = Document;

const char* output_type(TaskKind kind) {
  switch (kind) {
    case TaskKind::kMultipleChoice:
      return "multiple_choice";
    case TaskKind::kLogLikelihood:
      return "loglikelihood";
    case TaskKind::kRolling:
      return "loglikelihood_rolling";
    case TaskKind::kGenerate:
      return "generate_until";
  }
  return "?";
}

Json metric_list(const TaskSpec& task) {
  Json list = Json::array();
  for (const auto& metric : task.metrics) {
    list.push_back({{"metric", metric.name},
                    {"aggregation", aggregation_name(metric.name)},
                    {"higher_is_better", metric.higher_is_better}});
  }
  return list;
}

}  // namespace

std::string task_config_json(const TaskSpec& task, int64_t shots) {
  Json config = {{"task", task.name}, {"task_alias", task.alias}};
  const auto add_text = [&](const char* key, const std::string& value) {
    if (!value.empty()) config[key] = value;
  };
  if (!task.files.empty()) config["dataset_kwargs"] = {{"data_files", task.files}};
  add_text("training_split", task.training);
  add_text("validation_split", task.validation);
  add_text("test_split", task.test);
  add_text("fewshot_split", task.fewshot_split);
  config["doc_to_text"] = task.text;
  config["doc_to_target"] = task.target;
  if (task.choices.size() == 1) config["doc_to_choice"] = task.choices[0];
  if (task.choices.size() > 1) config["doc_to_choice"] = task.choices;
  config["description"] = task.description;
  config["target_delimiter"] = task.target_delimiter;
  config["fewshot_delimiter"] = task.fewshot_delimiter;
  config["fewshot_config"] = {
      {"sampler", task.fewshot_order == FewshotOrder::kFirst ? "first_n" : "default"}};
  config["num_fewshot"] = shots;
  config["metric_list"] = metric_list(task);
  config["output_type"] = output_type(task.kind);
  if (task.kind == TaskKind::kGenerate) {
    config["generation_kwargs"] = {{"until", task.stop},
                                   {"do_sample", false},
                                   {"temperature", 0.0},
                                   {"max_gen_toks", task.max_new_tokens}};
  }
  config["metadata"] = {{"version", task.version}};
  return config.dump(-1, ' ', /*ensure_ascii=*/false, Json::error_handler_t::replace);
}

}  // namespace zebra
