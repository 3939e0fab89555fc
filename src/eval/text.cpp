// Held-out loss, and distance from a teacher, on packed text.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "base/progress.h"
#include "base/signals.h"
#include "eval/log_probs.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

namespace {

// Sums over the tokens of a batch, left on the device: nats over the tokens with a target,
// divergence and equal argmaxes over all tokens. (3) float64.
using Sums = at::Tensor;

Sums zero_sums(at::Device device) {
  return torch::zeros({3}, torch::TensorOptions().dtype(torch::kDouble).device(device));
}

// log_p: (M, V), targets: (M), -1 for none -> scalar float64
at::Tensor sum_nats(const at::Tensor& log_p, const at::Tensor& targets) {
  const auto of_target = log_p.gather(1, targets.clamp_min(0).unsqueeze(1)).squeeze(1);  // (M)
  return -of_target.masked_fill(targets.lt(0), 0).sum(torch::kDouble);
}

// log_p, log_q: (M, V) of model and teacher -> scalar float64
at::Tensor sum_divergence(const at::Tensor& log_p, const at::Tensor& log_q) {
  return (log_q.exp() * (log_q - log_p)).sum(-1).sum(torch::kDouble);
}

// What the heads are applied to, padding removed.
struct TokenRows {
  at::Tensor hidden;          // (M, D)
  at::Tensor teacher_hidden;  // (M, Dt), undefined without a teacher
  at::Tensor targets;         // (M)
};

Sums sum_rows(const CausalLm& model, const CausalLm* teacher, const TokenRows& rows) {
  const int64_t M = rows.hidden.size(0);
  const int64_t chunk = evaluation_chunk(model->options().vocab_size);
  auto sums = zero_sums(rows.hidden.device());
  for (int64_t first = 0; first < M; first += chunk) {
    const int64_t count = std::min(chunk, M - first);
    const auto logits = model->logits(rows.hidden.narrow(0, first, count));  // (m, V)
    const auto log_p = at::log_softmax(logits, -1);                          // (m, V)
    sums[0] += sum_nats(log_p, rows.targets.narrow(0, first, count));
    if (teacher == nullptr) continue;
    const auto wanted = (*teacher)->logits(rows.teacher_hidden.narrow(0, first, count));  // (m, V)
    sums[1] += sum_divergence(log_p, at::log_softmax(wanted, -1));
    sums[2] += logits.argmax(-1).eq(wanted.argmax(-1)).sum();
  }
  return sums;
}

Sums score_batch(CausalLm& model, CausalLm* teacher, const Batch& batch) {
  const auto device = model->head_weight().device();
  const auto ids = batch.input_ids.to(device);
  const bool packed = batch.segments.defined();
  const auto segments = packed ? batch.segments.to(device) : at::Tensor();
  at::Tensor text;  // indices of the tokens that carry a loss; undefined: all
  if (!batch.loss_everywhere) text = batch.loss_mask.flatten().nonzero().squeeze(1).to(device);
  const auto rows_of = [&](const at::Tensor& values) {  // (B, T, ...) -> (M, ...)
    const auto flat = values.flatten(0, 1);
    return text.defined() ? flat.index_select(0, text) : flat;
  };
  TokenRows rows;
  rows.hidden = rows_of(model->forward(ids, segments));
  rows.targets = rows_of(batch.targets.to(device));
  if (teacher != nullptr) {
    const bool same = teacher->get() == model.get();  // the base is measured against itself
    rows.teacher_hidden = same ? rows.hidden : rows_of((*teacher)->forward(ids, segments));
  }
  return sum_rows(model, teacher, rows);
}

void check_inputs(const CausalLm& model, const CausalLm* teacher, int64_t batch_size) {
  if (batch_size < 1) {
    throw ConfigError(str("eval batch_size: expected at least 1, got ", batch_size));
  }
  if (teacher == nullptr) return;
  const int64_t expected = model->options().vocab_size, got = (*teacher)->options().vocab_size;
  if (expected != got) {
    throw ConfigError(str("vocabulary of the teacher: expected ", expected,
                          " entries as the model has, got ", got));
  }
}

}  // namespace

TextScores score_text(CausalLm model, CausalLm* teacher, const TokenDataset& data,
                      int64_t batch_size, int64_t max_sequences) {
  check_inputs(model, teacher, batch_size);
  const torch::NoGradGuard no_grad;
  const int64_t all = data.size();
  const int64_t sequences = max_sequences > 0 ? std::min(max_sequences, all) : all;
  TextScores scores;
  auto sums = zero_sums(model->head_weight().device());
  const double tokens = static_cast<double>(data.tokens()) / static_cast<double>(all);
  Progress progress("held-out text", sequences, /*tokens_per_step=*/tokens);
  for (int64_t first = 0; first < sequences; first += batch_size) {
    throw_if_stopped("eval: held-out text");
    progress.update(first, "");
    const auto batch = data.sequential(first, std::min(batch_size, sequences - first));
    check_vocabulary("held-out text", batch.input_ids, model->options().vocab_size);
    scores.positions += batch.loss_mask.sum(torch::kDouble).item<int64_t>();
    scores.predictions += batch.targets.ge(0).sum().item<int64_t>();
    sums += score_batch(model, teacher, batch);
  }
  sums = sums.cpu();
  const double nats = sums[0].item<double>();
  const auto positions = static_cast<double>(scores.positions);
  // The scored sequences' part of the text, by their part of its tokens.
  const double bytes =
      static_cast<double>(data.bytes()) * positions / static_cast<double>(data.tokens());
  scores.nats_per_token = nats / static_cast<double>(scores.predictions);
  scores.bits_per_byte = bytes > 0 ? nats / std::numbers::ln2 / bytes : 0;
  scores.kl_per_token = sums[1].item<double>() / positions;
  scores.top1_agreement = sums[2].item<double>() / positions;
  return scores;
}

}  // namespace zebra
