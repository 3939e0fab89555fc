// Results as the harness's file and as a table.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <nlohmann/json.hpp>

#include "base/sha256.h"
#include "zebra/tasks.h"

namespace zebra {

namespace {

using Json = nlohmann::ordered_json;

// JSON has no numbers that are not finite: they are texts.
Json number(double value) {
  if (std::isfinite(value)) return value;
  return std::isnan(value) ? "nan" : value > 0 ? "inf" : "-inf";
}

Json numbers_of(const TaskResult& result) {
  Json json = {{"name", result.name}, {"alias", result.alias}, {"sample_len", result.documents}};
  for (const auto& metric : result.metrics) {
    json[metric.name + "," + metric.filter] = number(metric.value);
    json[metric.name + "_stderr," + metric.filter] =
        metric.error ? number(*metric.error) : Json("N/A");
  }
  if (!result.members.empty()) json["sample_count"] = {{"acc,none", result.documents}};
  return json;
}

// One hash of all of a task's samples.
Json hashes_of(const TaskReport& report) {
  Json hashes = Json::object();
  for (const auto& [task, samples] : report.samples) {
    std::string all;
    for (const auto& line : samples) {
      const auto sample = Json::parse(line);
      for (const char* key : {"doc_hash", "prompt_hash", "target_hash"}) {
        all += sample.at(key).get<std::string>();
      }
    }
    hashes[task] = sha256_hex(all);
  }
  return hashes;
}

std::string decimals(double value, int digits) {
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string version_text(double version) {
  return version == std::floor(version) ? decimals(version, 0) : Json(version).dump();
}

using TableRow = std::vector<std::string>;

// Members of groups stand under their group, further to the right.
std::map<std::string, int> depths_of(const TaskReport& report) {
  std::map<std::string, int> depths;
  for (const auto& result : report.results) {
    for (const auto& member : result.members) depths[member] = depths[result.name] + 1;
  }
  return depths;
}

std::vector<TableRow> rows_of(const TaskReport& report) {
  auto depths = depths_of(report);
  std::vector<TableRow> rows;
  for (const auto& result : report.results) {
    const int depth = depths[result.name];
    std::string title =
        depth > 0 ? std::string(2 * depth - 2, ' ') + "- " + result.alias : result.alias;
    std::string version = version_text(result.version), shots = std::to_string(result.shots);
    for (const auto& metric : result.metrics) {
      rows.push_back({title, version, metric.filter, shots, metric.name,
                      metric.higher_is_better ? "\u2191" : "\u2193", decimals(metric.value, 4),
                      metric.error ? "\u00b1 " + decimals(*metric.error, 4) : ""});
      title = version = shots = "";
    }
  }
  return rows;
}

size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

std::string task_report_json(const TaskReport& report, const TaskOptions& options,
                             const JsonPairs& config, const JsonPairs& about) {
  Json results, groups, subtasks, configs = Json::object(), versions, shots, better, counts;
  for (const auto& result : report.results) {
    results[result.name] = numbers_of(result);
    if (!result.config.empty()) configs[result.name] = Json::parse(result.config);
    versions[result.name] = result.version;
    shots[result.name] = result.shots;
    for (const auto& metric : result.metrics) {
      better[result.name][metric.name] = metric.higher_is_better;
    }
    if (result.members.empty()) {
      counts[result.name] = {{"original", result.available}, {"effective", result.documents}};
    } else {
      groups[result.name] = numbers_of(result);
      subtasks[result.name] = result.members;
    }
  }
  Json json = {{"results", results}};
  if (!groups.is_null()) json["groups"] = groups;
  json["group_subtasks"] = subtasks.is_null() ? Json::object() : subtasks;
  json["configs"] = configs;
  json["versions"] = versions;
  json["n-shot"] = shots;
  json["higher_is_better"] = better;
  json["n-samples"] = counts;
  auto& settings = json["config"];
  for (const auto& [key, value] : config) settings[key] = Json::parse(value);
  settings["batch_size"] = options.batch_size > 0 ? Json(options.batch_size) : Json("auto");
  settings["limit"] = options.limit > 0 ? Json(options.limit) : Json();
  settings["cut_endings"] = options.cut_endings;
  settings["bootstrap_iters"] = options.bootstrap_iterations;
  settings["fewshot_seed"] = options.fewshot_seed;
  for (const auto& [key, value] : about) json[key] = Json::parse(value);
  json["task_hashes"] = hashes_of(report);
  const auto& instruction = options.system_instruction;
  json["system_instruction"] = instruction.empty() ? Json() : Json(instruction);
  json["system_instruction_sha"] = instruction.empty() ? Json() : Json(sha256_hex(instruction));
  json["apply_chat_template"] = static_cast<bool>(options.chat_template);
  json["fewshot_as_multiturn"] = options.fewshot_as_multiturn;
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

std::string task_report_table(const TaskReport& report) {
  auto rows = rows_of(report);
  rows.insert(rows.begin(),
              {"task", "version", "filter", "n-shot", "metric", "", "value", "stderr"});
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  }
  std::string text;
  for (size_t r = 0; r < rows.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < widths.size(); ++c) {
      const bool right = c == 1 || c == 3 || c == 6;
      const std::string spaces(widths[c] - width_of(rows[r][c]), ' ');
      line += (c > 0 ? "  " : "") + (right ? spaces + rows[r][c] : rows[r][c] + spaces);
    }
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
    if (r > 0) continue;
    size_t total = 2 * (widths.size() - 1);
    for (const size_t width : widths) total += width;
    text += std::string(total, '-') + "\n";
  }
  return text;
}

}  // namespace zebra
