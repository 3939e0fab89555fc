// summary.json, the final table and report.html.
#include "train/report.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "support/testing.h"
#include "train/report_metrics.h"
#include "train/report_svg.h"
#include "train/summary.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace {

// A run folder that goes away with its object.
class RunSample {
 public:
  RunSample() {
    std::string name = (std::filesystem::temp_directory_path() / "zebra-report-XXXXXX").string();
    TORCH_CHECK(mkdtemp(name.data()) != nullptr, "no folder for a test");
    path_ = name;
  }
  ~RunSample() { std::filesystem::remove_all(path_); }
  RunSample(const RunSample&) = delete;
  RunSample& operator=(const RunSample&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void write(const std::string& name, const std::string& text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
  }
  std::string page() const {
    write_report(path_);
    return read_file(path_ / "report.html");
  }

 private:
  std::filesystem::path path_;
};

Summary full_summary() {
  Summary summary;
  summary.name = "sample <b>&\"run\"";
  summary.seed = 7;
  summary.parameters = 731904;
  summary.layers = {"mla", "mamba2", "attention"};
  summary.stages["base"] = {.nats_per_token = 1.8432,
                            .bits_per_byte = 0.8125,
                            .kl_per_token = 0.0,
                            .top1_agreement = 1.0,
                            .accuracy = 0.92,
                            .accuracy_norm = 0.91,
                            .preference_accuracy = 0.61,
                            .preference_margin = -0.5};
  summary.stages["init"].nats_per_token = 6.9;
  summary.stages["composed"].nats_per_token = 2.21;
  summary.stages["distill"] = {.nats_per_token = 1.932, .top1_agreement = 0.791};
  summary.stages["dpo"].preference_accuracy = 0.74;
  summary.students["mla"]["init"].kl_per_token = 3.86;
  summary.students["mamba2"]["ild"] = {.nats_per_token = 2.2, .kl_per_token = 0.41};
  summary.cache = {.kv_values_per_token = 24,
                   .kv_share = 0.0375,
                   .state_values_per_sequence = 12288,
                   .base_kv_values_per_token = 640,
                   .bytes_per_token = 48,
                   .bytes_per_sequence = 40960,
                   .base_bytes_per_token = 1280,
                   .max_tokens = 4096};
  summary.speed.base_decode_tokens_per_second = 2211.4;
  summary.speed.hybrid_decode_tokens_per_second = 2980;
  summary.speed.seconds = {{"ild", 75.5}, {"distill", 231}};
  summary.smart = {.sensitivity = {0.3, -0.01, 0.1}, .chosen = {0}};
  return summary;
}

std::string metric_line(const std::string& stage, int step, double loss) {
  return "{\"stage\": \"" + stage + "\", \"step\": " + std::to_string(step) +
         ", \"tokens\": " + std::to_string(step * 64) + ", \"loss\": " + std::to_string(loss) +
         ", \"tokens_per_second\": 1000, \"grad_norm\": 1.5, \"learning_rate\": 0.004}\n";
}

std::string sample_metrics() {
  std::string lines;
  for (const char* stage : {"pretrain", "ild.mla", "ild.mamba2", "distill", "dpo"}) {
    const double first = stage == std::string("ild.mla") ? 100.0 : 50.0;
    for (int step = 1; step <= 400; ++step) lines += metric_line(stage, step, first / step);
  }
  return lines;
}

int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = 0; (at = text.find(part, at)) != std::string::npos; at += part.size()) ++found;
  return found;
}

}  // namespace

TEST_CASE("summary: what is written is read again, and written the same") {
  const RunSample run;
  write_summary(run.path(), full_summary());
  const auto text = read_file(summary_path(run.path()));
  const auto again = read_summary(run.path());
  CHECK(again.name == full_summary().name);
  CHECK(again.stages.at("base").preference_margin == -0.5);
  CHECK(again.smart.sensitivity == std::vector<double>{0.3, -0.01, 0.1});
  write_summary(run.path(), again);
  CHECK(read_file(summary_path(run.path())) == text);
}

