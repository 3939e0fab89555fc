#include "train/metrics.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr double kExactIntegers = 9007199254740992.0;  // 2^53

std::string number(double value) {
  if (!std::isfinite(value)) return "null";
  char text[40];
  const bool whole = std::abs(value) < kExactIntegers && value == std::trunc(value);
  std::snprintf(text, sizeof text, whole ? "%.0f" : "%.9g", whole ? value + 0.0 : value);
  return text;
}

// Cuts off what follows the last line end.
void remove_torn_line(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) return;
  std::ifstream in(path, std::ios::binary);
  const auto size = static_cast<int64_t>(fs::file_size(path));
  constexpr int64_t kBlock = 4096;
  for (int64_t end = size; end > 0; end -= std::min(end, kBlock)) {
    std::string block(static_cast<size_t>(std::min(end, kBlock)), '\0');
    in.seekg(end - static_cast<int64_t>(block.size()));
    if (!in.read(block.data(), static_cast<int64_t>(block.size()))) {
      throw ConfigError(str(path.string(), ": cannot be read"));
    }
    const auto at = block.rfind('\n');
    if (at == std::string::npos) continue;
    const auto keep = end - static_cast<int64_t>(block.size()) + static_cast<int64_t>(at) + 1;
    if (keep != size) fs::resize_file(path, static_cast<uint64_t>(keep));
    return;
  }
  fs::resize_file(path, 0);
}

bool is_beyond(const std::string& line, const std::string& stage, int64_t step) {
  const auto json = nlohmann::json::parse(line);
  return json.at("stage").get<std::string>() == stage && json.at("step").get<int64_t>() > step;
}

}  // namespace

bool is_machine_measure(const std::string& name) {
  constexpr std::array<const char*, 6> kNames = {
      "tokens_per_second", "step_seconds", "data_seconds", "memory_bytes", "model_tflops", "mfu"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end();
}

MetricsWriter::MetricsWriter(fs::path path) : path_(std::move(path)) {
  remove_torn_line(path_);
  open();
}

void MetricsWriter::open() {
  file_.reset(std::fopen(path_.c_str(), "ae"));
  if (!file_) throw ConfigError(str(path_.string(), ": cannot be opened: ", std::strerror(errno)));
}

void MetricsWriter::keep_until(const std::string& stage, int64_t step) {
  std::ifstream in(path_, std::ios::binary);
  std::string kept, line;
  bool dropped = false;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    try {
      if (is_beyond(line, stage, step)) {
        dropped = true;
        continue;
      }
    } catch (const nlohmann::json::exception&) {
      throw ConfigError(str(path_.string(), ":", number,
                            ": expected a JSON object with stage and step, got '",
                            line.substr(0, 40), "'"));
    }
    kept += line + '\n';
  }
  if (!dropped) return;
  file_.reset();
  write_file_atomic(path_, kept);
  open();
}

void MetricsWriter::write(const std::string& stage, int64_t step,
                          const std::vector<std::pair<std::string, double>>& values) {
  std::string line = str("{\"stage\": ", nlohmann::json(stage).dump(), ", \"step\": ", step);
  for (const auto& [key, value] : values) {
    line += str(", ", nlohmann::json(key).dump(), ": ", number(value));
  }
  append(line + "}\n");
}

void MetricsWriter::write_list(const std::string& stage, int64_t step, const std::string& key,
                               const std::vector<int64_t>& values) {
  append(str("{\"stage\": ", nlohmann::json(stage).dump(), ", \"step\": ", step, ", ",
             nlohmann::json(key).dump(), ": ", nlohmann::json(values).dump(), "}\n"));
}

void MetricsWriter::append(const std::string& line) {
  const bool written = std::fwrite(line.data(), 1, line.size(), file_.get()) == line.size();
  if (!written || std::fflush(file_.get()) != 0) {
    throw ConfigError(str(path_.string(), ": cannot be written: ", std::strerror(errno)));
  }
}

void MetricsWriter::sync() {
  if (::fsync(::fileno(file_.get())) != 0 && errno != EINVAL) {  // EINVAL: a device
    throw ConfigError(str(path_.string(), ": cannot be written: ", std::strerror(errno)));
  }
}

}  // namespace zebra
