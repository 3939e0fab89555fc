#include "train/metrics.h"

#include "support/capture.h"
#include "support/temp_dir.h"
#include "support/testing.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>
#include <sstream>

#include "train/job.h"
#include "train/step_recorder.h"
#include "zebra/error.h"

using zebra::MetricsWriter;
using zebra::testing::ContainsSubstring;
using zebra::testing::TempDir;
using zebra::testing::text_of;
namespace fs = std::filesystem;

namespace {

void append(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary | std::ios::app) << text;
}

}  // namespace

TEST_CASE("metrics: one JSON object a line with nine digits, at once in the file") {
  const TempDir folder;
  MetricsWriter metrics(folder / "metrics.jsonl");
  metrics.write("ild.mla", 1, {{"loss", 1.0 / 3}, {"tokens", 123456789012.0}});
  CHECK(text_of(folder / "metrics.jsonl") ==
        "{\"stage\": \"ild.mla\", \"step\": 1, \"loss\": 0.333333333, \"tokens\": 123456789012}\n");
  metrics.write("a\"b", 2, {{"rate", 1.2345678949e-7}, {"zero", -0.0}, {"minus", -2.5}});
  const auto line =
      text_of(folder / "metrics.jsonl").substr(text_of(folder / "metrics.jsonl").find('\n') + 1);
  CHECK(line ==
        "{\"stage\": \"a\\\"b\", \"step\": 2, \"rate\": 1.23456789e-07, \"zero\": 0, "
        "\"minus\": -2.5}\n");
  CHECK(nlohmann::json::parse(line).at("stage") == "a\"b");
}

TEST_CASE("metrics: what is not finite is null") {
  const TempDir folder;
  MetricsWriter metrics(folder / "metrics.jsonl");
  metrics.write("s", 1, {{"a", std::nan("")}, {"b", std::numeric_limits<double>::infinity()}});
  CHECK(text_of(folder / "metrics.jsonl") ==
        "{\"stage\": \"s\", \"step\": 1, \"a\": null, \"b\": null}\n");
}

TEST_CASE("metrics: a resume drops the lines of its stage beyond the step") {
  const TempDir folder;
  {
    MetricsWriter metrics(folder / "metrics.jsonl");
    for (int64_t step = 1; step <= 4; ++step) metrics.write("ild", step, {{"loss", 0.5}});
    for (int64_t step = 1; step <= 4; ++step) metrics.write("distill", step, {{"loss", 0.25}});
  }
  MetricsWriter metrics(folder / "metrics.jsonl");
  metrics.keep_until("distill", 2);
  metrics.write("distill", 3, {{"loss", 0.125}});
  std::vector<std::pair<std::string, int64_t>> lines;
  std::istringstream in(text_of(folder / "metrics.jsonl"));
  for (std::string line; std::getline(in, line);) {
    const auto json = nlohmann::json::parse(line);
    lines.emplace_back(json.at("stage"), json.at("step"));
  }
  CHECK(lines == std::vector<std::pair<std::string, int64_t>>{{"ild", 1},
                                                              {"ild", 2},
                                                              {"ild", 3},
                                                              {"ild", 4},
                                                              {"distill", 1},
                                                              {"distill", 2},
                                                              {"distill", 3}});
  metrics.keep_until("distill", 0);
  metrics.keep_until("dpo", 0);
  const std::string text = text_of(folder / "metrics.jsonl");
  CHECK(std::count(text.begin(), text.end(), '\n') == 4);
}

TEST_CASE("metrics: a line that a crash cut off is removed when the file is opened") {
  const TempDir folder;
  const std::string whole = "{\"stage\": \"s\", \"step\": 1, \"loss\": 1}\n";
  for (const std::string& torn : {std::string("{\"sta"), std::string(10000, 'x')}) {
    fs::remove(folder / "metrics.jsonl");
    append(folder / "metrics.jsonl", whole + torn);
    MetricsWriter metrics(folder / "metrics.jsonl");
    CHECK(text_of(folder / "metrics.jsonl") == whole);
    metrics.write("s", 2, {});
    CHECK(text_of(folder / "metrics.jsonl") == whole + "{\"stage\": \"s\", \"step\": 2}\n");
  }
  fs::remove(folder / "metrics.jsonl");
  append(folder / "metrics.jsonl", "{\"only");
  const MetricsWriter metrics(folder / "metrics.jsonl");
  CHECK(text_of(folder / "metrics.jsonl").empty());
}

TEST_CASE("metrics: a foreign line is named with its number") {
  const TempDir folder;
  append(folder / "metrics.jsonl", "{\"stage\": \"s\", \"step\": 1}\nhello\n");
  MetricsWriter metrics(folder / "metrics.jsonl");
  CHECK_THROWS_AS(metrics.keep_until("s", 0), zebra::ConfigError);
  CHECK_THROWS_WITH(metrics.keep_until("s", 0), ContainsSubstring("metrics.jsonl:2: expected"));
}

TEST_CASE("metrics: a file that cannot be opened or written is the user's to mend") {
  const TempDir folder;
  CHECK_THROWS_AS(MetricsWriter(folder / "missing" / "m.jsonl"), zebra::ConfigError);
  if (fs::exists("/dev/full")) {
    MetricsWriter metrics("/dev/full");
    CHECK_THROWS_WITH(metrics.write("s", 1, {}), ContainsSubstring("/dev/full"));
  }
}

TEST_CASE("metrics: the most memory held is that of the process, or of the GPU's allocator") {
  constexpr int64_t kBytes = 64 << 20;
  const auto before = zebra::peak_memory_bytes(at::kCPU);
  CHECK(before > 0);
  const auto held = torch::ones({kBytes}, torch::kByte);
  CHECK(zebra::peak_memory_bytes(at::kCPU) >= std::max(before, kBytes));
}

TEST_CASE("metrics: the GPU that is named without a number has an allocator with figures",
          "[cuda]") {
  if (!torch::cuda::is_available()) ZEBRA_SKIP("no GPU");
  constexpr int64_t kBytes = 64 << 20;
  const auto device = zebra::parse_device("cuda");
  const auto held = torch::ones({kBytes}, torch::TensorOptions(torch::kByte).device(device));
  CHECK(held.device() == device);
  CHECK(zebra::peak_memory_bytes(device) >= kBytes);
}
