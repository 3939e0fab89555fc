// zebra bench memory: what each way of sharing leaves on a rank, and what each way of recomputing
// keeps for the backward, against the prediction.
#include <c10/core/CPUAllocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <algorithm>
#include <iomanip>
#include <sstream>

#include "cli/command.h"
#include "cli/ending.h"
#include "train/block_runner.h"
#include "train/optimizer.h"
#include "zebra/dist.h"
#include "zebra/error.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

struct MemoryFlags {
  std::string model = "data/tiny/base";
  int64_t nproc = 4, batch_size = 4, sequence_length = 256;
  bool bit_equal = false, json = false;
};

// What the tensors of all threads take, as the CPU allocator counts it: the thread of collectives
// gives back what this one has made.
class MemoryMeter : public c10::MemoryReportingInfoBase {
 public:
  MemoryMeter() { FLAGS_caffe2_report_cpu_memory_usage = true; }
  void reportMemoryUsage(void* /*pointer*/, int64_t /*size*/, size_t allocated, size_t /*reserved*/,
                         c10::Device /*device*/) override {
    live_ = static_cast<int64_t>(allocated);
  }
  bool memoryProfilingEnabled() const override { return true; }
  // The count comes with what this thread allocates.
  int64_t live() const {
    const auto probe = at::empty({1}, at::kByte);
    return live_;
  }

 private:
  int64_t live_ = 0;
};

struct Row {
  std::string what;
  double predicted = 0, measured = 0;  // bytes of the rank that has most
  nlohmann::ordered_json parts;
};

struct Sizes {
  double all = 0, shell = 0;  // bytes of the parameters
};

Sizes sizes_of(const CausalLm& model) {
  Sizes sizes;
  for (const auto& item : model->named_parameters()) {
    const auto bytes = static_cast<double>(item.value().nbytes());
    sizes.all += bytes;
    if (item.key().find("layers.") == std::string::npos) sizes.shell += bytes;
  }
  return sizes;
}

// Between two steps, in float32: parameters, gradients (float64 when they are added up exactly),
// two moments. A W-th of what is shared out, beside which zero1 and zero2 have a rank's own part of
// the parameters once more.
double predicted_bytes(const Sizes& sizes, const ShardOptions& options, double W) {
  const double P = sizes.all, G = options.exact_sums ? 2 * P : P;
  switch (options.sharding) {
    case Sharding::kNone:
      return 3 * P + G;
    case Sharding::kZero1:
      return P + G + (3 * P + G) / W;
    case Sharding::kZero2:
      return P + (3 * P + G) / W;
    case Sharding::kFull:
      return sizes.shell + (3 * P + G) / W;
  }
  return 0;
}

at::Tensor loss_of(CausalLm& model, const at::Tensor& tokens) {
  const auto hidden = model->forward(tokens, /*segments=*/{});  // (B, T, D)
  return token_nll(hidden.flatten(0, 1), model->head_weight(), tokens.flatten(),
                   /*chunk_tokens=*/512)
      .mean();
}

at::Tensor random_tokens(const MemoryFlags& flags, const CausalLm& model) {
  return torch::randint(model->options().vocab_size, {flags.batch_size, flags.sequence_length},
                        torch::kLong);
}

Row measure_sharding(const MemoryFlags& flags, Group& group, const MemoryMeter& meter,
                     const ShardOptions& options) {
  const int64_t before = meter.live();
  auto model = load_model(flags.model, {});
  const auto sizes = sizes_of(model);
  const auto tokens = random_tokens(flags, model);
  AdamW optimizer(trainable(*model), {}, group, options);
  model->set_block_runner(std::make_shared<TrainingBlocks>(&optimizer.shards(), BlockRunOptions{}));
  for (int step = 0; step < 2; ++step) {
    loss_of(model, tokens).backward();
    optimizer.step(/*learning_rate=*/1e-4);
  }
  group.barrier();  // by then the collectives' thread has let go of those before it
  const auto held =
      static_cast<double>(meter.live() - before) - static_cast<double>(tokens.nbytes());
  const auto bytes = optimizer.bytes();
  Row row{.what = std::string("sharding ") + std::string(enum_name(options.sharding)),
          .predicted = predicted_bytes(sizes, options, static_cast<double>(group.size())),
          .measured = group.max({held})[0],
          .parts = {}};
  row.parts = {{"parameters", bytes.parameters},
               {"gradients", bytes.gradients},
               {"masters", bytes.masters},
               {"moments", bytes.moments}};
  return row;
}

