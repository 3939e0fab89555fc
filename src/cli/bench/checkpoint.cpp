// zebra bench checkpoint: what saving costs the steps that go on meanwhile, and what resuming takes
#include <algorithm>
#include <cstdio>

#include "base/stopwatch.h"
#include "cli/command.h"
#include "train/job.h"
#include "train/metrics.h"
#include "train/optimizer.h"
#include "zebra/checkpoint.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

struct CheckpointBenchFlags {
  std::string model = "data/tiny/base", folder = "bench-checkpoint";
  int64_t batch_size = 16, sequence_length = 256, rounds = 10, threads = 0;
  bool json = false;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n == 0 ? 0 : (values[(n - 1) / 2] + values[n / 2]) / 2;
}

// Training steps of a model on random tokens.
class Training {
 public:
  explicit Training(const CheckpointBenchFlags& flags)
      : model_(load_model(flags.model, {})), optimizer_(trainable(*model_), {}) {
    const int64_t V = model_->options().vocab_size;
    tokens_ = torch::randint(V, {flags.batch_size, flags.sequence_length}, torch::kLong);
  }

  double step() {  // seconds
    const Stopwatch clock;
    const auto hidden = model_->forward(tokens_, /*segments=*/{});  // (B, T, D)
    const auto rows = hidden.narrow(1, 0, hidden.size(1) - 1).flatten(0, 1);
    const auto targets = tokens_.narrow(1, 1, tokens_.size(1) - 1).flatten();
    token_nll(rows, model_->head_weight(), targets, /*chunk_tokens=*/2048).mean().backward();
    optimizer_.step(/*learning_rate=*/1e-4);
    return clock.seconds();
  }

  Checkpoint checkpoint(int64_t step, std::function<void()> sync = nullptr) const {
    Checkpoint checkpoint{.step = step, .pieces = {}, .state = {}, .sync = std::move(sync)};
    optimizer_.save("/", checkpoint);
    return checkpoint;
  }

  void load(const SavedCheckpoint& saved) { optimizer_.load("/", saved); }

 private:
  CausalLm model_;
  AdamW optimizer_;
  at::Tensor tokens_;  // (B, T)
};

struct Figures {
  double step = 0, step_while_saving = 0, blocking_save = 0, save_call = 0, resume = 0;  // seconds
  int64_t bytes = 0, steps_while_saving = 0;
};

// Rounds of steps without and with a save under way, so that a drift of the machine meets both.
void measure_saving(const CheckpointBenchFlags& flags, Training& training, Figures& figures) {
  fs::create_directories(flags.folder);
  MetricsWriter metrics(fs::path(flags.folder) / "metrics.jsonl");  // synced by each save of a run
  CheckpointStore store(flags.folder, {.keep = 2, .keep_every = 0, .asynchronous = true});
  std::vector<double> plain, saving, calls;
  for (int64_t round = 0; round <= flags.rounds; ++round) {
    std::vector<double> before;
    for (int i = 0; i < 3; ++i) before.push_back(training.step());
    metrics.write("bench", round + 1, {{"step_seconds", before.back()}});
    const Stopwatch clock;
    store.save(training.checkpoint(round + 1, [&] { metrics.sync(); }));
    const double call = clock.seconds();
    int64_t steps = 0;
    do {
      training.step();
      ++steps;
    } while (store.writing());
    const double with = clock.seconds() / static_cast<double>(steps);  // the call's share included
    store.wait();
    if (round == 0) continue;  // fresh memory, cold files
    plain.insert(plain.end(), before.begin(), before.end());
    saving.push_back(with);
    calls.push_back(call);
    figures.steps_while_saving += steps;
  }
  figures.step = median(plain);
  figures.step_while_saving = median(saving);
  figures.save_call = median(calls);
}

void measure_blocking(const CheckpointBenchFlags& flags, const Training& training,
                      Figures& figures) {
  CheckpointStore store(flags.folder, {.keep = 2});
  std::vector<double> seconds;
  for (int64_t round = 0; round < flags.rounds; ++round) {
    const Stopwatch clock;
    store.save(training.checkpoint(1000 + round));
    seconds.push_back(clock.seconds());
  }
  figures.blocking_save = median(seconds);
}

