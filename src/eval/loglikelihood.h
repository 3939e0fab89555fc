// Log-probabilities of continuations. Whatever requests of one document begin with alike is
// computed once, and so is the beginning that all documents of a task share.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "eval/requests.h"
#include "eval/tasks/task.h"
#include "zebra/model.h"

namespace zebra {

struct ScoringOptions {
  int64_t batch_size = 0;  // rows of one forward; 0: as many as fit
  // Rows times their length of what is computed at a time, padding included.
  int64_t batch_tokens = 16384;
  // Told now and then how many input tokens have been dealt with since the last call; by any
  // thread, one at a time.
  std::function<void(int64_t)> on_tokens = {};
};

// The requests of one document.
using Question = std::vector<TokenRequest>;

// Input tokens of all requests: what on_tokens adds up to.
int64_t count_tokens(const std::vector<Question>& questions);

// One answer a request, in their order. Sums are made in float64. The result does not depend on the
// batches beyond the rounding of the model's own arithmetic.
std::vector<std::vector<LogLikelihood>> log_likelihoods(CausalLm model,
                                                        const std::vector<Question>& questions,
                                                        const ScoringOptions& options);

}  // namespace zebra
