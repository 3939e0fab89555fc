// What the ways to generate have in common.
#pragma once

#include <functional>

#include <string>
#include <vector>

#include "eval/sampler.h"
#include "zebra/generate.h"

namespace zebra {

// ConfigError for an empty prompt, an id outside the vocabulary, and one that fills the context.
// `count` prompts: with several, the message names which.
void check_prompt(const CausalLm& model, const std::vector<int64_t>& prompt, size_t index,
                  size_t count);

// Reads ids behind what the one-row cache holds; scores of what follows, (1, V).
at::Tensor read_ids(CausalLm& model, const std::vector<int64_t>& ids, int64_t chunk,
                    ModelCache& cache);

// One row while it grows.
class RowInProgress {
 public:
  // `length`: tokens that the row has.
  RowInProgress(const GenerateOptions& options, uint64_t seed, int64_t length, int64_t max_length);

  Sampler sampler;
  GeneratedRow made;

  // Takes in an id; true when the row ends with it, `made.reason` then says why.
  bool take(int64_t id, const std::function<bool(int64_t)>& on_token);
  int64_t length() const { return length_; }

 private:
  const GenerateOptions* options_;
  int64_t length_, max_length_;
};

}  // namespace zebra