// From nothing in memory to the first step.
void measure_resume(const CheckpointBenchFlags& flags, Figures& figures) {
  std::vector<double> seconds;
  for (int64_t round = 0; round < flags.rounds; ++round) {
    const Stopwatch clock;
    Training training(flags);
    const auto saved = CheckpointStore(flags.folder, {}).load_newest();
    training.load(*saved);
    seconds.push_back(clock.seconds());
    figures.bytes = 0;
    for (const auto& item : fs::directory_iterator(saved->folder())) {
      figures.bytes += static_cast<int64_t>(item.file_size());
    }
  }
  figures.resume = median(seconds);
}

void report(const CheckpointBenchFlags& flags, const Figures& figures) {
  const double added = figures.step_while_saving / figures.step - 1;
  if (flags.json) {
    return print_json({{"bench", "checkpoint"},
                       {"model", flags.model},
                       {"batch_size", flags.batch_size},
                       {"sequence_length", flags.sequence_length},
                       {"threads", at::get_num_threads()},
                       {"rounds", flags.rounds},
                       {"checkpoint_bytes", figures.bytes},
                       {"step_seconds", figures.step},
                       {"step_seconds_while_saving", figures.step_while_saving},
                       {"added_share", added},
                       {"steps_while_saving", figures.steps_while_saving},
                       {"save_call_seconds", figures.save_call},
                       {"blocking_save_seconds", figures.blocking_save},
                       {"resume_seconds", figures.resume}});
  }
  char text[600];
  std::snprintf(text, sizeof text,
                "checkpoint               %.1f MB\n"
                "step                     %.2f ms\n"
                "step while one is saved  %.2f ms (%+.1f %%), the call itself %.2f ms\n"
                "a save that blocks       %.2f ms\n"
                "resume to the first step %.2f ms\n",
                static_cast<double>(figures.bytes) * 1e-6, figures.step * 1e3,
                figures.step_while_saving * 1e3, added * 100, figures.save_call * 1e3,
                figures.blocking_save * 1e3, figures.resume * 1e3);
  print(text);
}

void bench_checkpoint(const CheckpointBenchFlags& flags) {
  MachineFlags machine;
  machine.threads = flags.threads;
  machine.use();
  Figures figures;
  {
    Training training(flags);
    for (int i = 0; i < 3; ++i) training.step();
    measure_saving(flags, training, figures);
    measure_blocking(flags, training, figures);
  }
  measure_resume(flags, figures);
  fs::remove_all(flags.folder);
  report(flags, figures);
}

}  // namespace

void add_bench_checkpoint(CLI::App& app, Action& action) {
  auto flags = std::make_shared<CheckpointBenchFlags>();
  auto* verb = add_verb(app, "checkpoint",
                        "What saving costs the steps that go on meanwhile; what resuming takes",
                        "zebra bench checkpoint --model data/tiny/base --rounds 20");
  verb->add_option("--model", flags->model, "Model folder [data/tiny/base]")->type_name("MODEL");
  verb->add_option("--folder", flags->folder, "Where to write, removed afterwards")
      ->type_name("DIR");
  const auto count = [&](const char* flag, int64_t& value, const char* meaning) {
    verb->add_option(flag, value, meaning)->check(whole_number(1))->type_name("N");
  };
  count("--batch-size", flags->batch_size, "Sequences of a step [16]");
  count("--sequence-length", flags->sequence_length, "Tokens of a sequence [256]");
  count("--rounds", flags->rounds, "Saves that are measured [10]");
  verb->add_option("--threads", flags->threads, "CPU threads; 0: the machine's cores")
      ->check(whole_number(0))
      ->type_name("N");
  verb->add_flag("--json", flags->json, "JSON on stdout");
  verb->callback([flags, &action] { action = [flags] { bench_checkpoint(*flags); }; });
}

}  // namespace zebra