TEST_CASE("summary: stands under the promised keys, and what was not measured is absent") {
  const RunSample run;
  write_summary(run.path(), full_summary());
  const auto file = nlohmann::json::parse(read_file(summary_path(run.path())));
  CHECK(file["stages"]["base"]["nats_per_token"] == 1.8432);
  CHECK(file["stages"]["base"]["kl_per_token"] == 0.0);
  CHECK(file["stages"]["distill"]["top1_agreement"] == 0.791);
  CHECK(file["stages"]["distill"].size() == 2);
  CHECK(file["students"]["mamba2"]["ild"]["kl_per_token"] == 0.41);
  CHECK(file["cache"]["kv_share"] == 0.0375);
  CHECK(file["cache"]["base_kv_values_per_token"] == 640);
  CHECK(file["speed"]["seconds"]["ild"] == 75.5);
  CHECK_FALSE(file["speed"].contains("ild_tokens_per_second"));
  CHECK(file["smart"]["chosen"] == std::vector<int>{0});
  CHECK(file["layers"].size() == 3);
  CHECK(file["seed"] == 7);
  CHECK(file["parameters"] == 731904);

  write_summary(run.path(), {});
  CHECK(read_file(summary_path(run.path())) == "{}\n");
}

TEST_CASE("summary: a value that is not a number stays one") {
  const RunSample run;
  Summary summary;
  summary.stages["dpo"].nats_per_token = std::numeric_limits<double>::quiet_NaN();
  write_summary(run.path(), summary);
  const auto again = read_summary(run.path());
  REQUIRE(again.stages.at("dpo").nats_per_token);
  CHECK(std::isnan(*again.stages.at("dpo").nats_per_token));
}

TEST_CASE("summary: a missing file is empty, a damaged one is refused with file and key") {
  const RunSample run;
  CHECK(read_summary(run.path()).stages.empty());
  run.write("summary.json", "{\"stages\": {\"base\": {\"nats_per_token\": \"high\"}}}");
  CHECK_THROWS_WITH(read_summary(run.path()), ContainsSubstring("summary.json") &&
                                                  ContainsSubstring("stages.base.nats_per_token"));
  run.write("summary.json", "{\"stages\": [");
  CHECK_THROWS_AS(read_summary(run.path()), ConfigError);
}

TEST_CASE("summary: merging adds stages and replaces values, and loses nothing") {
  Summary newer;
  newer.stages["base"].accuracy = 0.5;
  newer.stages["extra"].nats_per_token = 3;
  newer.speed.seconds["dpo"] = 20;
  newer.seed = 8;
  const auto merged = merge_summaries(full_summary(), newer);
  CHECK(merged.stages.at("base").accuracy == 0.5);
  CHECK(merged.stages.at("base").nats_per_token == 1.8432);
  CHECK(merged.stages.at("extra").nats_per_token == 3);
  CHECK(merged.stages.at("distill").nats_per_token == 1.932);
  CHECK(merged.speed.seconds ==
        std::map<std::string, double>{{"ild", 75.5}, {"distill", 231}, {"dpo", 20}});
  CHECK(merged.seed == 8);
  CHECK(merged.name == full_summary().name);
  CHECK(merged.layers == full_summary().layers);
  CHECK(merged.cache.kv_values_per_token == 24);
}

TEST_CASE("summary_table: a row a model in the order of the run, a column a measure that exists") {
  const auto table = summary_cells(full_summary());
  std::vector<std::string> models;
  for (const auto& row : table.rows) models.push_back(row.at(0));
  CHECK(models ==
        std::vector<std::string>{"base", "initialised", "composed", "distilled", "aligned"});
  CHECK(table.columns.size() == 12);
  CHECK(table.rows[0] == std::vector<std::string>{"base", "0.8125", "1.8432", "0.0000", "100.0 %",
                                                  "92.0 %", "91.0 %", "61.0 %", "1,280", "100.0 %",
                                                  "0", "2,211"});
  CHECK(table.rows[4] == std::vector<std::string>{"aligned", "", "", "", "", "", "", "74.0 %", "48",
                                                  "3.75 %", "40,960", "2,980"});

  Summary one;
  one.stages["base"].nats_per_token = 2;
  CHECK(summary_cells(one).columns.size() == 2);
}

TEST_CASE("summary_table: lines are aligned, and what was not measured is a dash") {
  const auto text = summary_table(full_summary());
  std::vector<std::string> lines;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos;
       begin = end + 1) {
    lines.push_back(text.substr(begin, end - begin));
  }
  REQUIRE(lines.size() == 2 + 1 + 5);
  for (const auto& line : lines) CHECK(line.size() == lines[2].size());
  CHECK(count(lines[7], " -") == 6);
  CHECK(text.back() == '\n');
}

