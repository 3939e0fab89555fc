#include "train/report.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/file.h"
#include "base/json.h"
#include "train/report_metrics.h"
#include "train/report_style.h"
#include "train/report_svg.h"
#include "train/summary.h"
#include "zebra/error.h"

namespace zebra {

namespace {

std::string heading(const std::string& title, const std::string& about) {
  auto out = str("<h2>", escape_html(title), "</h2>\n");
  if (!about.empty()) out += str("<p class=\"about\">", escape_html(about), "</p>\n");
  return out;
}

// Cells are text, never HTML; a line end in a title breaks the line.
std::string table_html(const SummaryTable& table, const char* css_class) {
  const auto cell = [](const char* tag, const std::string& text) {
    auto safe = escape_html(text);
    if (const auto end = safe.find('\n'); end != std::string::npos) safe.replace(end, 1, "<br>");
    return str("<", tag, ">", safe.empty() ? "–" : safe, "</", tag, ">");
  };
  auto out = str("<div class=\"scroll\"><table class=\"", css_class, "\"><thead><tr>");
  for (const auto& title : table.columns) out += cell("th", title);
  out += "</tr></thead><tbody>\n";
  for (const auto& row : table.rows) {
    out += "<tr>";
    for (const auto& text : row) out += cell("td", text);
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string plural(int64_t count, const std::string& word) {
  return str(count, " ", word, count == 1 ? "" : "s");
}

std::string percent(double share, int decimals) {
  char text[32];
  std::snprintf(text, sizeof text, "%.*f %%", decimals, 100 * share);
  return text;
}

// ---- head ---------------------------------------------------------------------------------------

std::string subtitle(const Summary& summary) {
  std::vector<std::string> parts;
  if (summary.parameters) {
    parts.push_back(short_number(static_cast<double>(*summary.parameters)) + " parameters");
  }
  if (!summary.layers.empty()) {
    parts.push_back(plural(static_cast<int64_t>(summary.layers.size()), "layer"));
  }
  for (const char* kind : {"attention", "mla", "mamba2"}) {
    const auto count = std::count(summary.layers.begin(), summary.layers.end(), kind);
    if (count > 0) parts.push_back(str(count, " ", kind));
  }
  if (summary.seed) parts.push_back(str("seed ", *summary.seed));
  std::string out;
  for (const auto& part : parts) out += (out.empty() ? "" : " · ") + part;
  return out;
}

std::string fact(const std::string& value, const std::string& meaning) {
  return str("<div class=\"fact\"><b>", escape_html(value), "</b><span>", escape_html(meaning),
             "</span></div>\n");
}

// The last model of the run that was measured, behind the base.
const StageScores* final_scores(const Summary& summary) {
  for (const char* stage : {"dpo", "distill", "composed", "init"}) {
    const auto found = summary.stages.find(stage);
    if (found != summary.stages.end()) return &found->second;
  }
  return nullptr;
}

std::string facts(const Summary& summary) {
  std::string out;
  const auto base = summary.stages.find("base");
  const auto* last = final_scores(summary);
  if (last != nullptr && last->bits_per_byte && base != summary.stages.end() &&
      base->second.bits_per_byte) {
    char change[48];
    std::snprintf(change, sizeof change, "%.3f → %.3f", *base->second.bits_per_byte,
                  *last->bits_per_byte);
    out += fact(change, "bits per byte, base → hybrid");
  }
  if (last != nullptr && last->top1_agreement) {
    out += fact(percent(*last->top1_agreement, 1), "same next token as the teacher");
  }
  if (summary.cache.kv_share) {
    out += fact(percent(*summary.cache.kv_share, 2), "of the base's KV cache");
  }
  const auto& speed = summary.speed;
  if (speed.base_decode_tokens_per_second && speed.hybrid_decode_tokens_per_second &&
      *speed.base_decode_tokens_per_second > 0) {
    char ratio[32];
    std::snprintf(ratio, sizeof ratio, "%.2f ×",
                  *speed.hybrid_decode_tokens_per_second / *speed.base_decode_tokens_per_second);
    out += fact(ratio, "the base's decode speed");
  }
  return out.empty() ? "" : "<div class=\"facts\">\n" + out + "</div>\n";
}

// ---- results ------------------------------------------------------------------------------------

std::string results_section(const Summary& summary) {
  const auto table = summary_cells(summary);
  if (table.rows.empty()) return "";
  return heading("Results",
                 "Every model on the same held-out text. Initialised: the hybrid of converted "
                 "layers before any training; composed: of the layers trained one by one.") +
         table_html(table, "full");
}

std::string tasks_section(const Summary& summary) {
  const auto table = task_cells(summary);
  if (table.rows.empty()) return "";
  return heading("Tasks",
                 "Scores of lm-evaluation-harness's tasks in percent, and what is published. "
                 "tasks/ has every number with its standard error.") +
         table_html(table, "full");
}

std::string students_section(const Summary& summary) {
  SummaryTable table;
  table.columns = {"student", "nats per\ntoken", "KL to\nteacher", "top-1\nagreement"};
  const auto cell = [](const std::optional<double>& value) {
    char text[32] = "";
    if (value) std::snprintf(text, sizeof text, "%.4f", *value);
    return std::string(text);
  };
  for (auto kind = summary.students.rbegin(); kind != summary.students.rend(); ++kind) {
    for (const auto& [stage, label] :
         {std::pair{"init", ", initialised"}, {"ild", ", after ILD"}}) {
      const auto found = kind->second.find(stage);
      if (found == kind->second.end()) continue;
      const auto& scores = found->second;
      table.rows.push_back({"all " + kind->first + label, cell(scores.nats_per_token),
                            cell(scores.kl_per_token),
                            scores.top1_agreement ? percent(*scores.top1_agreement, 1) : ""});
    }
  }
  if (table.rows.empty()) return "";
  return heading("Pure students",
                 "Models whose layers are all of one kind; the hybrid takes its "
                 "layers from them.") +
         table_html(table, "");
}

std::string layers_section(const Summary& summary) {
  if (summary.layers.empty()) return "";
  return heading("Layers", "") + layer_map(summary.layers);
}

// Bytes of a whole sequence, states included, which the share of the KV cache leaves out.
std::string sequence_table(const CacheSummary& cache) {
  if (!cache.bytes_per_sequence || !cache.max_tokens) return "";
  std::vector<int64_t> lengths;
  for (int64_t tokens = 256; tokens < *cache.max_tokens; tokens *= 8) lengths.push_back(tokens);
  lengths.push_back(*cache.max_tokens);
  SummaryTable table;
  table.columns = {"tokens of\na sequence", "base,\nbytes", "hybrid,\nbytes", "of that\nstates",
                   "share"};
  for (const int64_t tokens : lengths) {
    const auto base = static_cast<double>(*cache.base_bytes_per_token * tokens);
    const auto state = static_cast<double>(*cache.bytes_per_sequence);
    const double hybrid = static_cast<double>(*cache.bytes_per_token * tokens) + state;
    table.rows.push_back({std::to_string(tokens), short_number(base), short_number(hybrid),
                          short_number(state), percent(hybrid / base, 2)});
  }
  return table_html(table, "");
}

std::string cache_section(const Summary& summary) {
  const auto& cache = summary.cache;
  if (!cache.bytes_per_token || !cache.base_bytes_per_token) return "";
  const auto base = static_cast<double>(*cache.base_bytes_per_token);
  const auto hybrid = static_cast<double>(*cache.bytes_per_token);
  const auto text = [](double bytes) { return short_number(bytes) + " bytes a token"; };
  auto mine = text(hybrid);
  if (cache.kv_share) mine += ", " + percent(*cache.kv_share, 2);
  std::string about = "Bytes that a cache keeps for every token of a sequence, in bf16";
  if (cache.bytes_per_sequence && *cache.bytes_per_sequence > 0) {
    about += str("; the hybrid also keeps ",
                 short_number(static_cast<double>(*cache.bytes_per_sequence)),
                 " bytes of states (SSM states in fp32), whatever the length");
  }
  return heading("Cache", about + ".") + "<div class=\"lone\">" +
         bar_chart({{.label = "base", .text = text(base), .css_class = "attention", .value = base},
                    {.label = "hybrid", .text = mine, .css_class = "mla", .value = hybrid}}) +
         "</div>\n" + sequence_table(cache);
}

// ---- training -----------------------------------------------------------------------------------

std::string stage_title(const std::string& stage) {
  if (stage == "pretrain") return "Pretraining";
  if (stage == "ild") return "Layer by layer (ILD)";
  if (stage == "distill") return "End-to-end distillation";
  if (stage == "dpo") return "Preference optimisation (DPO)";
  return stage;
}

std::string metric_title(std::string key) {
  if (key == "grad_norm") return "gradient norm";
  if (key == "kl_per_token") return "KL per token";
  if (key == "ce") return "cross-entropy";
  if (key == "top1_agreement") return "top-1 agreement";
  std::replace(key.begin(), key.end(), '_', ' ');
  return key;
}

bool grows_by_factors(const std::string& key) {
  return key.find("loss") != std::string::npos || key == "grad_norm" || key == "kl_per_token" ||
         key == "ce";
}

// What all variants share, such as the learning rate, is drawn once.
std::vector<Series> series_of(const StageCurves& stage, const std::string& key) {
  std::vector<Series> all;
  const auto& of_key = stage.curves.at(key);
  for (const auto& variant : stage.variants) {
    const auto found = of_key.find(variant);
    if (found != of_key.end()) all.push_back({variant, found->second});
  }
  const auto same_as_first = [&](const Series& one) {
    return std::equal(one.points.begin(), one.points.end(), all[0].points.begin(),
                      all[0].points.end(),
                      [](const Point& a, const Point& b) { return a.x == b.x && a.y == b.y; });
  };
  if (all.size() > 1 && std::all_of(all.begin() + 1, all.end(), same_as_first)) {
    return {{"", all[0].points}};
  }
  return all;
}

std::string training_section(const std::vector<StageCurves>& stages) {
  if (stages.empty()) return "";
  auto out = heading("Training",
                     "Lines are means of neighbouring steps, bands go from the least "
                     "to the greatest value; the latest mean stands at the top right.");
  for (const auto& stage : stages) {
    out += str("<h3>", escape_html(stage_title(stage.stage)), "</h3>\n<div class=\"charts\">\n");
    for (const auto& key : stage.keys) {
      out += line_chart({.title = metric_title(key),
                         .x_label = "step",
                         .series = series_of(stage, key),
                         .may_be_logarithmic = grows_by_factors(key),
                         .shows_latest = key != "learning_rate",
                         .wide = key == "loss"});
    }
    out += "</div>\n";
  }
  return out;
}

std::string smart_section(const Summary& summary) {
  const auto& smart = summary.smart;
  if (smart.sensitivity.empty()) return "";
  std::vector<Bar> bars;
  for (size_t i = 0; i < smart.sensitivity.size(); ++i) {
    const auto layer = static_cast<int64_t>(i);
    const bool chosen =
        std::find(smart.chosen.begin(), smart.chosen.end(), layer) != smart.chosen.end();
    bars.push_back({std::to_string(i), smart.sensitivity[i], chosen});
  }
  return heading("Choice of MLA layers (SMART)",
                 "How far the KL divergence from the base falls when one layer of the all-Mamba2 "
                 "student becomes MLA. Layers that became MLA are coloured.") +
         "<div class=\"lone\">" + column_chart("sensitivity by layer", bars) + "</div>\n";
}

std::string time_section(const Summary& summary) {
  const auto& speed = summary.speed;
  if (speed.seconds.empty()) return "";
  std::vector<std::string> order = {"pretrain", "init",    "ild", "smart",
                                    "compose",  "distill", "dpo", "eval"};
  for (const auto& [stage, seconds] : speed.seconds) {
    if (std::find(order.begin(), order.end(), stage) == order.end()) order.push_back(stage);
  }
  SummaryTable table;
  table.columns = {"stage", "seconds", "tokens/s"};
  double total = 0;
  const auto rate = [](const std::optional<double>& value) {
    return value ? short_number(*value) : std::string();
  };
  for (const auto& stage : order) {
    const auto found = speed.seconds.find(stage);
    if (found == speed.seconds.end()) continue;
    total += found->second;
    table.rows.push_back({stage, short_number(found->second),
                          stage == "ild"       ? rate(speed.ild_tokens_per_second)
                          : stage == "distill" ? rate(speed.distill_tokens_per_second)
                                               : ""});
  }
  table.rows.push_back({"together", short_number(total), ""});
  return heading("Time", "") + table_html(table, "");
}

// ---- conversion ---------------------------------------------------------------------------------

std::string conversion_cell(const json& row, const std::string& key) {
  const auto found = row.find(key);
  if (found == row.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_number()) return found->dump();
  if (key.ends_with("_energy")) return percent(found->get<double>(), 2);
  char text[48];
  std::snprintf(text, sizeof text, key.ends_with("_error") ? "%.3f" : "%.0f", found->get<double>());
  return text;
}

// One table for each kind of layer, with the columns that it has.
std::string conversion_table(const std::vector<json>& layers, const std::string& kind) {
  const std::pair<const char*, const char*> columns[] = {{"layer", "layer"},
                                                         {"q_rank", "query\nrank"},
                                                         {"kv_rank", "key/value\nrank"},
                                                         {"q_energy", "query\nenergy"},
                                                         {"kv_energy", "key/value\nenergy"},
                                                         {"q_error", "query\nerror"},
                                                         {"kv_error", "key/value\nerror"},
                                                         {"output_error", "output\nerror"}};
  SummaryTable table;
  std::vector<std::string> keys;
  for (const auto& column : columns) {
    const bool used = std::any_of(layers.begin(), layers.end(), [&](const auto& row) {
      return row.value("kind", "") == kind && row.contains(column.first);
    });
    if (!used) continue;
    keys.emplace_back(column.first);
    table.columns.emplace_back(column.second);
  }
  for (const auto& row : layers) {
    if (row.value("kind", "") != kind) continue;
    std::vector<std::string> cells;
    for (const auto& key : keys) cells.push_back(conversion_cell(row, key));
    table.rows.push_back(std::move(cells));
  }
  return str("<div><h3>", escape_html(kind), "</h3>\n", table_html(table, ""), "</div>\n");
}

std::string conversion_section(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return "";
  const auto layers = require<std::vector<json>>(read_json(path), "layers", path);
  std::vector<std::string> kinds;
  for (const auto& row : layers) {
    const auto kind = require<std::string>(row, "kind", path);
    if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
  }
  if (kinds.empty()) return "";
  auto out = heading("Conversion",
                     "What the initialisation kept of the base's attention, before any training. "
                     "Errors are relative; the output error is that of the layer's mixer on "
                     "calibration text.");
  out += "<div class=\"side\">\n";
  for (const auto& kind : kinds) out += conversion_table(layers, kind);
  return out + "</div>\n";
}

std::string recipe_section(const std::filesystem::path& path) {
  if (!std::filesystem::exists(path)) return "";
  return heading("Recipe", "") +
         "<details><summary>The resolved recipe, every default written out</summary>\n<pre>" +
         escape_html(read_file(path)) + "</pre></details>\n";
}

}  // namespace

void write_report(const std::filesystem::path& run_folder) {
  const auto summary = read_summary(run_folder);
  const auto name = escape_html(summary.name.value_or(run_folder.filename().string()));
  auto page =
      str("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
          "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
          "<title>",
          name, "</title>\n<style>", kReportStyle, "</style>\n</head>\n<body>\n");
  page += str("<h1>", name, "</h1>\n<p class=\"about\">", escape_html(subtitle(summary)), "</p>\n");
  page += facts(summary) + results_section(summary) + tasks_section(summary);
  page += layers_section(summary);
  page += cache_section(summary) + students_section(summary);
  page += training_section(read_metrics(run_folder / "metrics.jsonl"));
  page += smart_section(summary) + conversion_section(run_folder / "init_report.json");
  page += time_section(summary) + recipe_section(run_folder / "recipe.resolved.yaml");
  write_file_atomic(run_folder / "report.html", page + "</body>\n</html>\n");
}

}  // namespace zebra
