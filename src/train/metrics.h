// metrics.jsonl of a run folder: what training measured, one JSON object a line.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace zebra {

// Whether a value tells of the machine and its clock (tokens_per_second, step_seconds,
// data_seconds, memory_bytes, model_tflops, mfu). All others are the same in every run of the same
// recipe.
bool is_machine_measure(const std::string& name);

// Appends lines such as {"stage": "distill", "step": 12, "loss": 0.412345678}. Every line is handed
// to the operating system at once, so that it survives the end of the process.
class MetricsWriter {
 public:
  // Opens or creates the file. A last line that was cut off by a crash is removed.
  explicit MetricsWriter(std::filesystem::path path);

  // For a resume from the checkpoint of `step`: removes the lines of `stage` beyond it. Other
  // stages' lines stay as they are. The file is replaced in one go.
  void keep_until(const std::string& stage, int64_t step);

  // Values have 9 significant digits, whole numbers all of theirs; what is not finite becomes null.
  void write(const std::string& stage, int64_t step,
             const std::vector<std::pair<std::string, double>>& values);

  // Whole numbers as a list under one key, in a line of their own.
  void write_list(const std::string& stage, int64_t step, const std::string& key,
                  const std::vector<int64_t>& values);

  void sync();  // to the disk: lines that a checkpoint counts on must outlive a loss of power

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  void open();
  void append(const std::string& line);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace zebra
