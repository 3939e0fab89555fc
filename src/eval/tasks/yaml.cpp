// Tasks that users describe, in the harness's own form.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <functional>
#include <map>

#include "base/file.h"
#include "eval/tasks/task.h"
#include "zebra/error.h"
#include "zebra/options.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

class TaskReader {
 public:
  explicit TaskReader(const fs::path& file) : file_(file) {}

  TaskSpec read() {
    const auto root = parse();
    if (!root.IsMap()) fail(root, "", "expected keys with values");
    for (const auto& item : root) take(item.first.as<std::string>(), item.second, item.first);
    finish(root);
    return spec_;
  }

 private:
  [[noreturn]] void fail(const YAML::Node& node, const std::string& key,
                         const std::string& what) const {
    const int line = node.Mark().line;
    throw ConfigError(str(file_.string(), line >= 0 ? ":" + std::to_string(line + 1) : "", ": ",
                          key, key.empty() ? "" : ": ", what));
  }

  YAML::Node parse() const {
    try {
      return YAML::Load(read_file(file_));
    } catch (const YAML::ParserException& error) {
      throw ConfigError(
          str(file_.string(), ":", error.mark.line + 1, ": expected YAML: ", error.msg));
    }
  }

  std::string text(const YAML::Node& node, const std::string& key) const {
    if (!node.IsScalar()) fail(node, key, "expected text");
    if (node.Tag() == "!function") {
      fail(node, key, "expected a field or a template, got a Python function");
    }
    return node.as<std::string>();
  }

  int64_t integer(const YAML::Node& node, const std::string& key) const {
    int64_t value = 0;
    if (!node.IsScalar() || !YAML::convert<int64_t>::decode(node, value) || value < 0) {
      fail(node, key, str("expected an integer of at least 0, got ", scalar(node)));
    }
    return value;
  }

  static std::string scalar(const YAML::Node& node) {
    return node.IsScalar() ? node.Scalar() : node.IsNull() ? "nothing" : "a list or keys";
  }

  void take(const std::string& key, const YAML::Node& node, const YAML::Node& place) {
    const auto set = [&](std::string& field) { field = text(node, key); };
    const std::map<std::string, std::function<void()>> keys = {
        {"task", [&] { set(spec_.name); }},
        {"task_alias", [&] { set(spec_.alias); }},
        {"dataset_path", [&] { text(node, key); }},
        {"dataset_name", [&] {}},
        {"dataset_kwargs", [&] { take_files(node); }},
        {"tag", [&] {}},
        {"output_type", [&] { spec_.kind = kind(text(node, key), node); }},
        {"training_split", [&] { set(spec_.training); }},
        {"validation_split", [&] { set(spec_.validation); }},
        {"test_split", [&] { set(spec_.test); }},
        {"fewshot_split", [&] { set(spec_.fewshot_split); }},
        {"fewshot_config", [&] { take_sampler(node); }},
        {"description", [&] { set(spec_.description); }},
        {"doc_to_text", [&] { set(spec_.text); }},
        {"doc_to_target", [&] { spec_.target = target(node); }},
        {"doc_to_choice", [&] { spec_.choices = choices(node); }},
        {"target_delimiter", [&] { set(spec_.target_delimiter); }},
        {"fewshot_delimiter", [&] { set(spec_.fewshot_delimiter); }},
        {"num_fewshot", [&] { spec_.shots = integer(node, key); }},
        {"metric_list", [&] { take_metrics(node); }},
        {"metadata", [&] { take_version(node); }},
    };
    if (const auto found = keys.find(key); found != keys.end()) return found->second();
    std::vector<std::string> names;
    for (const auto& item : keys) names.push_back(item.first);
    const auto nearest = nearest_name(key, names);
    fail(
        place, "",
        str("unknown key '", key, "'", nearest.empty() ? "" : "; did you mean '" + nearest + "'?"));
  }

  TaskKind kind(const std::string& name, const YAML::Node& node) const {
    if (name == "multiple_choice") return TaskKind::kMultipleChoice;
    if (name == "loglikelihood") return TaskKind::kLogLikelihood;
    if (name == "loglikelihood_rolling") return TaskKind::kRolling;
    fail(node, "output_type",
         "expected multiple_choice, loglikelihood or loglikelihood_rolling, got " + name);
  }