TEST_CASE("summary_table: tasks have a table of their own, with the published scores last") {
  auto summary = full_summary();
  summary.task_columns = {
      {.task = "piqa", .metric = "acc_norm", .published_base = 0.7432, .published_hybrid = 0.7296},
      {.task = "mmlu", .metric = "acc", .published_base = 0.4605, .published_hybrid = {}}};
  summary.stages["base"].tasks = {{"piqa,acc_norm", 0.75}, {"mmlu,acc", 0.25}, {"piqa,acc", 0.1}};
  summary.stages["dpo"].tasks = {{"piqa,acc_norm", 0.5}};
  summary.students["mla"]["ild"].tasks = {{"piqa,acc_norm", 0.25}, {"mmlu,acc", 0.5}};
  const auto table = task_cells(summary);
  CHECK(table.columns == std::vector<std::string>{"model", "piqa\nacc_norm", "mmlu\nacc", "mean"});
  using Row = std::vector<std::string>;
  CHECK(table.rows == std::vector<Row>{{"base", "75.00", "25.00", "50.00"},
                                       {"all mla, after ILD", "25.00", "50.00", "37.50"},
                                       {"aligned", "50.00", "", ""},
                                       {"published base", "74.32", "46.05", "60.19"},
                                       {"published hybrid", "72.96", "", ""}});
  CHECK_THAT(summary_table(summary), ContainsSubstring("published hybrid"));
  CHECK(task_cells(full_summary()).rows.empty());
}

TEST_CASE("report: has every part of a run") {
  const RunSample run;
  write_summary(run.path(), full_summary());
  run.write("metrics.jsonl", sample_metrics());
  run.write("recipe.resolved.yaml", "name: sample\nbase: {model: models/<x>}\n");
  run.write("init_report.json",
            "{\"layers\": [{\"layer\": 0, \"kind\": \"mla\", \"q_rank\": 40, \"kv_rank\": 8, "
            "\"q_energy\": 0.9712, \"kv_energy\": 0.63, \"q_error\": 0.17, \"kv_error\": 0.6, "
            "\"output_error\": 0.42}, {\"layer\": 0, \"kind\": \"mamba2\", "
            "\"output_error\": 1.25}]}");
  const auto page = run.page();
  for (const char* part : {"Results",
                           "Layers",
                           "Cache",
                           "Pure students",
                           "Pretraining",
                           "Layer by layer (ILD)",
                           "End-to-end distillation",
                           "Preference optimisation (DPO)",
                           "SMART",
                           "Conversion",
                           "Time",
                           "Recipe",
                           "initialised",
                           "composed",
                           "distilled",
                           "aligned",
                           "gradient norm",
                           "learning rate",
                           "97.12 %",
                           "1.250",
                           "3.75 %",
                           "prefers-color-scheme: dark"}) {
    CHECK_THAT(page, ContainsSubstring(part));
  }
  CHECK(count(page, "<svg") == count(page, "</svg>"));
  CHECK(count(page, "<svg") == 4 * 4 + 2);  // four stages of four curves, cache, SMART
  CHECK(count(page, "class=\"line ") ==
        4 * 4 + 1);                   // ILD has two losses; the rest is the same twice
  CHECK(count(page, "<table") == 6);  // results, layers, sequences, conversion (2), time
}

TEST_CASE("report: a sequence's memory counts the states too") {
  const RunSample run;
  write_summary(run.path(), full_summary());
  const auto page = run.page();
  // 2,048 tokens: 48 * 2048 + 40960 bytes of 1280 * 2048.
  CHECK_THAT(page, ContainsSubstring("<td>2048</td><td>2.62M</td><td>139k</td><td>41k</td>"));
  CHECK_THAT(page, ContainsSubstring("<td>5.31 %</td>"));
  CHECK_THAT(page, ContainsSubstring("<td>4096</td>"));  // the model's longest
  CHECK_THAT(page, !ContainsSubstring("<td>16384</td>"));
  CHECK_THAT(page, ContainsSubstring("1280 bytes a token"));
  CHECK_THAT(page, ContainsSubstring("in bf16; the hybrid also keeps 41k bytes of states (SSM"));
}

