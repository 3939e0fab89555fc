#include "cli/eval_tasks.h"

#include <chrono>
#include <filesystem>
#include <optional>

#include "base/file.h"
#include "data/harness_tokenizer.h"
#include "zebra/error.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

using Config = std::vector<std::pair<std::string, std::string>>;

std::string quoted(const std::string& text) { return nlohmann::json(text).dump(); }

std::string data_folder(const std::vector<std::string>& data) {
  if (data.empty()) return ".";
  if (data.size() > 1 || !fs::is_directory(data[0])) {
    throw ConfigError(
        str("--data: with --tasks expected one folder of TASK/SPLIT.jsonl, got ", data.back()));
  }
  return data[0];
}

Config config_of(const TaskRun& run, const LoadedModel& loaded, const TaskOptions& options) {
  const auto& model = loaded.model->options();
  const int64_t length =
      options.max_length > 0 ? options.max_length : model.max_position_embeddings;
  return {
      {"model", quoted("zebra")},
      {"model_args", quoted("pretrained=" + run.model + ",max_length=" + std::to_string(length))},
      {"model_num_parameters", std::to_string(count_parameters(model))},
      {"model_dtype", quoted(run.machine.dtype)},
      {"device", quoted(run.machine.device)}};
}

// results.json -> results_samples/samples_TASK.jsonl
void write_samples(const fs::path& output, const TaskReport& report) {
  const auto folder = output.parent_path() / (output.stem().string() + "_samples");
  make_folders(folder);
  for (const auto& [task, lines] : report.samples) {
    std::string text;
    for (const auto& line : lines) text += line + "\n";
    write_file_atomic(folder / ("samples_" + task + ".jsonl"), text);
  }
}

}  // namespace

void TaskFlags::declare(CLI::App* verb) {
  const auto number = [&](const char* name, auto& field, const std::string& meaning) {
    verb->add_option(name, field, meaning)
        ->check(CLI::NonNegativeNumber.description(""))
        ->type_name("N")
        ->group("Harness tasks");
  };
  verb->add_option("--tasks", options.tasks,
                   "Tasks or groups of lm-evaluation-harness, or YAML files of tasks, as a,b,c")
      ->delimiter(',')
      ->type_name("NAMES")
      ->group("Harness tasks");
  number("--fewshot,--num-fewshot", shots, "Examples before each question [the task's own number]");
  number("--limit", options.limit, "Documents of each task, the first ones; 0: all [0]");
  number("--max-length", options.max_length, "Tokens of context; 0: the model's [0]");
  verb->add_flag(
          "--cut-endings", options.cut_endings,
          "Score the end of an ending that is longer than the context, instead of refusing it")
      ->group("Harness tasks");
  number("--seed", options.fewshot_seed, "Of the examples that are drawn [1234]");
  verb->add_option("--system-instruction", options.system_instruction, "Text before everything")
      ->type_name("TEXT")
      ->group("Harness tasks");
  verb->add_flag("--samples", samples,
                 "With --output F.json: a record of every document in F_samples/")
      ->group("Harness tasks");
}

void run_tasks(const TaskFlags& flags, const TaskRun& run) {
  auto options = flags.options;
  options.shots = flags.shots;
  options.samples = flags.samples;
  options.batch_size = run.batch_size.value_or(0);
  options.data = data_folder(run.data);
  if (options.samples && run.output.empty()) {
    throw ConfigError("--samples: needs --output, beside which the records go");
  }
  std::optional<OutputFile> output;
  if (!run.output.empty()) output.emplace(run.output);

  const auto began = std::chrono::steady_clock::now();
  auto loaded = load_with_tokenizer(run.model, run.machine.use());
  loaded.tokenizer = load_harness_tokenizer(run.model);
  const auto report = evaluate_tasks(loaded.model, *loaded.tokenizer, options);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  auto config = config_of(run, loaded, options);
  config.emplace_back("total_evaluation_time_seconds", std::to_string(spent.count()));
  const auto results = task_report_json(report, options, config);
  if (options.samples) write_samples(run.output, report);
  if (output) {
    output->write(results);
    output->commit();
  }
  print(run.json ? results : task_report_table(report));
}

}  // namespace zebra