// What lies between forward and backward.
Row measure_recompute(const MemoryFlags& flags, const MemoryMeter& meter, Recompute recompute) {
  auto model = load_model(flags.model, {});
  const auto tokens = random_tokens(flags, model);
  model->set_block_runner(
      std::make_shared<TrainingBlocks>(nullptr, BlockRunOptions{.recompute = recompute}));
  const int64_t before = meter.live();
  const auto loss = loss_of(model, tokens);
  return {.what = std::string("recompute ") + std::string(enum_name(recompute)),
          .measured = static_cast<double>(meter.live() - before),
          .parts = {}};
}

std::string table(const std::vector<Row>& rows) {
  std::ostringstream out;
  out << std::fixed;
  for (const auto& row : rows) {
    out << std::left << std::setw(18) << row.what << std::right << std::setprecision(2)
        << std::setw(10) << row.measured * 1e-6 << " MB";
    if (row.predicted > 0) {
      out << ", predicted " << std::setw(8) << row.predicted * 1e-6 << " MB, ratio "
          << std::setprecision(3) << row.measured / row.predicted;
    }
    out << "\n";
  }
  return out.str();
}

void measure(const MemoryFlags& flags, const RankInfo& rank) {
  at::set_num_threads(1);
  Group group(rank, std::chrono::seconds(120));
  const auto meter = std::make_shared<MemoryMeter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, meter);
  std::vector<Row> rows;
  for (const auto& [sharding, name] : EnumNames<Sharding>::names) {
    rows.push_back(measure_sharding(flags, group, *meter,
                                    {.sharding = sharding, .exact_sums = flags.bit_equal}));
  }
  for (const auto& [recompute, name] : EnumNames<Recompute>::names) {
    rows.push_back(measure_recompute(flags, *meter, recompute));
  }
  group.barrier();
  if (!group.leads()) return;
  if (!flags.json) return print(table(rows));
  nlohmann::ordered_json json = {{"ranks", group.size()}, {"model", flags.model}};
  for (const auto& row : rows) {
    nlohmann::ordered_json entry = {{"what", row.what}, {"bytes", row.measured}};
    if (row.predicted > 0) entry["predicted_bytes"] = row.predicted;
    if (!row.parts.is_null()) entry["parts"] = row.parts;
    json["rows"].push_back(entry);
  }
  print_json(json);
}

void run_memory(const MemoryFlags& flags) {
  const auto rank = rank_from_environment();
  if (!rank.source.empty()) return measure(flags, rank);
  const auto result =
      run_agent({.command = own_command(), .sizes = {flags.nproc}, .max_restarts = 0});
  if (result.exit_code != kDone) throw EndingError({result.exit_code, result.message});
}

}  // namespace

void add_bench_memory(CLI::App& bench, Action& action) {
  auto flags = std::make_shared<MemoryFlags>();
  auto* verb = add_verb(bench, "memory",
                        "Bytes that each sharding leaves on a rank, and each recomputation keeps",
                        "zebra bench memory --model data/tiny/base --nproc 4 --json");
  verb->add_option("--model", flags->model, "Model folder [data/tiny/base]")->type_name("DIR");
  verb->add_option("--nproc", flags->nproc, "Ranks [4]")->check(whole_number(1))->type_name("N");
  verb->add_option("--batch-size", flags->batch_size, "Sequences of a step [4]")
      ->check(whole_number(1))
      ->type_name("N");
  verb->add_option("--sequence-length", flags->sequence_length, "Tokens of a sequence [256]")
      ->check(whole_number(2))
      ->type_name("N");
  verb->add_flag("--bit-equal", flags->bit_equal,
                 "Gradients in float64, as with parallel.bit_equal");
  verb->add_flag("--json", flags->json, "Print JSON instead of a table");
  verb->callback([flags, &action] { action = [flags] { run_memory(*flags); }; });
}

}  // namespace zebra