  // data_files: {split: file}, relative to the YAML file.
  void take_files(const YAML::Node& node) {
    const std::string key = "dataset_kwargs.data_files";
    if (!node.IsMap() || node.size() != 1 || !node["data_files"] || !node["data_files"].IsMap()) {
      fail(node, key, "expected one file for each split");
    }
    for (const auto& item : node["data_files"]) {
      spec_.files[item.first.as<std::string>()] =
          (file_.parent_path() / text(item.second, key)).string();
    }
  }

  void take_sampler(const YAML::Node& node) {
    const auto sampler = node.IsMap() && node["sampler"] ? text(node["sampler"], "sampler") : "";
    if (sampler != "first_n" && sampler != "default") {
      fail(node, "fewshot_config", "expected sampler: first_n or default");
    }
    spec_.fewshot_order = sampler == "first_n" ? FewshotOrder::kFirst : FewshotOrder::kSampled;
  }

  std::string target(const YAML::Node& node) const {
    const auto value = text(node, "doc_to_target");
    const bool number =
        !value.empty() && value.find_first_not_of("0123456789") == std::string::npos;
    return number ? "{{" + value + "}}" : value;
  }

  std::vector<std::string> choices(const YAML::Node& node) const {
    if (node.IsScalar()) return {text(node, "doc_to_choice")};
    if (!node.IsSequence() || node.size() < 2) {
      fail(node, "doc_to_choice", "expected a field, a template or a list of at least two texts");
    }
    std::vector<std::string> list;
    for (const auto& item : node) list.push_back(text(item, "doc_to_choice"));
    return list;
  }

  void take_metrics(const YAML::Node& node) {
    if (!node.IsSequence()) fail(node, "metric_list", "expected a list of {metric: NAME}");
    for (const auto& item : node) {
      if (!item.IsMap() || !item["metric"]) fail(item, "metric_list", "expected {metric: NAME}");
      spec_.metrics.push_back({text(item["metric"], "metric_list.metric")});
    }
  }

  void take_version(const YAML::Node& node) {
    if (!node.IsMap() || !node["version"]) return;
    if (!YAML::convert<double>::decode(node["version"], spec_.version)) {
      fail(node["version"], "metadata.version",
           "expected a number, got " + scalar(node["version"]));
    }
  }

  void check_metrics(const YAML::Node& root) {
    static const std::map<TaskKind, std::vector<std::string>> known = {
        {TaskKind::kMultipleChoice, {"acc", "acc_norm", "acc_bytes"}},
        {TaskKind::kLogLikelihood, {"perplexity", "acc"}},
        {TaskKind::kRolling, {"word_perplexity", "byte_perplexity", "bits_per_byte"}}};
    const auto& names = known.at(spec_.kind);
    if (spec_.metrics.empty()) {
      for (const auto& name : names) {
        if (name != "acc_bytes") spec_.metrics.push_back({name});
      }
    }
    for (auto& metric : spec_.metrics) {
      if (std::find(names.begin(), names.end(), metric.name) == names.end()) {
        std::string list;
        for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
        fail(root, "metric_list.metric", "expected one of " + list + ", got " + metric.name);
      }
      metric.higher_is_better = metric.name.starts_with("acc");
    }
  }

  void finish(const YAML::Node& root) {
    const auto need = [&](const char* key, const std::string& value) {
      if (value.empty()) fail(root, key, "expected a value, got none");
    };
    need("task", spec_.name);
    need("doc_to_target", spec_.target);
    if (spec_.test.empty()) need("test_split or validation_split", spec_.validation);
    if (spec_.kind != TaskKind::kRolling) need("doc_to_text", spec_.text);
    if (spec_.kind == TaskKind::kMultipleChoice && spec_.choices.empty()) need("doc_to_choice", "");
    if (spec_.alias.empty()) spec_.alias = spec_.name;
    spec_.folder = spec_.name;
    check_metrics(root);
  }

  const fs::path& file_;
  TaskSpec spec_;
};

}  // namespace

TaskSpec read_task(const fs::path& file) { return TaskReader(file).read(); }

}  // namespace zebra
