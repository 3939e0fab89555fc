// What smaller types of the caches change in a model's predictions.
#pragma once

#include <ATen/core/Tensor.h>

#include "zebra/generate.h"

namespace zebra {

struct CacheDrift {
  double nats_per_token = 0;        // of the text, with these caches
  double exact_nats_per_token = 0;  // with the model's own type and float32 states
  double kl_per_token = 0;          // KL(exact || these)
  double top1_agreement = 0;        // share of tokens where both argmaxes are equal
};

// ids: (B, T + 1) int64. Reads `read` tokens of each row, then goes on one token a step, as
// generation does, and compares the predictions of every step.
CacheDrift measure_cache_drift(CausalLm model, const at::Tensor& ids, int64_t read,
                               const CacheOptions& options);

}  // namespace zebra
