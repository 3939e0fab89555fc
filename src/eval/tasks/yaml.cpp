// Tasks that users describe, in the harness's own form.
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "base/file.h"
#include "eval/python.h"
#include "eval/tasks/metrics.h"
#include "eval/tasks/task.h"
#include "zebra/error.h"
#include "zebra/options.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

Metric usual_metric(const std::string& name) { return {name, name.starts_with("acc")}; }

class TaskReader {
 public:
  explicit TaskReader(const fs::path& file) : file_(file) {}

  TaskSpec read() {
    const auto root = parse();
    if (!root.IsMap()) fail(root, "", "expected keys with values");
    read_map(root, "", keys());
    finish(root);
    return spec_;
  }

 private:
  using Keys = std::map<std::string, std::function<void(const YAML::Node&)>>;

  [[noreturn]] void fail(const YAML::Node& node, const std::string& key,
                         const std::string& what) const {
    const int line = node.Mark().line;
    throw ConfigError(str(file_.string(), line >= 0 ? ":" + std::to_string(line + 1) : "", ": ",
                          key, key.empty() ? "" : ": ", excerpt(what)));
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

  bool truth(const YAML::Node& node, const std::string& key) const {
    bool value = false;
    if (!node.IsScalar() || !YAML::convert<bool>::decode(node, value)) {
      fail(node, key, str("expected true or false, got ", scalar(node)));
    }
    return value;
  }

  static std::string scalar(const YAML::Node& node) {
    return node.IsScalar() ? node.Scalar() : node.IsNull() ? "nothing" : "a list or keys";
  }

  void check_once(const YAML::Node& map, const std::string& where) const {
    std::set<std::string> seen;
    for (const auto& item : map) {
      const auto key = text(item.first, where);
      if (!seen.insert(key).second) fail(item.first, where, "expected one '" + key + "', got two");
    }
  }

  // A map that has these keys alone, each at most once.
  void read_map(const YAML::Node& map, const std::string& where, const Keys& keys) const {
    check_once(map, where);
    for (const auto& item : map) {
      const auto key = text(item.first, where);
      if (const auto found = keys.find(key); found != keys.end()) {
        found->second(item.second);
        continue;
      }
      std::vector<std::string> names;
      for (const auto& known : keys) names.push_back(known.first);
      const auto nearest = nearest_name(key, names);
      fail(item.first, where,
           str("unknown key '", key, "'",
               nearest.empty() ? "" : "; did you mean '" + nearest + "'?"));
    }
  }

  Keys keys() {
    const auto set = [this](const char* key, std::string& field) {
      return Keys::value_type(key,
                              [=, this, &field](const auto& node) { field = text(node, key); });
    };
    const auto ignore = [](const auto&) {};
    return {
        set("task", spec_.name),
        set("task_alias", spec_.alias),
        {"dataset_path", [this](const auto& node) { text(node, "dataset_path"); }},
        {"dataset_name", ignore},
        {"dataset_kwargs", [this](const auto& node) { take_files(node); }},
        {"tag", ignore},
        {"output_type", [this](const auto& node) { spec_.kind = kind(node); }},
        set("training_split", spec_.training),
        set("validation_split", spec_.validation),
        set("test_split", spec_.test),
        set("fewshot_split", spec_.fewshot_split),
        {"fewshot_config", [this](const auto& node) { take_sampler(node); }},
        set("description", spec_.description),
        {"doc_to_text", [this](const auto& node) { spec_.text = source(node, "doc_to_text"); }},
        {"doc_to_target",
         [this](const auto& node) { spec_.target = source(node, "doc_to_target"); }},
        {"doc_to_choice", [this](const auto& node) { spec_.choices = choices(node); }},
        {"should_decontaminate", ignore},
        {"doc_to_decontamination_query", ignore},
        set("target_delimiter", spec_.target_delimiter),
        set("fewshot_delimiter", spec_.fewshot_delimiter),
        {"num_fewshot", [this](const auto& node) { spec_.shots = integer(node, "num_fewshot"); }},
        {"metric_list", [this](const auto& node) { take_metrics(node); }},
        {"metadata", [this](const auto& node) { take_version(node); }},
    };
  }

  TaskKind kind(const YAML::Node& node) const {
    const auto name = text(node, "output_type");
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
    check_once(node["data_files"], key);
    for (const auto& item : node["data_files"]) {
      spec_.files[text(item.first, key)] = (file_.parent_path() / text(item.second, key)).string();
    }
  }

  void take_sampler(const YAML::Node& node) {
    const std::string key = "fewshot_config";
    if (!node.IsMap()) fail(node, key, "expected sampler or split");
    const auto take_order = [&](const YAML::Node& name) {
      const auto sampler = text(name, key + ".sampler");
      if (sampler != "first_n" && sampler != "default") {
        fail(name, key, "expected sampler: first_n or default, got " + sampler);
      }
      spec_.fewshot_order = sampler == "first_n" ? FewshotOrder::kFirst : FewshotOrder::kSampled;
    };
    const auto take_split = [&](const YAML::Node& name) {
      own_fewshot_split_ = text(name, key + ".split");
    };
    read_map(node, key, {{"sampler", take_order}, {"split", take_split}});
  }

  // A field, a template, or a number, which is an index among the choices.
  std::string source(const YAML::Node& node, const std::string& key) const {
    const auto value = text(node, key);
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
    for (const auto& item : node) {
      list.push_back(text(item, "doc_to_choice"));
      // The harness takes a list's texts as they stand.
      if (list.back().find("{{") != std::string::npos) {
        fail(
            item, "doc_to_choice",
            "expected texts, or one template of a list, {{[a, b]}}, got a list with the template " +
                list.back());
      }
    }
    return list;
  }

  void take_metrics(const YAML::Node& node) {
    if (!node.IsSequence()) fail(node, "metric_list", "expected a list of {metric: NAME}");
    for (const auto& item : node) {
      if (!item.IsMap() || !item["metric"]) fail(item, "metric_list", "expected {metric: NAME}");
      auto metric = usual_metric(text(item["metric"], "metric_list.metric"));
      const auto check_aggregation = [&](const YAML::Node& value) {
        const auto own = aggregation_name(metric.name),
                   got = text(value, "metric_list.aggregation");
        if (got == own) return;
        fail(value, "metric_list.aggregation",
             str("expected ", own, ", as ", metric.name, " has it, got ", got));
      };
      const auto take_direction = [&](const YAML::Node& value) {
        metric.higher_is_better = truth(value, "metric_list.higher_is_better");
      };
      read_map(item, "metric_list",
               {{"metric", [](const auto&) {}},
                {"aggregation", check_aggregation},
                {"higher_is_better", take_direction}});
      spec_.metrics.push_back(metric);
    }
  }

  void take_version(const YAML::Node& node) {
    if (!node.IsMap()) return;
    check_once(node, "metadata");
    if (!node["version"]) return;
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
        if (name != "acc_bytes") spec_.metrics.push_back(usual_metric(name));
      }
    }
    for (const auto& metric : spec_.metrics) {
      if (std::find(names.begin(), names.end(), metric.name) == names.end()) {
        std::string list;
        for (const auto& name : names) list += (list.empty() ? "" : ", ") + name;
        fail(root, "metric_list.metric", "expected one of " + list + ", got " + metric.name);
      }
    }
  }

  void finish(const YAML::Node& root) {
    const auto need = [&](const char* key, const std::string& value) {
      if (value.empty()) fail(root, key, "expected a value, got none");
    };
    need("task", spec_.name);
    // Samples are written to a file of that name.
    const auto is_bad = [](unsigned char c) { return c == '/' || c < ' '; };
    if (std::any_of(spec_.name.begin(), spec_.name.end(), is_bad)) {
      fail(root["task"], "task", "expected a name without / and line ends, got " + spec_.name);
    }
    need("doc_to_target", spec_.target);
    if (spec_.test.empty()) need("test_split or validation_split", spec_.validation);
    if (spec_.kind != TaskKind::kRolling) need("doc_to_text", spec_.text);
    if (spec_.kind == TaskKind::kMultipleChoice && spec_.choices.empty()) need("doc_to_choice", "");
    if (spec_.alias.empty()) spec_.alias = spec_.name;
    spec_.folder = spec_.name;
    if (!own_fewshot_split_.empty()) spec_.fewshot_split = own_fewshot_split_;
    check_metrics(root);
  }

  const fs::path& file_;
  TaskSpec spec_;
  std::string own_fewshot_split_;  // fewshot_config.split, which goes before fewshot_split
};

}  // namespace

TaskSpec read_task(const fs::path& file) { return TaskReader(file).read(); }

}  // namespace zebra
