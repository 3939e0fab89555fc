// zebra generate
#include <algorithm>
#include <chrono>
#include <utility>

#include "base/file.h"
#include "cli/sampling_flags.h"
#include "eval/text_stream.h"
#include "zebra/error.h"

namespace zebra {

namespace {

struct GenerateFlags {
  std::string model, prompt_file;
  std::vector<std::string> prompts;
  int64_t samples = 1;
  bool json = false;
  SamplingFlags sampling;
  DraftFlags draft;
  MachineFlags machine;
};

// One continuation.
struct Row {
  std::string prompt;
  std::vector<int64_t> text, ids;  // of the prompt, without and with BOS
  std::unique_ptr<TextStream> stream;
  GeneratedRow made;
};

// The lines of a file, whose ends may be those of Windows.
std::vector<std::string> lines_of(const std::string& file) {
  const auto text = read_file(file);
  if (text.empty()) throw ConfigError(file + ": expected a prompt a line, got an empty file");
  std::vector<std::string> lines;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back(text.substr(begin, end - begin));
    if (lines.back().ends_with('\r')) lines.back().pop_back();
    if (lines.back().empty()) {
      throw ConfigError(str(file, ":", lines.size(), ": expected a prompt, got an empty line"));
    }
    begin = end + 1;
  }
  return lines;
}

// An empty one would be continued from BOS alone, or from nothing: most often a mistake.
std::vector<std::string> all_prompts(const GenerateFlags& flags) {
  auto prompts = flags.prompts;
  if (std::find(prompts.begin(), prompts.end(), "") != prompts.end()) {
    throw ConfigError("--prompt: expected a text to continue, got an empty one");
  }
  if (!flags.prompt_file.empty()) {
    const auto lines = lines_of(flags.prompt_file);
    prompts.insert(prompts.end(), lines.begin(), lines.end());
  }
  if (prompts.empty()) throw ConfigError("generate: expected --prompt or --prompts, got neither");
  return prompts;
}

std::vector<Row> make_rows(const GenerateFlags& flags, const std::vector<std::string>& prompts,
                           const Tokenizer& tokenizer) {
  std::vector<Row> rows;
  for (const auto& prompt : prompts) {
    for (int64_t i = 0; i < flags.samples; ++i) {
      Row row{
          .prompt = prompt, .text = tokenizer.encode(prompt), .ids = {}, .stream = {}, .made = {}};
      row.ids = row.text;
      if (tokenizer.adds_bos()) row.ids.insert(row.ids.begin(), tokenizer.bos_id());
      if (row.ids.empty()) throw ConfigError("prompt: expected at least one token, got none");
      row.stream = std::make_unique<TextStream>(tokenizer, row.text, flags.sampling.stops);
      rows.push_back(std::move(row));
    }
  }
  return rows;
}

bool is_in(const std::vector<int64_t>& ids, int64_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

nlohmann::ordered_json as_json(const Row& row) {
  return {{"prompt", row.prompt},
          {"text", row.stream->text()},
          {"prompt_tokens", row.ids.size()},
          {"tokens", row.made.ids.size()},
          {"ids", row.made.ids},
          {"stop_reason", stop_reason_name(row.made.reason)}};
}

// A single row is shown while it grows, several at the end in their order.
class Output {
 public:
  Output(const GenerateFlags& flags, const Tokenizer& tokenizer, std::vector<Row>& rows,
         const std::vector<int64_t>& stop_ids)
      : tokenizer_(tokenizer),
        rows_(rows),
        stop_ids_(stop_ids),
        quiet_(flags.json),
        live_(!quiet_ && rows.size() == 1) {}

  bool hear(int64_t row, int64_t id) {
    auto& stream = *rows_[static_cast<size_t>(row)].stream;
    const auto shown = is_in(stop_ids_, id) ? "" : stream.add(id);
    if (live_) {
      begin();
      print(shown);
    }
    return !stream.stopped();
  }

  void finish() {
    if (live_) begin();
    for (auto& row : rows_) {
      const auto rest = row.stream->finish();
      if (quiet_) continue;
      print((live_ ? rest : tokenizer_.decode(row.text) + row.stream->text()) + "\n");
    }
  }

 private:
  // The prompt, once there is something to come behind it: what is refused prints nothing.
  void begin() {
    if (!std::exchange(begun_, true)) print(tokenizer_.decode(rows_[0].text));
  }

  const Tokenizer& tokenizer_;
  std::vector<Row>& rows_;
  const std::vector<int64_t>& stop_ids_;
  bool quiet_;  // JSON comes instead
  bool live_;   // text is shown while it is made
  bool begun_ = false;
};

// One call of the verb.
struct Generation {
  LoadOptions machine;
  LoadedModel loaded;
  GenerateOptions options;
  std::vector<Row> rows;
};

nlohmann::ordered_json run_plain(Generation& job, Output& output) {
  std::vector<std::vector<int64_t>> prompts;
  for (const auto& row : job.rows) prompts.push_back(row.ids);
  auto made = generate_rows(job.loaded.model, prompts, job.options,
                            [&](int64_t row, int64_t id) { return output.hear(row, id); });
  for (size_t i = 0; i < job.rows.size(); ++i) job.rows[i].made = std::move(made[i]);
  return nlohmann::ordered_json::object();
}

nlohmann::ordered_json run_speculative(const DraftFlags& flags, Generation& job, Output& output) {
  const DraftModel draft{.model = flags.load(job.loaded, job.machine), .tokens = flags.tokens};
  int64_t rounds = 0, proposed = 0, accepted = 0;
  for (size_t i = 0; i < job.rows.size(); ++i) {
    auto own = job.options;  // row i draws with seed + i, as in a batch
    own.seed += i;
    auto result =
        generate_speculative(job.loaded.model, draft, job.rows[i].ids, own,
                             [&](int64_t id) { return output.hear(static_cast<int64_t>(i), id); });
    job.rows[i].made = std::move(result.row);
    rounds += result.rounds;
    proposed += result.proposed;
    accepted += result.accepted;
  }
  return {{"rounds", rounds}, {"proposed", proposed}, {"accepted", accepted}};
}

void generate_text(const GenerateFlags& flags) {
  const auto prompts = all_prompts(flags);
  const auto machine = flags.machine.use();
  Generation job{.machine = machine,
                 .loaded = load_with_tokenizer(flags.model, machine),
                 .options = {},
                 .rows = {}};
  job.options = flags.sampling.resolved(job.loaded);
  job.rows = make_rows(flags, prompts, *job.loaded.tokenizer);
  Output output(flags, *job.loaded.tokenizer, job.rows, job.options.stop_ids);
  const auto began = std::chrono::steady_clock::now();
  const auto draft = flags.draft.model.empty() ? run_plain(job, output)
                                               : run_speculative(flags.draft, job, output);
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - began;
  output.finish();
  if (!flags.json) return;
  nlohmann::ordered_json result = {{"model", flags.model},
                                   {"rows", nlohmann::ordered_json::array()}};
  int64_t tokens = 0;
  for (const auto& row : job.rows) {
    result["rows"].push_back(as_json(row));
    tokens += static_cast<int64_t>(row.made.ids.size());
  }
  if (!draft.empty()) result["draft"] = draft;
  result["seconds"] = spent.count();
  result["tokens_per_second"] = static_cast<double>(tokens) / spent.count();
  print_json(result);
}

}  // namespace

void add_generate(CLI::App& app, Action& action) {
  auto flags = std::make_shared<GenerateFlags>();
  auto* verb = add_verb(app, "generate", "Continue texts; prompt and continuation go to stdout",
                        "zebra generate runs/quickstart/stages/dpo --prompt \"One day\" --seed 3 "
                        "--temperature 0.8");
  verb->add_option("model", flags->model, "Model folder")->required()->type_name("MODEL");
  verb->add_option("--prompt", flags->prompts, "Text to continue; may be repeated")
      ->type_name("TEXT")
      ->allow_extra_args(false);
  verb->add_option("--prompts", flags->prompt_file, "A file with a prompt a line")
      ->type_name("FILE");
  verb->add_option("--num-samples", flags->samples, "Continuations of each prompt [1]")
      ->check(whole_number(1))
      ->type_name("N");
  flags->sampling.declare(verb);
  flags->draft.declare(verb);
  verb->add_flag("--json", flags->json, "JSON with ids, counts and times instead of text");
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { generate_text(*flags); }; });
}

}  // namespace zebra
