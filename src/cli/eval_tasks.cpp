#include "cli/eval_tasks.h"

#include <chrono>
#include <filesystem>
#include <regex>

#include "base/log.h"
#include "base/signals.h"
#include "cli/ranks.h"
#include "data/harness_tokenizer.h"
#include "zebra/chat_template.h"
#include "zebra/error.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

std::string json_text(const std::string& text) { return nlohmann::json(text).dump(); }

std::string data_folder(const std::vector<std::string>& data) {
  if (data.empty()) return ".";
  if (data.size() > 1 || !fs::is_directory(data[0])) {
    throw ConfigError(
        str("--data: with --tasks expected one folder of TASK/SPLIT.jsonl, got ", data.back()));
  }
  return data[0];
}

int64_t context_length(const LoadedModel& loaded, const TaskOptions& options) {
  return options.max_length > 0 ? options.max_length
                                : loaded.model->options().max_position_embeddings;
}

JsonPairs config_of(const TaskRun& run, const LoadedModel& loaded, const TaskOptions& options) {
  const auto length = std::to_string(context_length(loaded, options));
  return {{"model", json_text("zebra")},
          {"model_args", json_text("pretrained=" + run.model + ",max_length=" + length)},
          {"model_num_parameters", std::to_string(count_parameters(loaded.model->options()))},
          {"model_dtype", json_text(run.machine.dtype)},
          {"device", json_text(run.machine.device)}};
}

// When a run began: what a calendar says, and what a clock measures from.
struct Beginning {
  std::chrono::system_clock::time_point date = std::chrono::system_clock::now();
  std::chrono::steady_clock::time_point time = std::chrono::steady_clock::now();
};

std::string seconds(std::chrono::duration<double> span) { return std::to_string(span.count()); }

// What the harness tells of a run beside its results, under the same keys, and our version.
JsonPairs about(const TaskRun& run, const LoadedModel& loaded, const TaskOptions& options,
                const Beginning& began) {
  static const std::regex kUnfit(R"(["<>:/|\\?*\[\]]+)");
  const auto& tokenizer = *loaded.tokenizer;
  JsonPairs pairs = {{"date", seconds(began.date.time_since_epoch())},
                     {"zebra_version", json_text(ZEBRA_VERSION)}};
  const auto add_token = [&](const char* key, int64_t id) {
    if (id < 0) return;
    const nlohmann::json token = {tokenizer.piece(id), std::to_string(id)};
    pairs.emplace_back(key, token.dump());
  };
  add_token("tokenizer_eos_token", tokenizer.eos_id());
  add_token("tokenizer_bos_token", tokenizer.bos_id());
  pairs.insert(pairs.end(),
               {{"max_length", std::to_string(context_length(loaded, options))},
                {"model_source", json_text("zebra")},
                {"model_name", json_text(run.model)},
                {"model_name_sanitized", json_text(std::regex_replace(run.model, kUnfit, "__"))},
                {"total_evaluation_time_seconds",
                 json_text(seconds(std::chrono::steady_clock::now() - began.time))}});
  return pairs;
}

// `name` empty: the template of the model's own files.
std::function<std::string(const std::vector<ChatMessage>&)> chat_prompts(
    const std::string& name, const std::string& model, const Tokenizer& tokenizer) {
  const auto chat = name.empty() ? ChatTemplate::of_folder(model, tokenizer)
                                 : ChatTemplate::named(name, tokenizer);
  return [chat](const std::vector<ChatMessage>& messages) {
    return chat.render(messages, /*add_generation_prompt=*/true).text;
  };
}

// Samples of an earlier run with the same output would stand beside results that are not theirs.
void remove_samples(const fs::path& folder) {
  if (!fs::is_directory(folder)) return;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto name = entry.path().filename().string();
    if (name.starts_with("samples_") && name.ends_with(".jsonl")) fs::remove(entry.path());
  }
}

