// zebra bench long-context: questions about long texts, and the loss by position
#include <algorithm>
#include <iomanip>
#include <sstream>

#include "base/file.h"
#include "base/progress.h"
#include "base/signals.h"
#include "cli/sampling_flags.h"
#include "eval/long_context.h"
#include "zebra/error.h"

namespace zebra {

namespace {

struct LongContextFlags {
  std::string model, text, show;
  std::vector<std::string> tasks;
  std::vector<int64_t> lengths = {512, 1024, 2048};
  int64_t samples = 10, sequences = 8;
  uint64_t seed = 0;
  bool json = false;
  CacheOptions cache;
  MachineFlags machine;
};

// All of them are checked before the first one runs.
std::vector<LongContextTest> tests_of(const LongContextFlags& flags, const LoadedModel& loaded) {
  const int64_t most = loaded.model->options().max_position_embeddings;
  std::vector<LongContextTest> tests;
  for (const int64_t length : flags.lengths) {
    if (length > most) {
      throw ConfigError(
          str("--lengths: expected at most the model's ", most, " tokens, got ", length));
    }
    for (const auto& task : flags.tasks.empty() ? long_context_tasks() : flags.tasks) {
      tests.push_back({.task = task, .tokens = length, .samples = flags.samples});
      check_long_context(*loaded.tokenizer, tests.back(), flags.seed);
    }
  }
  return tests;
}

std::vector<LongContextScore> score_tests(const LongContextFlags& flags, const LoadedModel& loaded,
                                          const std::vector<LongContextTest>& tests) {
  const GenerateOptions options{
      .seed = flags.seed, .stop_ids = loaded.stop_ids, .cache = flags.cache};
  Progress progress("long context", static_cast<int64_t>(tests.size()), /*tokens_per_step=*/0);
  std::vector<LongContextScore> scores;
  for (const auto& test : tests) {
    progress.update(static_cast<int64_t>(scores.size()), str(test.task, " at ", test.tokens));
    scores.push_back(score_long_context(loaded.model, *loaded.tokenizer, test, options));
  }
  progress.update(static_cast<int64_t>(scores.size()), "");
  progress.finish();
  return scores;
}

std::vector<PositionLoss> score_text_file(const LongContextFlags& flags,
                                          const LoadedModel& loaded) {
  if (flags.text.empty()) return {};
  const int64_t length = *std::max_element(flags.lengths.begin(), flags.lengths.end());
  const auto ids = loaded.tokenizer->encode(read_file(flags.text));
  Progress progress("loss by position", flags.sequences, static_cast<double>(length));
  return loss_by_position(
      loaded.model, ids,
      {.length = length, .sequences = flags.sequences, .bos = loaded.tokenizer->bos_id()},
      [&](int64_t done) { progress.update(done, ""); });
}

std::string as_text(const std::vector<LongContextScore>& scores,
                    const std::vector<PositionLoss>& losses) {
  std::ostringstream out;
  out << std::fixed << "task                tokens   score   by depth, beginning to end\n";
  for (const auto& score : scores) {
    out << std::left << std::setw(18) << score.task << std::right << std::setw(8) << score.tokens
        << std::setprecision(3) << std::setw(8) << score.score << "  " << std::setprecision(2);
    for (const double value : score.by_depth) out << " " << value;
    out << "\n";
  }
  if (!losses.empty()) out << "\npositions          nats/token\n";
  for (const auto& loss : losses) {
    out << std::left << std::setw(18) << str(loss.begin, "-", loss.end - 1) << std::right
        << std::setprecision(4) << std::setw(11) << loss.nats_per_token << "\n";
  }
  return out.str();
}

nlohmann::ordered_json as_json(const std::vector<LongContextScore>& scores,
                               const std::vector<PositionLoss>& losses) {
  nlohmann::ordered_json result = {{"tasks", nlohmann::ordered_json::array()},
                                   {"loss_by_position", nlohmann::ordered_json::array()}};
  for (const auto& score : scores) {
    result["tasks"].push_back({{"task", score.task},
                               {"tokens", score.tokens},
                               {"score", score.score},
                               {"by_depth", score.by_depth}});
  }
  for (const auto& loss : losses) {
    result["loss_by_position"].push_back(
        {{"begin", loss.begin}, {"end", loss.end}, {"nats_per_token", loss.nats_per_token}});
  }
  return result;
}

void bench_texts(const LongContextFlags& flags) {
  const auto machine = flags.machine.use();
  const auto loaded = load_with_tokenizer(flags.model, machine);
  if (!flags.show.empty()) {
    const auto sample = make_long_context_sample(*loaded.tokenizer, flags.show,
                                                 flags.lengths.front(), 0.5, flags.seed);
    std::string answers;
    for (const auto& answer : sample.answers) answers += (answers.empty() ? "" : ", ") + answer;
    return print(sample.prompt + "\n\n[" + answers + "]\n");
  }
  install_stop_handlers();
  const auto tests = tests_of(flags, loaded);
  const auto losses = score_text_file(flags, loaded);
  const auto scores = score_tests(flags, loaded, tests);
  if (flags.json) return print_json(as_json(scores, losses));
  print(as_text(scores, losses));
}

}  // namespace

void add_bench_long_context(CLI::App& app, Action& action) {
  auto flags = std::make_shared<LongContextFlags>();
  auto* verb = add_verb(app, "long-context",
                        "Needles in long texts, tracked values, common words; loss by position",
                        "zebra bench long-context models/hybrid --lengths 2048,8192 --tasks "
                        "niah_single,niah_multikey --text book.txt");
  verb->add_option("model", flags->model, "Model folder")->required()->type_name("MODEL");
  verb->add_option("--tasks", flags->tasks,
                   "niah_single, niah_multikey, niah_multivalue, variable_tracking, common_words "
                   "[all]")
      ->delimiter(',')
      ->type_name("NAME,...");
  verb->add_option("--lengths", flags->lengths, "Tokens of a text [512,1024,2048]")
      ->delimiter(',')
      ->check(whole_number(1))
      ->type_name("N,...");
  verb->add_option("--samples", flags->samples, "Texts of each task and length [10]")
      ->check(whole_number(1))
      ->type_name("N");
  verb->add_option("--text", flags->text, "Also the loss by position in this file, at the longest")
      ->type_name("FILE");
  verb->add_option("--sequences", flags->sequences, "Sequences of it [8]")
      ->check(whole_number(1))
      ->type_name("N");
  verb->add_option("--show", flags->show, "Print a text of this task and its answers instead")
      ->type_name("NAME");
  verb->add_option("--seed", flags->seed, "Of the texts [0]")->check(any_seed())->type_name("S");
  declare_cache(verb, flags->cache);
  verb->add_flag("--json", flags->json, "JSON instead of tables");
  flags->machine.declare(verb);
  verb->callback([flags, &action] { action = [flags] { bench_texts(*flags); }; });
}

}  // namespace zebra
