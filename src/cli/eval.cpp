// zebra eval
#include <iomanip>
#include <sstream>

#include "base/signals.h"
#include "cli/command.h"
#include "cli/eval_tasks.h"
#include "zebra/chat_template.h"
#include "zebra/error.h"
#include "zebra/eval.h"
#include "zebra/recipe.h"

namespace zebra {

namespace {

constexpr const char* kTextGroup = "Held-out text";  // of flags in the help

struct EvalFlags {
  const CLI::App* verb = nullptr;
  std::string model, teacher, choices, output, chat_template;
  std::vector<std::string> data, pairs;
  SourceFormat format = SourceFormat::kText;
  DatasetOptions packing{.sequence_length = 0};  // 0: the model's longest, at most 2048
  std::optional<int64_t> batch_size;
  int64_t max_sequences = 0;
  TaskFlags tasks;
  bool json = false;
  MachineFlags machine;
};

constexpr int64_t kUsualBatch = 16;

int64_t sequence_length(const EvalFlags& flags, const ModelOptions& model) {
  constexpr int64_t kUsual = 2048;
  return flags.packing.sequence_length > 0 ? flags.packing.sequence_length
                                           : std::min(kUsual, model.max_position_embeddings);
}

// Empty where none is recognised: what has no messages does without.
std::string chat_template(const EvalFlags& flags, const Tokenizer& tokenizer) {
  if (!flags.chat_template.empty()) return flags.chat_template;
  try {
    return ChatTemplate::of_folder(flags.model, tokenizer).name();
  } catch (const ConfigError&) {
    return "";
  }
}

CausalLm load_teacher(const EvalFlags& flags, const LoadOptions& options, int64_t vocab_size) {
  if (flags.teacher.empty()) return nullptr;
  const int64_t has = read_model_options(flags.teacher).vocab_size;
  if (has != vocab_size) {
    throw ConfigError(str("--teacher ", flags.teacher, ": vocabulary: expected ", vocab_size,
                          " entries as in the model, got ", has));
  }
  auto teacher = load_model(flags.teacher, options);
  teacher->eval();
  return teacher;
}

void add_text(const EvalFlags& flags, const LoadedModel& loaded, const LoadOptions& options,
              nlohmann::ordered_json& result) {
  std::vector<SourceOptions> sources;
  for (const auto& path : flags.data) sources.push_back({.path = path, .format = flags.format});
  auto packing = flags.packing;
  packing.sequence_length = sequence_length(flags, loaded.model->options());
  packing.chat_template = chat_template(flags, *loaded.tokenizer);
  const TokenDataset data(sources, *loaded.tokenizer, packing);
  auto teacher = load_teacher(flags, options, loaded.model->options().vocab_size);
  const auto scores = score_text(loaded.model, teacher.is_empty() ? nullptr : &teacher, data,
                                 flags.batch_size.value_or(kUsualBatch), flags.max_sequences);
  result["text"] = {{"nats_per_token", scores.nats_per_token},
                    {"bits_per_byte", scores.bits_per_byte},
                    {"predictions", scores.predictions},
                    {"positions", scores.positions},
                    {"sequence_length", packing.sequence_length}};
  if (teacher.is_empty()) return;
  result["text"]["kl_per_token"] = scores.kl_per_token;
  result["text"]["top1_agreement"] = scores.top1_agreement;
}

void add_choices(const EvalFlags& flags, const LoadedModel& loaded,
                 nlohmann::ordered_json& result) {
  const auto scores =
      score_choices(loaded.model, *loaded.tokenizer, read_multiple_choice(flags.choices));
  result["choices"] = {{"accuracy", scores.accuracy},
                       {"accuracy_norm", scores.accuracy_norm},
                       {"questions", scores.questions}};
}

void add_pairs(const EvalFlags& flags, const LoadedModel& loaded, nlohmann::ordered_json& result) {
  const PreferenceDataset pairs(flags.pairs, *loaded.tokenizer,
                                {.chat_template = chat_template(flags, *loaded.tokenizer)});
  const auto scores =
      score_preferences(loaded.model, pairs, flags.batch_size.value_or(kUsualBatch));
  result["pairs"] = {
      {"accuracy", scores.accuracy}, {"margin", scores.margin}, {"pairs", scores.pairs}};
}

std::string as_table(const nlohmann::ordered_json& result) {
  std::ostringstream out;
  for (const auto& group : result.items()) {
    if (!group.value().is_object()) continue;
    for (const auto& measure : group.value().items()) {
      out << std::left << std::setw(28) << (group.key() + "." + measure.key());
      if (measure.value().is_number_integer()) {
        out << measure.value().get<int64_t>() << "\n";
      } else {
        out << std::fixed << std::setprecision(4) << measure.value().get<double>() << "\n";
      }
    }
  }
  return out.str();
}

// Names of the flags of a group that were given.
std::vector<std::string> given(const EvalFlags& flags, const std::string& group) {
  std::vector<std::string> names;
  for (const auto* option : flags.verb->get_options()) {
    if (option->get_group() == group && option->count() > 0) names.push_back(option->get_name());
  }
  return names;
}

void evaluate_harness(const EvalFlags& flags) {
  auto others = given(flags, kTextGroup);
  if (!flags.choices.empty()) others.emplace_back("--choices");
  if (!flags.pairs.empty()) others.emplace_back("--pairs");
  if (!others.empty()) {
    throw ConfigError(str("--tasks: expected no ", others[0], " beside it"));
  }
  run_tasks(flags.tasks, {.model = flags.model,
                          .output = flags.output,
                          .data = flags.data,
                          .batch_size = flags.batch_size,
                          .json = flags.json,
                          .machine = flags.machine});
}

// A flag that would change nothing is a mistake.
void check_measures(const EvalFlags& flags) {
  if (flags.data.empty() && flags.choices.empty() && flags.pairs.empty()) {
    throw ConfigError("eval: expected --tasks, --data, --choices or --pairs, got none of them");
  }
  for (const auto& name : given(flags, kTasksGroup)) throw ConfigError(name + ": needs --tasks");
  if (!flags.data.empty()) return;
  for (const auto& name : given(flags, kTextGroup)) {
    const bool of_pairs = name == "--chat-template" && !flags.pairs.empty();
    if (!of_pairs) throw ConfigError(name + ": needs --data");
  }
}

void evaluate(const EvalFlags& flags) {
  if (flags.tasks.wanted()) return evaluate_harness(flags);
  check_measures(flags);
  install_stop_handlers();
  const auto output = open_output(flags.output);
  const auto options = flags.machine.use();
  const auto loaded = load_with_tokenizer(flags.model, options);
  nlohmann::ordered_json result = {{"model", flags.model}};
  if (!flags.data.empty()) add_text(flags, loaded, options, result);
  if (!flags.choices.empty()) add_choices(flags, loaded, result);
  if (!flags.pairs.empty()) add_pairs(flags, loaded, result);
  if (output) {
    output->write(result.dump(2) + "\n");
    output->commit();
  }
  if (flags.json) return print_json(result);
  print(as_table(result));
}

void declare_text(CLI::App* verb, EvalFlags& flags) {
  verb->add_option("--data", flags.data,
                   "Files or globs of held-out text; with --tasks the folder of TASK/SPLIT.jsonl")
      ->type_name("PATH");
  verb->option_defaults()->group(kTextGroup);
  add_enum(verb, "--format", flags.format, "Of the files");
  verb->add_option("--sequence-length", flags.packing.sequence_length,
                   "Tokens of a sequence [the model's longest, at most 2048]")
      ->check(whole_number(2, 1 << 30))
      ->type_name("T");
  add_enum(verb, "--packing", flags.packing.packing, "How documents are laid into sequences");
  add_enum(verb, "--bos", flags.packing.bos, "Where the first token goes");
  verb->add_flag("--eos,!--no-eos", flags.packing.eos, "End token after each document [on]");
  verb->add_flag("--cross-document", flags.packing.cross_document,
                 "Documents of a sequence see each other");
  verb->add_option("--chat-template", flags.chat_template,
                   "Of messages [recognised from the model's files]")
      ->type_name("NAME");
  verb->add_option("--max-sequences", flags.max_sequences, "Sequences used; 0: all [0]")
      ->check(whole_number(0))
      ->type_name("N");
  verb->add_option("--teacher", flags.teacher, "Also divergence from, and agreement with, a model")
      ->type_name("MODEL");
  verb->option_defaults()->group("Options");
}

}  // namespace

void add_eval(CLI::App& app, Action& action) {
  auto flags = std::make_shared<EvalFlags>();
  auto* verb = add_verb(app, "eval",
                        "Harness tasks, held-out text, multiple-choice endings, preference pairs",
                        "zebra eval models/hybrid --tasks arc_easy,hellaswag,mmlu --data data/eval "
                        "--output scores.json\n"
                        "  zebra eval models/hybrid --data valid.txt --sequence-length 256 "
                        "--teacher models/llama");
  flags->verb = verb;
  verb->add_option("model", flags->model, "Model folder")->required()->type_name("MODEL");
  flags->tasks.declare(verb);
  declare_text(verb, *flags);
  verb->add_option("--choices", flags->choices, "JSONL of {context, choices, answer}")
      ->type_name("FILE");
  verb->add_option("--pairs", flags->pairs, "Files of preference pairs")->type_name("FILE");
  verb->add_option("--batch-size", flags->batch_size,
                   "Sequences in one forward [16; of tasks as many as fit]")
      ->check(whole_number(1))
      ->type_name("N");
  verb->add_option("--output", flags->output, "Write the numbers as JSON")->type_name("FILE");
  verb->add_flag("--json", flags->json, "JSON on stdout instead of the table");
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { evaluate(*flags); }; });
}

}  // namespace zebra
