// Packed and padded batches against their documents alone: every mixer, every stage's loss, all
// gradients, in float64.
#include <numeric>

#include "support/close_to.h"
#include "support/testing.h"
#include "zebra/eval.h"
#include "zebra/losses.h"
#include "zebra/model.h"

namespace zebra::testing {

namespace {

using Layers = std::vector<MixerKind>;

constexpr int64_t kVocabulary = 50;
const std::vector<int64_t> kLengths = {5, 1, 9, 3};  // of the documents

ModelOptions options_of(const Layers& layers) {
  ModelOptions options;
  options.vocab_size = kVocabulary;
  options.hidden_size = 16;
  options.intermediate_size = 24;
  options.num_heads = 4;
  options.num_kv_heads = 2;
  options.head_dim = 4;
  options.max_position_embeddings = 64;
  options.layers = layers;
  options.mla = {.hidden_size = 16,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .q_lora_rank = 8,
                 .kv_lora_rank = 8,
                 .qk_nope_head_dim = 2,
                 .qk_rope_head_dim = 2,
                 .v_head_dim = 4};
  options.mamba2 = {.hidden_size = 16, .num_heads = 4, .num_kv_heads = 2, .head_dim = 4};
  options.mamba2.chunk_size = 4;
  options.initializer_range = 0.3;
  return options;
}

CausalLm model_of(const Layers& layers, uint64_t seed) {
  torch::manual_seed(seed);
  CausalLm model(options_of(layers));
  model->to(torch::kDouble);
  return model;
}

// Sequences with the index of each document's tokens among all tokens of the batch.
struct Case {
  std::string name;
  at::Tensor input_ids, segments;  // (B, T); segments undefined: one document, no padding
};

std::vector<int64_t> document(size_t index) {
  std::vector<int64_t> ids;
  for (int64_t t = 0; t < kLengths[index]; ++t) {
    ids.push_back((static_cast<int64_t>(index) * 17 + t * t * 7 + 3) % kVocabulary);
  }
  return ids;
}

Case alone(size_t index) {
  return {
      .name = "alone", .input_ids = torch::tensor(document(index)).unsqueeze(0), .segments = {}};
}

// All documents in one row, with `left` and `right` tokens of padding.
Case packed(const std::string& name, int64_t left, int64_t right) {
  std::vector<int64_t> ids(left, 2), segments(left, -1);
  for (size_t i = 0; i < kLengths.size(); ++i) {
    for (const auto id : document(i)) {
      ids.push_back(id);
      segments.push_back(static_cast<int64_t>(i));
    }
  }
  ids.resize(ids.size() + right, 2);
  segments.resize(segments.size() + right, -1);
  return {.name = name,
          .input_ids = torch::tensor(ids).unsqueeze(0),
          .segments = torch::tensor(segments).unsqueeze(0)};
}

// One document a row, padded on one side.
Case padded(const std::string& name, bool on_left) {
  const int64_t B = static_cast<int64_t>(kLengths.size());
  const int64_t T = *std::max_element(kLengths.begin(), kLengths.end()) + 1;
  Case made{.name = name,
            .input_ids = torch::full({B, T}, 2, torch::kLong),
            .segments = torch::full({B, T}, -1, torch::kLong)};
  for (int64_t b = 0; b < B; ++b) {
    const int64_t first = on_left ? T - kLengths[b] : 0;
    made.input_ids[b].narrow(0, first, kLengths[b]).copy_(torch::tensor(document(b)));
    made.segments[b].narrow(0, first, kLengths[b]).zero_();
  }
  return made;
}

at::Tensor text_mask(const Case& batch) {
  return batch.segments.defined() ? batch.segments.ge(0)
                                  : torch::ones_like(batch.input_ids, torch::kBool);
}

// (B, T): the next token of the same document, or -1.
at::Tensor targets_of(const Case& batch) {
  const auto segments =
      batch.segments.defined() ? batch.segments : torch::zeros_like(batch.input_ids);
  const int64_t T = batch.input_ids.size(1);
  auto targets = torch::full_like(batch.input_ids, -1);
  const auto same = segments.narrow(1, 0, T - 1).eq(segments.narrow(1, 1, T - 1)) &
                    segments.narrow(1, 1, T - 1).ge(0);
  targets.narrow(1, 0, T - 1)
      .copy_(torch::where(same, batch.input_ids.narrow(1, 1, T - 1), targets.narrow(1, 0, T - 1)));
  return targets;
}

at::Tensor rows_of(const at::Tensor& values, const at::Tensor& mask) {
  return values.flatten(0, 1).index_select(0, mask.flatten().nonzero().squeeze(1));
}

// Sum over the documents' tokens of -log p(next token): pretrain.
at::Tensor cross_entropy(CausalLm model, CausalLm /*teacher*/, const Case& batch) {
  const auto targets = targets_of(batch);
  const auto hidden = model->forward(batch.input_ids, batch.segments);
  const auto mask = targets.ge(0);
  if (!mask.any().item<bool>()) return hidden.sum() * 0;
  return token_nll(rows_of(hidden, mask), model->head_weight(), rows_of(targets, mask), 4).sum();
}

// Divergence and cross-entropy: distill.
at::Tensor distillation(CausalLm model, CausalLm teacher, const Case& batch) {
  const auto mask = text_mask(batch);
  DistillLossInput in;
  in.student_hidden = rows_of(model->forward(batch.input_ids, batch.segments), mask);
  in.student_head = model->head_weight();
  {
    torch::NoGradGuard no_grad;
    in.teacher_hidden = rows_of(teacher->forward(batch.input_ids, batch.segments), mask);
    in.teacher_head = teacher->head_weight();
  }
  in.targets = rows_of(targets_of(batch), mask);
  in.kl_weights = in.ce_weights = torch::ones({in.targets.size(0)}, torch::kDouble);
  return distill_loss(in, {.kl_weight = 1.0, .ce_weight = 0.5, .chunk_tokens = 4}).loss;
}

// Every block of the student on the teacher's own hidden states: ILD.
at::Tensor layerwise(CausalLm model, CausalLm teacher, const Case& batch) {
  const auto weights = text_mask(batch).to(torch::kDouble);
  const auto context = model->context(batch.input_ids, batch.segments, 0);
  const auto teacher_context = teacher->context(batch.input_ids, batch.segments, 0);
  auto hidden = teacher->embed(batch.input_ids).detach();
  at::Tensor loss;
  for (int64_t i = 0; i < model->options().num_layers(); ++i) {
    const auto student = model->block(i)->forward(hidden, context, nullptr);
    torch::NoGradGuard no_grad;
    const auto wanted = teacher->block(i)->forward(hidden, teacher_context, nullptr);
    torch::AutoGradMode with_grad(true);
    const auto part =
        ild_distance(student.hidden, wanted.hidden.detach(), weights, IldForm::kNorm) +
        ild_distance(student.mixer_out, wanted.mixer_out.detach(), weights, IldForm::kNorm);
    loss = loss.defined() ? loss + part : part;
    hidden = wanted.hidden.detach();
  }
  return loss;
}

using Loss = at::Tensor (*)(CausalLm, CausalLm, const Case&);

// The loss, then every parameter's gradient, as one vector.
at::Tensor loss_and_gradients(Loss loss, CausalLm model, CausalLm teacher, const Case& batch) {
  model->zero_grad();
  const auto value = loss(model, teacher, batch);
  value.backward();
  std::vector<at::Tensor> all{value.detach().to(torch::kDouble).reshape({1})};
  for (const auto& parameter : model->parameters()) {
    all.push_back(parameter.grad().defined() ? parameter.grad().flatten().clone()
                                             : torch::zeros_like(parameter).flatten());
  }
  return torch::cat(all);
}

const std::vector<std::pair<std::string, Layers>>& models() {
  static const std::vector<std::pair<std::string, Layers>> all = {
      {"attention", {MixerKind::kAttention, MixerKind::kAttention}},
      {"mla", {MixerKind::kMla, MixerKind::kMla}},
      {"mamba2", {MixerKind::kMamba2, MixerKind::kMamba2}},
      {"hybrid", {MixerKind::kMamba2, MixerKind::kMla, MixerKind::kAttention}}};
  return all;
}

void check_loss(Loss loss) {
  for (const auto& [name, layers] : models()) {
    auto model = model_of(layers, 1);
    auto teacher = model_of(Layers(layers.size(), MixerKind::kAttention), 2);
    at::Tensor sum;
    for (size_t i = 0; i < kLengths.size(); ++i) {
      const auto one = loss_and_gradients(loss, model, teacher, alone(i));
      sum = sum.defined() ? sum + one : one;
    }
    REQUIRE(sum[0].item<double>() > 0);
    for (const auto& batch :
         {packed("packed", 0, 0), packed("packed, padded on the right", 0, 5),
          packed("packed, padded on the left", 6, 0), packed("packed, padded on both sides", 3, 4),
          padded("padded on the right", /*on_left=*/false),
          padded("padded on the left", /*on_left=*/true)}) {
      const auto together = loss_and_gradients(loss, model, teacher, batch);
      check_close(together, sum, kTwin64, name + ", " + batch.name);
    }
  }
}

}  // namespace

TEST_CASE("isolation: cross-entropy of a packed or padded batch is its documents' sum") {
  check_loss(cross_entropy);
}

TEST_CASE("isolation: distillation of a packed or padded batch is its documents' sum") {
  check_loss(distillation);
}

TEST_CASE("isolation: layer-wise distillation of a packed or padded batch is its documents' sum") {
  check_loss(layerwise);
}

TEST_CASE("isolation: without segments the documents of a row do see each other") {
  for (const auto& [name, layers] : models()) {
    auto model = model_of(layers, 1);
    auto batch = packed("joined", 0, 0);
    const auto apart = model->forward(batch.input_ids, batch.segments);
    const auto joined = model->forward(batch.input_ids, {});
    INFO(name);
    CHECK((apart - joined).abs().max().item<double>() > 1e-3);
    CHECK(describe_difference(joined.narrow(1, 0, kLengths[0]), apart.narrow(1, 0, kLengths[0]),
                              kTwin64, "first document") == "");
  }
}

TEST_CASE("isolation: DPO's padded pairs have the log-probabilities and gradients of each alone") {
  const std::vector<PreferencePair> pairs = {{{1, 4, 9}, {7, 2}, {8, 3, 5, 2}},
                                             {{1}, {6, 6, 6, 6, 2}, {9, 2}}};
  const auto batch_of = [](const std::vector<PreferencePair>& of) {
    int64_t T = 0;
    for (const auto& pair : of) {
      const auto longest = std::max(pair.chosen.size(), pair.rejected.size());
      T = std::max<int64_t>(T, static_cast<int64_t>(pair.prompt.size() + longest));
    }
    const int64_t B = static_cast<int64_t>(of.size());
    PreferenceBatch batch{.input_ids = torch::full({2 * B, T}, 2, torch::kLong),
                          .targets = torch::full({2 * B, T}, -1, torch::kLong),
                          .sample_ids = {}};
    for (int64_t row = 0; row < 2 * B; ++row) {
      const auto& pair = of[row % B];
      auto ids = pair.prompt;
      const auto& answer = row < B ? pair.chosen : pair.rejected;
      ids.insert(ids.end(), answer.begin(), answer.end());
      batch.input_ids[row].narrow(0, 0, static_cast<int64_t>(ids.size())).copy_(torch::tensor(ids));
      batch.targets[row]
          .narrow(0, static_cast<int64_t>(pair.prompt.size()) - 1,
                  static_cast<int64_t>(answer.size()))
          .copy_(torch::tensor(answer));
    }
    return batch;
  };
  for (const auto& [name, layers] : models()) {
    auto model = model_of(layers, 3);
    const auto run = [&](const std::vector<PreferencePair>& of) {
      model->zero_grad();
      const auto values = answer_log_probs(model, batch_of(of), 4).to(torch::kDouble);
      const int64_t B = static_cast<int64_t>(of.size());
      const auto zeros = torch::zeros({B}, torch::kDouble);
      const auto out =
          dpo_loss(values.narrow(0, 0, B), values.narrow(0, B, B), zeros, zeros, 0.1, 1.0);
      out.loss.backward();
      std::vector<at::Tensor> all{out.loss.detach().reshape({1})};
      for (const auto& parameter : model->parameters())
        all.push_back(parameter.grad().flatten().clone());
      return torch::cat(all);
    };
    check_close(run(pairs), run({pairs[0]}) + run({pairs[1]}), kTwin64, name);
  }
}

}  // namespace zebra::testing
