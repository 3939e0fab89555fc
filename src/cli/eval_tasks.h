// The part of `zebra eval` that runs harness tasks.
#pragma once

#include <CLI/CLI.hpp>
#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"
#include "zebra/tasks.h"

namespace zebra {

inline constexpr const char* kTasksGroup = "Harness tasks";  // of these flags, in the help

struct TaskFlags {
  TaskOptions options;
  std::optional<int64_t> shots;
  std::optional<std::string> chat_template;  // a name, or empty for the model's own
  bool samples = false;
  int64_t nproc = 0;

  bool wanted() const { return !options.tasks.empty(); }
  void declare(CLI::App* verb);
};

// What the tasks share with the verb's other measures.
struct TaskRun {
  std::string model, output;
  std::vector<std::string> data;
  std::optional<int64_t> batch_size;
  bool json = false;
  MachineFlags machine;
};

// Prints the table, or the results as JSON, and writes the files that were asked for.
void run_tasks(const TaskFlags& flags, const TaskRun& run);

}  // namespace zebra
