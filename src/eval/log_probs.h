// Summed log-probabilities of the tokens that a measure asks about.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "zebra/model.h"

namespace zebra {

// Sum over each row's targets of log p(target | the row up to it). Only positions with a target
// reach the head. input_ids, targets: (B, T) int64, targets -1 where nothing is asked
// -> (B) float64, differentiable.
at::Tensor row_log_probs(CausalLm model, const at::Tensor& input_ids, const at::Tensor& targets,
                         int64_t chunk_tokens);

// Tokens whose logits an evaluation holds at one time, by the size of the vocabulary.
int64_t evaluation_chunk(int64_t vocab_size);

// Throws ConfigError, naming `what` and the position, for an id that the model has no embedding of.
// ids: int64 of any shape, on the CPU.
void check_vocabulary(const char* what, const at::Tensor& ids, int64_t vocab_size);
void check_vocabulary(const char* what, const std::vector<int64_t>& ids, int64_t vocab_size);

}  // namespace zebra