TEST_CASE("report: is one page without scripts or other files, and every text is escaped") {
  const RunSample run;
  auto summary = full_summary();
  summary.layers = {"<script>alert(1)</script>"};
  write_summary(run.path(), summary);
  run.write("metrics.jsonl", metric_line("<img src=x>", 1, 1) + metric_line("<img src=x>", 2, 2));
  run.write("recipe.resolved.yaml", "name: \"</pre><script>\"\n");
  const auto page = run.page();
  for (const char* part : {"<script", "<img", "http://", "https://", "<link", "@import", "url("}) {
    CHECK(count(page, part) == 0);
  }
  CHECK_THAT(page, ContainsSubstring("sample &lt;b&gt;&amp;&quot;run&quot;"));
  CHECK_THAT(page, ContainsSubstring("&lt;/pre&gt;&lt;script&gt;"));
  CHECK_THAT(page, ContainsSubstring("&lt;img src=x&gt;"));
}

TEST_CASE("report: of an empty run folder is a page with a title") {
  const RunSample run;
  const auto page = run.page();
  CHECK_THAT(page, ContainsSubstring("<h1>zebra-report-"));
  CHECK(count(page, "<svg") + count(page, "<table") == 0);
}

TEST_CASE("read_metrics: variants of a stage belong together, a cut last line is left out") {
  const RunSample run;
  run.write("metrics.jsonl",
            metric_line("ild.mla", 1, 4) + metric_line("ild.mamba2", 1, 3) +
                "{\"stage\": \"distill\", \"step\": 5, \"loss\": null, \"note\": \"x\", "
                "\"ce\": 2}\n{\"stage\": \"dis");
  const auto stages = read_metrics(run.path() / "metrics.jsonl");
  REQUIRE(stages.size() == 2);
  CHECK(stages[0].stage == "ild");
  CHECK(stages[0].variants == std::vector<std::string>{"mla", "mamba2"});
  CHECK(stages[0].keys ==
        std::vector<std::string>{"loss", "learning_rate", "grad_norm", "tokens_per_second"});
  CHECK(stages[0].curves.at("loss").at("mamba2").at(0).y == 3);
  CHECK(stages[1].keys == std::vector<std::string>{"ce"});

  run.write("metrics.jsonl", metric_line("dpo", 1, 1) + "nonsense\n" + metric_line("dpo", 2, 1));
  CHECK_THROWS_WITH(read_metrics(run.path() / "metrics.jsonl"),
                    ContainsSubstring("metrics.jsonl line 2"));
}

TEST_CASE("charts: constants, single points and negative values have a picture") {
  const auto no_broken_number = [](const std::string& svg) {
    CHECK_FALSE(svg.empty());
    CHECK(count(svg, "nan") + count(svg, "inf") == 0);
  };
  no_broken_number(line_chart({.title = "t", .x_label = "step", .series = {{"", {{1, 5}}}}}));
  no_broken_number(
      line_chart({.title = "t", .x_label = "step", .series = {{"", {{1, 0}, {2, 0}}}}}));
  no_broken_number(line_chart({.title = "t",
                               .x_label = "step",
                               .series = {{"a", {{1, 1e-9}, {2, 1e9}}}, {"b", {}}},
                               .may_be_logarithmic = true}));
  no_broken_number(
      line_chart({.title = "t", .x_label = "s", .series = {{"", {{0, -3}, {9, -1}}}}}));
  no_broken_number(column_chart("t", {{"0", 0, false}, {"1", 0, true}}));
  no_broken_number(column_chart("t", {{"0", -2, false}, {"1", -1, true}}));
  CHECK(line_chart({.title = "t", .x_label = "step", .series = {}}).empty());
  CHECK(bar_chart({{.label = "a", .text = "0", .css_class = "mla", .value = 0}}).empty());
}

TEST_CASE("short_number: labels stay short") {
  CHECK(short_number(0) == "0");
  CHECK(short_number(2e-5) == "2e-5");
  CHECK(short_number(1.25e-12) == "1.2e-12");
  CHECK(short_number(0.0042) == "0.0042");
  CHECK(short_number(-1.2345) == "-1.23");
  CHECK(short_number(1234.5) == "1234");
  CHECK(short_number(12400) == "12.4k");
  CHECK(short_number(3.1e6) == "3.1M");
  CHECK(short_number(8.03e9) == "8.03G");
}

}  // namespace zebra::testing