// results.json -> results_samples/samples_TASK.jsonl
void write_samples(const fs::path& output, const TaskReport& report) {
  const auto folder = output.parent_path() / (output.stem().string() + "_samples");
  remove_samples(folder);
  if (report.samples.empty()) return;
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
        ->check(whole_number(0))
        ->type_name("N")
        ->group(kTasksGroup);
  };
  verb->add_option("--tasks", options.tasks,
                   "Tasks or groups of lm-evaluation-harness, or YAML files of tasks, as a,b,c")
      ->delimiter(',')
      ->type_name("NAMES")
      ->group(kTasksGroup);
  number("--fewshot,--num-fewshot", shots, "Examples before each question [the task's own number]");
  number("--limit", options.limit, "Documents of each task, the first ones; 0: all [0]");
  number("--max-length", options.max_length, "Tokens of context; 0: the model's [0]");
  verb->add_flag(
          "--cut-endings", options.cut_endings,
          "Score the end of an ending that is longer than the context, instead of refusing it")
      ->group(kTasksGroup);
  verb->add_option("--seed", options.fewshot_seed, "Of the examples that are drawn [1234]")
      ->check(any_seed())
      ->type_name("N")
      ->group(kTasksGroup);
  verb->add_option("--system-instruction", options.system_instruction, "Text before everything")
      ->type_name("TEXT")
      ->group(kTasksGroup);
  verb->add_option("--apply-chat-template", chat_template,
                   "Prompts as conversations: a template's name, or none for the model's own")
      ->expected(0, 1)
      ->default_str("")
      ->type_name("NAME")
      ->group(kTasksGroup);
  verb->add_flag("--fewshot-as-multiturn", options.fewshot_as_multiturn,
                 "Examples as turns of their own; needs --apply-chat-template")
      ->group(kTasksGroup);
  verb->add_option("--nproc", nproc, "Ranks on this machine that share the documents out")
      ->check(whole_number(1))
      ->type_name("N")
      ->group(kTasksGroup);
  verb->add_flag("--samples", samples,
                 "With --output F.json: a record of every document in F_samples/")
      ->group(kTasksGroup);
}

namespace {

TaskOptions options_of(const TaskFlags& flags, const TaskRun& run) {
  auto options = flags.options;
  options.shots = flags.shots;
  options.samples = flags.samples;
  options.batch_size = run.batch_size.value_or(0);
  options.data = data_folder(run.data);
  if (options.samples && run.output.empty()) {
    throw ConfigError("--samples: needs --output, beside which the records go");
  }
  if (options.fewshot_as_multiturn && !flags.chat_template) {
    throw ConfigError("--fewshot-as-multiturn: needs --apply-chat-template");
  }
  return options;
}

void run_tasks_on(Group& group, const TaskFlags& flags, const TaskRun& run) {
  auto options = options_of(flags, run);
  share_documents(options, group);  // rank 0 tells the results
  if (!group.leads()) log_to_files_only();
  install_stop_handlers();
  const auto output = open_output(group.leads() ? run.output : "");

  const Beginning began;
  auto loaded = load_with_tokenizer(run.model, run.machine.use());
  loaded.tokenizer = load_harness_tokenizer(run.model);
  if (flags.chat_template) {
    options.chat_template = chat_prompts(*flags.chat_template, run.model, *loaded.tokenizer);
  }
  const auto report = evaluate_tasks(loaded.model, *loaded.tokenizer, options);
  if (!group.leads()) return;
  const auto results = task_report_json(report, options, config_of(run, loaded, options),
                                        about(run, loaded, options, began));
  if (output) {
    write_samples(run.output, report);
    output->write(results);
    output->commit();
  }
  print(run.json ? results : task_report_table(report));
}

}  // namespace

void run_tasks(const TaskFlags& flags, const TaskRun& run) {
  (void)options_of(flags, run);  // what is wrong with the flags is told before ranks start
  run_on_ranks({.nproc = flags.nproc, .sizes = {flags.nproc}},
               [&](Group& group) { run_tasks_on(group, flags, run); });
}

}  // namespace zebra
