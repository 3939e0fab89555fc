// The stages' own steps on the batches that the data make, packed and padded, against each document
// alone: every mixer, the loss and the gradient of every parameter, in float64.
#include <map>

#include "data/fixtures.h"
#include "support/close_to.h"
#include "train/small_hybrid.h"
#include "train/stages/steps.h"
#include "zebra/eval.h"
#include "zebra/losses.h"

namespace zebra::testing {

namespace {

using Layers = std::vector<MixerKind>;

// Of the documents, BOS and EOS among them: beyond the SSM's chunks, and no multiple of them.
const std::vector<int64_t> kLengths = {14, 5, 9, 4};
constexpr int64_t kChunk = 4, kSequence = 21;

const std::vector<std::pair<std::string, Layers>> kModels = {
    {"attention", {MixerKind::kAttention, MixerKind::kAttention}},
    {"mla", {MixerKind::kMla, MixerKind::kMla}},
    {"mamba2", {MixerKind::kMamba2, MixerKind::kMamba2}},
    {"hybrid", {MixerKind::kMamba2, MixerKind::kAttention, MixerKind::kMla}}};

CausalLm model_of(const Layers& layers, uint64_t seed) {
  auto options = small_hybrid_options(/*tied=*/false);
  options.vocab_size = ByteTokenizer().vocab_size();
  options.layers = layers;
  options.mamba2.chunk_size = kChunk;
  options.initializer_range = 0.3;
  torch::manual_seed(seed);
  CausalLm model(options);
  model->to(torch::kDouble);
  return model;
}

CausalLm teacher_of(const Layers& layers) {
  return model_of(Layers(layers.size(), MixerKind::kAttention), /*seed=*/2);
}

// ---- documents and batches

std::string letters(int64_t document, int64_t first, int64_t count) {
  std::string text;
  for (int64_t t = first; t < first + count; ++t) {
    text += static_cast<char>('a' + (document * 17 + t * t * 7) % 26);
  }
  return text;
}

// A document of kLengths as a prompt and its completion.
std::string record(int64_t document) {
  const int64_t text = kLengths[document] - 2, prompt = text / 2;
  return R"({"prompt": ")" + letters(document, 0, prompt) + R"(", "completion": ")" +
         letters(document, prompt, text - prompt) + "\"}\n";
}

// All sequences that the documents are laid into.
Batch batch_of(const std::string& records, DatasetOptions options) {
  const Folder folder;
  options.shuffle = false;
  const TokenDataset data({{folder.write("d.jsonl", records), SourceFormat::kPromptCompletion}},
                          ByteTokenizer(), options);
  return data.sequential(0, data.size());
}

Batch alone(int64_t document, LossOn loss_on) {
  auto batch = batch_of(
      record(document),
      {.sequence_length = kLengths[document], .packing = Packing::kNone, .loss_on = loss_on});
  CHECK_FALSE(batch.segments.defined());
  return batch;
}

Batch together(Packing packing, LossOn loss_on, bool cross_document = false) {
  std::string records;
  for (size_t i = 0; i < kLengths.size(); ++i) records += record(static_cast<int64_t>(i));
  auto batch = batch_of(records, {.sequence_length = kSequence,
                                  .packing = packing,
                                  .cross_document = cross_document,
                                  .loss_on = loss_on});
  REQUIRE(batch.segments.defined());
  return batch;
}

// Moves each row's last `counts[row]` positions to its beginning.
at::Tensor rolled(const at::Tensor& values, const std::vector<int64_t>& counts) {
  auto moved = values.clone();
  for (size_t b = 0; b < counts.size(); ++b) {
    const auto row = static_cast<int64_t>(b);
    moved[row].copy_(values[row].roll(counts[b]));
  }
  return moved;
}

Batch padded_on_the_left(Batch batch) {
  const auto padding = values(batch.segments.lt(0).sum(1));
  for (auto* tensor : {&batch.input_ids, &batch.segments, &batch.loss_mask, &batch.targets}) {
    *tensor = rolled(*tensor, padding);
  }
  return batch;
}

std::vector<std::pair<std::string, Batch>> batches_of(LossOn loss_on) {
  const auto packed = together(Packing::kBestFit, loss_on);
  const auto single = together(Packing::kNone, loss_on);
  REQUIRE(packed.input_ids.size(0) < single.input_ids.size(0));
  return {{"packed", packed},
          {"packed, padded on the left", padded_on_the_left(packed)},
          {"one a row", single},
          {"one a row, padded on the left", padded_on_the_left(single)}};
}

StepBatches step_of(const Batch& batch) {
  StepBatches step;
  step.add(batch);
  step.sequences = static_cast<double>(batch.input_ids.size(0));
  return step;
}

// ---- losses and gradients

// The loss under "loss", and the gradient of every parameter under its name.
using Result = std::map<std::string, at::Tensor>;

template <class Backward>
Result result_of(CausalLm& model, const Backward& backward) {
  model->zero_grad();
  Result result{{"loss", torch::tensor(backward(), torch::kDouble)}};
  for (const auto& item : model->named_parameters()) {
    const auto& gradient = item.value().grad();
    result[item.key()] =
        gradient.defined() ? gradient.clone() : torch::zeros_like(item.value()).detach();
  }
  return result;
}

void add(Result& sum, const Result& more) {
  for (const auto& [name, value] : more) {
    auto& total = sum[name];
    total = total.defined() ? total + value : value;
  }
}

void check_results(const Result& got, const Result& expected, const std::string& what) {
  REQUIRE(got.size() == expected.size());
  REQUIRE(expected.at("loss").item<double>() > 0);
  for (const auto& [name, value] : expected) {
    check_close(got.at(name), value, kTwin64, what + ", " + name);
  }
}

// A stage's step on this rank's batches -> the loss.
using Step = double (*)(CausalLm& model, CausalLm& teacher, const StepBatches& batches);

double pretraining(CausalLm& model, CausalLm& /*teacher*/, const StepBatches& batches) {
  return pretrain_step(model, batches);
}

double distillation(CausalLm& model, CausalLm& teacher, const StepBatches& batches) {
  DistillStage stage;
  stage.ce_weight = 0.5;
  stage.kl.temperature = 2;
  stage.kl.chunk_tokens = 8;
  stage.kl.normalize = Normalize::kToken;
  return distill_step(stage, teacher, model, batches).at(0).second;
}

double layerwise(CausalLm& model, CausalLm& teacher, const StepBatches& batches) {
  std::vector<Trainee> students = {{.name = "", .model = model}};
  return ild_step({}, teacher, students, batches).at(0).at(0).second;
}

// The documents alone, each counted as a part of the global batch `whole`.
Result sum_of_documents(Step step, CausalLm& model, CausalLm& teacher, LossOn loss_on,
                        const StepBatches& whole) {
  Result sum;
  StepBatches counts;  // of the documents together
  for (size_t i = 0; i < kLengths.size(); ++i) {
    auto one = step_of(alone(static_cast<int64_t>(i), loss_on));
    counts.text += one.text;
    counts.tokens += one.tokens;
    counts.predictions += one.predictions;
    one.sequences = whole.sequences;
    one.text = whole.text;
    one.tokens = whole.tokens;
    one.predictions = whole.predictions;
    add(sum, result_of(model, [&] { return step(model, teacher, one); }));
  }
  CHECK(counts.text == whole.text);
  CHECK(counts.tokens == whole.tokens);
  CHECK(counts.predictions == whole.predictions);
  return sum;
}

void check_stage(Step step) {
  for (const auto& [name, layers] : kModels) {
    if (step == layerwise && name == "attention") continue;  // has no layer that ILD trains
    auto model = model_of(layers, /*seed=*/1);
    auto teacher = teacher_of(layers);
    for (const auto loss_on : {LossOn::kAll, LossOn::kAssistant}) {
      for (const auto& [kind, batch] : batches_of(loss_on)) {
        const auto whole = step_of(batch);
        check_results(result_of(model, [&] { return step(model, teacher, whole); }),
                      sum_of_documents(step, model, teacher, loss_on, whole),
                      zebra::str(name, ", ", kind, ", loss on ", enum_name(loss_on)));
      }
    }
  }
}

}  // namespace

