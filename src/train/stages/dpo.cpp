// Direct preference optimisation against a frozen copy of the model that the stage starts from.
#include <charconv>
#include <cmath>
#include <optional>

#include "base/hash.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signals.h"
#include "base/stopwatch.h"
#include "train/flops.h"
#include "train/stages/stages.h"
#include "train/stages/steps.h"
#include "zebra/error.h"
#include "zebra/eval.h"
#include "zebra/losses.h"
#include "zebra/safetensors.h"

namespace zebra {

namespace {

PreferenceBatch on_device(PreferenceBatch batch, at::Device device) {
  batch.input_ids = batch.input_ids.to(device);
  batch.targets = batch.targets.to(device);
  return batch;
}

// Log-probabilities of the pairs under the starting model, as far as they are known.
struct Reference {
  at::Tensor log_probs;  // (2, P) float64: chosen, rejected
  int64_t pairs = 0;     // the first ones are known
};

std::string hash_of(const Reference& known) {
  const auto bytes = known.log_probs.to(at::kCPU).contiguous();
  Hasher hasher;
  hasher.add_bytes(bytes.data_ptr(), bytes.nbytes());
  hasher.add(static_cast<uint64_t>(known.pairs));
  return std::to_string(hasher.value());
}

// Batches of each rank between two times that the reference is kept.
constexpr int64_t kBatchesKept = 64;

// What an earlier start of the stage has kept; nothing when there is none of this key, or when the
// file is damaged, which is told.
Reference read_reference(const std::filesystem::path& path, uint64_t key) {
  if (!std::filesystem::exists(path)) return {};
  try {
    const SafetensorsFile file(path);
    auto metadata = file.metadata();
    if (metadata["key"] != std::to_string(key)) return {};
    Reference kept{.log_probs = file.read("log_probs"), .pairs = 0};
    const std::string& pairs = metadata["pairs"];
    std::from_chars(pairs.data(), pairs.data() + pairs.size(), kept.pairs);
    if (metadata["xxh3"] == hash_of(kept)) return kept;
    log_warning(str(path.string(), ": damaged, its values are computed again"));
  } catch (const ConfigError& error) {
    log_warning(str(error.what(), "; its values are computed again"));
  }
  return {};
}

void write_reference(const std::filesystem::path& path, uint64_t key, const Reference& known) {
  std::filesystem::create_directories(path.parent_path());
  write_safetensors(path, {{"log_probs", known.log_probs}},
                    {{"key", std::to_string(key)},
                     {"pairs", std::to_string(known.pairs)},
                     {"xxh3", hash_of(known)}});
}

// Those of all pairs, computed once; what was kept by an earlier start is gone on from. Batches are
// the same whatever the number of ranks, which take turns and add up what each has done.
// -> (2, P) float64: chosen, rejected.
at::Tensor reference_log_probs(Job& job, CausalLm model, const PreferenceDataset& pairs,
                               uint64_t key) {
  const torch::NoGradGuard no_grad;
  const auto path = job.folder.checkpoints("dpo") / "reference.safetensors";
  const auto kept = [&] { return std::to_string(read_reference(path, key).pairs); };
  const int64_t P = pairs.size(), step = job.recipe.stages.dpo->batch_size;
  const int64_t rank = job.group.rank(), turn = job.group.size() * step;
  Reference known{.log_probs = torch::zeros({2, P}, torch::kDouble),
                  .pairs = std::stoll(job.group.led_text(kept))};
  if (known.pairs > 0) {
    known.log_probs = read_reference(path, key).log_probs;
    log_info(str("dpo: the reference of ", known.pairs, " of ", P, " pairs is there"));
  }
  std::optional<Progress> progress;
  if (job.group.leads()) progress.emplace("dpo: reference", P, /*tokens_per_step=*/0);
  while (known.pairs < P) {
    const int64_t begin = known.pairs, end = std::min(P, begin + kBatchesKept * turn);
    const auto made = torch::zeros({2, end - begin}, torch::kDouble).to(job.device);
    for (int64_t first = begin + rank * step; first < end; first += turn) {
      throw_if_stopped("dpo: log-probabilities of the starting model");
      if (progress) progress->update(first, "");
      const int64_t count = std::min(step, P - first);
      const auto batch = on_device(pairs.sequential(first, count), job.device);
      const auto values = answer_log_probs(model, batch, kChunkTokens);  // (2 * count)
      made.narrow(1, first - begin, count).copy_(values.view({2, count}));
    }
    job.group.all_reduce(made).wait();
    known.log_probs.narrow(1, begin, end - begin).copy_(made);
    known.pairs = end;
    job.group.led([&] { write_reference(path, key, known); });
  }
  return known.log_probs.to(job.device);
}

}  // namespace

Metrics dpo_step(const DpoPlan& plan, CausalLm& model, int64_t step) {
  const int64_t batch_size = plan.stage.batch_size;
  double loss = 0, margin = 0, right = 0, samples = 0, data_seconds = 0;
  plan.batches.visit_micro_batches(step, [&](int64_t first, int64_t count) {
    const Stopwatch clock;
    const auto batch = on_device(plan.pairs.batch(plan.batches.seed, first, count), plan.device);
    data_seconds += clock.seconds();
    samples += sample_mark(first, batch.sample_ids);
    const auto values = answer_log_probs(model, batch, kChunkTokens);  // (2 * count)
    const auto ids = torch::tensor(batch.sample_ids).to(plan.device);  // (count)
    const auto reference = plan.reference.index_select(1, ids);        // (2, count)
    const auto out =
        dpo_loss(values.narrow(0, 0, count), values.narrow(0, count, count), reference[0],
                 reference[1], plan.stage.beta, 1.0 / static_cast<double>(batch_size));
    out.loss.backward();
    loss += out.loss.item<double>();
    margin += out.margins.sum().item<double>();
    right += out.margins.gt(0).sum().item<double>();
  });
  const auto pairs = static_cast<double>(batch_size);
  return {{"loss", loss},
          {"margin", margin / pairs},
          {"accuracy", right / pairs},
          {"samples", samples},
          {"data_seconds", data_seconds}};
}

StageResult run_dpo(Job& job, uint64_t key) {
  const auto& stage = *job.recipe.stages.dpo;
  const auto pairs = job.train_pairs();
  const auto cuts = pairs.cuts();
  log_info(str("dpo: of ", pairs.size(), " pairs the prompts of ", cuts.prompts,
               " are cut on the left, answers of ", cuts.answers, " on the right"));
  const char* before = job.recipe.stages.distill ? "distill" : job.recipe.hybrid ? "compose" : "";
  auto model = job.load(*before ? job.folder.stage(before) : job.base_folder());
  const DpoPlan plan{.stage = stage,
                     .pairs = pairs,
                     .reference = reference_log_probs(job, model, pairs, key),
                     .batches = batch_plan(job, "dpo", stage.batch_size, stage.micro_batch_size),
                     .device = job.device};
  const double steps = std::ceil(stage.epochs * static_cast<double>(pairs.size()) /
                                 static_cast<double>(stage.batch_size));
  std::vector<Trainee> trainees = {{.name = "", .model = model}};
  const double seconds =
      run_loop(job,
               {.stage = "dpo",
                .key = key,
                .steps = std::max<int64_t>(1, static_cast<int64_t>(steps)),
                .tokens_per_step = static_cast<double>(2 * stage.batch_size * stage.max_length),
                .flops_per_step = static_cast<double>(2 * stage.batch_size * stage.max_length) * 3 *
                                  forward_flops(model->options(), stage.max_length).total(),
                .optimizer = stage.optimizer,
                .micro_batches = plan.batches.micro_batches(),
                .samples = sample_ids_of(pairs, plan.batches)},
               trainees,
               [&](int64_t step) -> std::vector<Metrics> { return {dpo_step(plan, model, step)}; });
  job.group.led([&] { job.save(job.folder.stage("dpo"), model); });
  return {seconds};
}

}  // namespace zebra
