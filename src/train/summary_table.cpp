#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>

#include "train/summary.h"

namespace zebra {

namespace {

std::string fixed(std::optional<double> value, int decimals, double factor, const char* unit) {
  if (!value) return "";
  char text[64];
  std::snprintf(text, sizeof text, "%.*f%s", decimals, *value * factor, unit);
  return text;
}

std::string plain(std::optional<double> value) { return fixed(value, 4, 1.0, ""); }
std::string percent(std::optional<double> value) { return fixed(value, 1, 100.0, " %"); }

// 12345 -> "12,345"
std::string grouped(std::optional<int64_t> value) {
  if (!value) return "";
  auto text = std::to_string(*value);
  const size_t first = text[0] == '-' ? 1 : 0;
  for (size_t at = text.size(); at > first + 3;) text.insert(at -= 3, ",");
  return text;
}

std::string per_second(std::optional<double> value) {
  if (!value || !std::isfinite(*value)) return value ? "nan" : "";
  return grouped(std::llround(*value));
}

struct Row {
  const char* stage;
  const char* label;
};

constexpr Row kRows[] = {{"base", "base"},
                         {"init", "initialised"},
                         {"composed", "composed"},
                         {"distill", "distilled"},
                         {"dpo", "aligned"}};

struct Column {
  const char* title;
  std::function<std::string(const Summary&, const StageScores&, bool is_base)> cell;
};

// Cache and speed follow from the layers alone, so every hybrid has the same.
const std::vector<Column>& columns() {
  using S = const StageScores&;
  static const std::vector<Column> all = {
      {"bits per\nbyte", [](const Summary&, S s, bool) { return plain(s.bits_per_byte); }},
      {"nats per\ntoken", [](const Summary&, S s, bool) { return plain(s.nats_per_token); }},
      {"KL to\nteacher", [](const Summary&, S s, bool) { return plain(s.kl_per_token); }},
      {"top-1\nagreement", [](const Summary&, S s, bool) { return percent(s.top1_agreement); }},
      {"multiple\nchoice", [](const Summary&, S s, bool) { return percent(s.accuracy); }},
      {"choice by\nlength", [](const Summary&, S s, bool) { return percent(s.accuracy_norm); }},
      {"preference\naccuracy",
       [](const Summary&, S s, bool) { return percent(s.preference_accuracy); }},
      {"KV bytes\na token",  // in bfloat16; states in float32
       [](const Summary& all, S, bool base) {
         return grouped(base ? all.cache.base_bytes_per_token : all.cache.bytes_per_token);
       }},
      {"KV\nshare",
       [](const Summary& all, S, bool base) {
         return base && all.cache.kv_share ? percent(1.0)
                                           : fixed(all.cache.kv_share, 2, 100.0, " %");
       }},
      {"state\nbytes",
       [](const Summary& all, S, bool base) {
         return base && all.cache.bytes_per_sequence ? "0"  // attention has no state
                                                     : grouped(all.cache.bytes_per_sequence);
       }},
      {"decode\ntokens/s",
       [](const Summary& all, S, bool base) {
         return per_second(base ? all.speed.base_decode_tokens_per_second
                                : all.speed.hybrid_decode_tokens_per_second);
       }},
  };
  return all;
}

void drop_empty_columns(SummaryTable& table) {
  for (size_t c = table.columns.size(); c-- > 1;) {
    const bool empty = std::all_of(table.rows.begin(), table.rows.end(),
                                   [&](const auto& row) { return row[c].empty(); });
    if (!empty) continue;
    const auto at = static_cast<std::ptrdiff_t>(c);
    table.columns.erase(table.columns.begin() + at);
    for (auto& row : table.rows) row.erase(row.begin() + at);
  }
}

std::string padded(const std::string& text, size_t width, bool right) {
  const std::string spaces(width - std::min(width, text.size()), ' ');
  return right ? spaces + text : text + spaces;
}

std::string table_text(const SummaryTable& table) {
  std::vector<std::string> upper, lower;  // lines of the head
  for (const auto& title : table.columns) {
    const auto end = title.find('\n');
    upper.push_back(end == std::string::npos ? " " : title.substr(0, end));
    lower.push_back(end == std::string::npos ? title : title.substr(end + 1));
  }
  std::vector<size_t> widths;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    widths.push_back(std::max(upper[c].size(), lower[c].size()));
    for (const auto& row : table.rows) widths[c] = std::max(widths[c], row[c].size());
  }
  const auto line = [&](const std::vector<std::string>& cells) {
    std::string text;
    for (size_t c = 0; c < cells.size(); ++c) {
      const auto& cell = c > 0 && cells[c].empty() ? "-" : cells[c];
      text += (c > 0 ? "  " : "") + padded(cell, widths[c], /*right=*/c > 0);
    }
    return text.substr(0, text.find_last_not_of(' ') + 1) + "\n";
  };
  size_t total = 2 * (widths.size() - 1);
  for (const size_t width : widths) total += width;
  std::string text = line(upper) + line(lower) + std::string(total, '-') + "\n";
  for (const auto& row : table.rows) text += line(row);
  return text;
}

// Cells in percent, and their mean where no column is without a score. A row without any is left
// out.
template <class Score>
void add_task_row(SummaryTable& table, const std::string& label, const Summary& summary,
                  const Score& score) {
  std::vector<std::string> row = {label};
  double sum = 0;
  size_t known = 0;
  for (const auto& column : summary.task_columns) {
    const std::optional<double> value = score(column);
    row.push_back(fixed(value, 2, 100.0, ""));
    sum += value.value_or(0);
    known += value ? 1 : 0;
  }
  if (known == 0) return;
  const size_t columns = summary.task_columns.size();
  std::optional<double> mean;
  if (known == columns) mean = sum / static_cast<double>(columns);
  if (columns > 1) row.push_back(fixed(mean, 2, 100.0, ""));
  table.rows.push_back(std::move(row));
}

}  // namespace