TEST_CASE("stage isolation: pretraining on packed or padded documents is their sum") {
  check_stage(pretraining);
}

TEST_CASE("stage isolation: distillation on packed or padded documents is their sum") {
  check_stage(distillation);
}

TEST_CASE("stage isolation: layer-wise distillation on packed or padded documents is their sum") {
  check_stage(layerwise);
}

TEST_CASE("stage isolation: with cross_document the same tokens have another loss") {
  const auto apart = step_of(together(Packing::kBestFit, LossOn::kAssistant));
  const auto joined =
      step_of(together(Packing::kBestFit, LossOn::kAssistant, /*cross_document=*/true));
  REQUIRE(apart.tokens == joined.tokens);
  REQUIRE(apart.predictions == joined.predictions);
  for (const auto& [name, layers] : kModels) {
    auto model = model_of(layers, /*seed=*/1);
    auto teacher = teacher_of(layers);
    for (const Step step : {pretraining, distillation, layerwise}) {
      if (step == layerwise && name == "attention") continue;
      INFO(name);
      const double difference = step(model, teacher, apart) - step(model, teacher, joined);
      CHECK(std::abs(difference) > kFiniteDifference);
    }
  }
}

// ---- preference pairs

namespace {

const std::vector<std::string> kPairs = {
    R"({"prompt": "abc", "chosen": "defghijk", "rejected": "lm"})"
    "\n",
    R"({"prompt": "nopqrstuv", "chosen": "w", "rejected": "xyz"})"
    "\n",
    R"({"prompt": "e", "chosen": "fed", "rejected": "cabbage"})"
    "\n"};

PreferenceDataset pairs_of(const std::string& records) {
  const Folder folder;
  return {{folder.write("p.jsonl", records)}, ByteTokenizer(), {}};
}

// The stage's step on all of `pairs`, which are a part of a global batch of kPairs.
Result dpo_result(CausalLm& model, const PreferenceDataset& pairs, const at::Tensor& reference,
                  int64_t micro_batch_size) {
  DpoStage stage;
  stage.batch_size = static_cast<int64_t>(kPairs.size());
  stage.beta = 0.1;
  const DpoPlan plan{.stage = stage,
                     .pairs = pairs,
                     .reference = reference,
                     .batches = {.seed = 1,
                                 .batch_size = pairs.size(),
                                 .begin = 0,
                                 .end = pairs.size(),
                                 .micro_batch_size = micro_batch_size},
                     .device = torch::kCPU};
  return result_of(model, [&] { return dpo_step(plan, model, /*step=*/0).at(0).second; });
}

// The same loss with the padding moved to the left of each row.
Result left_padded_result(CausalLm& model, const PreferenceDataset& pairs,
                          const at::Tensor& reference) {
  const int64_t P = pairs.size();
  const auto batch = pairs.sequential(0, P);
  const int64_t T = batch.input_ids.size(1);
  const auto places = torch::arange(T);  // (T)
  // The last target stands before the last token.
  const auto ends = (batch.targets.ge(0) * (places + 2)).amax(1);             // (2P) lengths
  const auto segments = places.ge(ends.unsqueeze(1)).to(torch::kLong).neg();  // (2P, T)
  const auto padding = values(T - ends);
  REQUIRE(batch.input_ids[0][values(ends)[0] - 1].item<int64_t>() == ByteTokenizer().eos_id());
  const auto targets = rolled(batch.targets, padding).flatten();  // (2P * T)
  const auto rows = targets.ge(0).nonzero().squeeze(1);           // (M)
  return result_of(model, [&] {
    const auto hidden = model->forward(rolled(batch.input_ids, padding), rolled(segments, padding));
    const auto nll = token_nll(hidden.flatten(0, 1).index_select(0, rows), model->head_weight(),
                               targets.index_select(0, rows), /*chunk_tokens=*/8);  // (M)
    const auto sums = torch::zeros({2 * P}, torch::kDouble)
                          .index_add(0, rows.div(T, /*rounding_mode=*/"floor"), -nll);  // (2P)
    const auto out = dpo_loss(sums.narrow(0, 0, P), sums.narrow(0, P, P), reference[0],
                              reference[1], /*beta=*/0.1, 1.0 / static_cast<double>(P));
    out.loss.backward();
    return out.loss.item<double>();
  });
}

}  // namespace

TEST_CASE("stage isolation: DPO on pairs padded on either side is the sum of each pair alone") {
  std::string records;
  for (const auto& record : kPairs) records += record;
  const auto pairs = pairs_of(records);
  const int64_t P = pairs.size();
  for (const auto& [name, layers] : kModels) {
    auto model = model_of(layers, /*seed=*/1);
    at::Tensor reference;  // (2, P)
    {
      const torch::NoGradGuard no_grad;
      auto start = model_of(layers, /*seed=*/2);
      reference = answer_log_probs(start, pairs.sequential(0, P), /*chunk_tokens=*/8).view({2, P});
    }
    Result sum;
    for (int64_t i = 0; i < P; ++i) {
      add(sum, dpo_result(model, pairs_of(kPairs[i]), reference.narrow(1, i, 1),
                          /*micro_batch_size=*/1));
    }
    check_results(dpo_result(model, pairs, reference, /*micro_batch_size=*/P), sum, name);
    check_results(dpo_result(model, pairs, reference, /*micro_batch_size=*/2), sum,
                  name + ", in micro batches");
    check_results(left_padded_result(model, pairs, reference), sum, name + ", padded on the left");
  }
}

}  // namespace zebra::testing
