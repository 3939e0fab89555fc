// Measures of a model: held-out loss, divergence from a teacher, multiple choice, preferences.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "zebra/dataset.h"
#include "zebra/generate.h"
#include "zebra/model.h"
#include "zebra/tokenizer.h"

namespace zebra {

struct TextScores {
  double nats_per_token = 0;  // over the tokens that have a next token
  double bits_per_byte = 0;
  double kl_per_token = 0;    // KL(teacher || model) over all tokens; 0 without a teacher
  double top1_agreement = 0;  // share of tokens where both argmaxes are equal; 0 without a teacher
  int64_t predictions = 0, positions = 0;
};

// Scores every sequence of `data` (at most `max_sequences` when positive) in file order; sums in
// float64. teacher: a model with the same vocabulary, or nullptr.
TextScores score_text(CausalLm model, CausalLm* teacher, const TokenDataset& data,
                      int64_t batch_size, int64_t max_sequences);

// Share of questions whose true ending has the greatest log-probability per character ("acc_norm"),
// and plain ("acc").
struct ChoiceScores {
  double accuracy = 0, accuracy_norm = 0;
  int64_t questions = 0;
};
ChoiceScores score_choices(CausalLm model, const Tokenizer& tokenizer,
                           const std::vector<MultipleChoice>& questions);

// Share of pairs where the model gives the chosen answer the greater summed log-probability.
struct PreferenceScores {
  double accuracy = 0;
  double margin = 0;  // mean of chosen minus rejected log-probability, nats
  int64_t pairs = 0;
};
PreferenceScores score_preferences(CausalLm model, const PreferenceDataset& pairs,
                                   int64_t batch_size);

// Sequence log-probabilities of the answers. -> (2B) float64, in the batch's row order,
// differentiable.
at::Tensor answer_log_probs(CausalLm model, const PreferenceBatch& batch, int64_t chunk_tokens);

}  // namespace zebra