SummaryTable summary_cells(const Summary& summary) {
  SummaryTable table;
  table.columns.push_back("model");
  for (const auto& column : columns()) table.columns.push_back(column.title);
  for (const auto& [stage, label] : kRows) {
    const auto found = summary.stages.find(stage);
    if (found == summary.stages.end()) continue;
    std::vector<std::string> row = {label};
    const bool is_base = std::string_view(stage) == "base";
    for (const auto& column : columns()) {
      row.push_back(column.cell(summary, found->second, is_base));
    }
    table.rows.push_back(std::move(row));
  }
  drop_empty_columns(table);
  return table;
}

SummaryTable task_cells(const Summary& summary) {
  SummaryTable table;
  table.columns.push_back("model");
  for (const auto& column : summary.task_columns) {
    table.columns.push_back(column.task + "\n" + column.metric);
  }
  if (summary.task_columns.size() > 1) table.columns.push_back("mean");
  const auto add_scores = [&](const std::string& label, const StageScores& scores) {
    add_task_row(table, label, summary, [&](const TaskColumn& column) {
      const auto found = scores.tasks.find(column.task + "," + column.metric);
      return found == scores.tasks.end() ? std::nullopt : std::optional<double>(found->second);
    });
  };
  const auto add_stage = [&](const Row& row) {
    const auto found = summary.stages.find(row.stage);
    if (found != summary.stages.end()) add_scores(row.label, found->second);
  };
  add_stage(kRows[0]);
  add_stage(kRows[1]);
  for (const auto& [kind, stages] : summary.students) {
    const auto found = stages.find("ild");
    if (found != stages.end()) add_scores("all " + kind + ", after ILD", found->second);
  }
  for (size_t i = 2; i < std::size(kRows); ++i) add_stage(kRows[i]);
  if (table.rows.empty()) return table;
  add_task_row(table, "published base", summary,
               [](const TaskColumn& column) { return column.published_base; });
  add_task_row(table, "published hybrid", summary,
               [](const TaskColumn& column) { return column.published_hybrid; });
  return table;
}

std::string summary_table(const Summary& summary) {
  const auto tasks = task_cells(summary);
  return table_text(summary_cells(summary)) + (tasks.rows.empty() ? "" : "\n" + table_text(tasks));
}

}  // namespace zebra
