#include "train/report_metrics.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "train/metrics.h"
#include "zebra/error.h"

namespace zebra {

namespace {

using Json = nlohmann::ordered_json;

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

StageCurves& curves_of(std::vector<StageCurves>& stages, const std::string& stage) {
  const auto found = std::find_if(stages.begin(), stages.end(),
                                  [&](const StageCurves& curves) { return curves.stage == stage; });
  if (found != stages.end()) return *found;
  stages.push_back({.stage = stage, .variants = {}, .keys = {}, .curves = {}});
  return stages.back();
}

void add_line(std::vector<StageCurves>& stages, const Json& line) {
  const auto full = line.at("stage").get<std::string>();
  const auto dot = full.find('.');
  const auto variant = dot == std::string::npos ? "" : full.substr(dot + 1);
  const double step = line.at("step").get<double>();
  auto& stage = curves_of(stages, full.substr(0, dot));
  if (!contains(stage.variants, variant)) stage.variants.push_back(variant);
  for (const auto& [key, value] : line.items()) {
    const bool speed = key == "tokens_per_second" || key == "mfu";
    const bool left_out = key == "stage" || key == "step" || key == "tokens" || key == "samples" ||
                          (is_machine_measure(key) && !speed);
    if (left_out || !value.is_number()) continue;
    if (!contains(stage.keys, key)) stage.keys.push_back(key);
    stage.curves[key][variant].push_back({step, value.get<double>()});
  }
}

void sort_keys(StageCurves& stage) {
  const std::vector<std::string> first = {"loss", "learning_rate", "grad_norm"};
  const auto rank = [&](const std::string& key) {
    if (key == "tokens_per_second") return 4L;  // last
    return std::find(first.begin(), first.end(), key) - first.begin();
  };
  std::stable_sort(stage.keys.begin(), stage.keys.end(),
                   [&](const auto& a, const auto& b) { return rank(a) < rank(b); });
}

}  // namespace

std::vector<StageCurves> read_metrics(const std::filesystem::path& path) {
  std::vector<StageCurves> stages;
  if (!std::filesystem::exists(path)) return stages;
  const auto text = read_file(path);
  int64_t number = 1;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    const auto line = Json::parse(text.begin() + static_cast<std::ptrdiff_t>(begin),
                                  text.begin() + static_cast<std::ptrdiff_t>(end),
                                  /*cb=*/nullptr, /*allow_exceptions=*/false);
    const bool usable = line.is_object() && line.contains("stage") && line["stage"].is_string() &&
                        line.contains("step") && line["step"].is_number();
    if (!usable) {
      throw ConfigError(str(path.string(), " line ", number,
                            ": expected an object with stage and step, got ",
                            text.substr(begin, std::min<size_t>(end - begin, 60))));
    }
    add_line(stages, line);
    ++number;
  }
  for (auto& stage : stages) sort_keys(stage);
  return stages;
}

}  // namespace zebra
