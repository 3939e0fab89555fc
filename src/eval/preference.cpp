// Log-probabilities of chosen and rejected answers.
#include <algorithm>

#include "base/progress.h"
#include "base/signals.h"
#include "eval/log_probs.h"
#include "zebra/error.h"
#include "zebra/eval.h"

namespace zebra {

at::Tensor answer_log_probs(CausalLm model, const PreferenceBatch& batch, int64_t chunk_tokens) {
  return row_log_probs(model, batch.input_ids, batch.targets, chunk_tokens);  // (2B)
}

PreferenceScores score_preferences(CausalLm model, const PreferenceDataset& pairs,
                                   int64_t batch_size) {
  if (batch_size < 1) {
    throw ConfigError(str("eval batch_size: expected at least 1, got ", batch_size));
  }
  const torch::NoGradGuard no_grad;
  const auto device = model->head_weight().device();
  const int64_t chunk = evaluation_chunk(model->options().vocab_size);
  double right = 0, margin = 0;
  Progress progress("preference pairs", pairs.size(), /*tokens_per_step=*/0);
  for (int64_t first = 0; first < pairs.size(); first += batch_size) {
    throw_if_stopped("eval: preference pairs");
    progress.update(first, "");
    const int64_t count = std::min(batch_size, pairs.size() - first);
    auto batch = pairs.sequential(first, count);
    check_vocabulary("preference pairs", batch.input_ids, model->options().vocab_size);
    batch.input_ids = batch.input_ids.to(device);
    batch.targets = batch.targets.to(device);
    const auto values = answer_log_probs(model, batch, chunk).to(torch::kCPU, torch::kDouble);
    const auto margins = values.narrow(0, 0, count) - values.narrow(0, count, count);  // (B)
    margin += margins.sum().item<double>();
    right += margins.gt(0).sum().item<double>();
  }
  const auto count = static_cast<double>(pairs.size());
  return {.accuracy = right / count, .margin = margin / count, .pairs = pairs.size()};
}

}  // namespace zebra
