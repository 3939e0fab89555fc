// Draws tokens from a model's scores.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <random>
#include <vector>

#include "zebra/generate.h"

namespace zebra {

// Tokens that may come next, and their probabilities, which sum to 1.
struct Distribution {
  std::vector<int64_t> ids;  // ascending
  std::vector<double> probabilities;

  double of(int64_t id) const;  // 0 for an id that may not come
};

// max(p - q, 0), normalised: what is drawn from when a proposal from q is refused.
Distribution residual(const Distribution& p, const Distribution& q);

// One row's settings, tokens so far, and random numbers. Computes in float64 on the CPU, so that a
// seed means the same on every device.
class Sampler {
 public:
  Sampler(const GenerateOptions& options, uint64_t seed);

  bool greedy() const { return options_.temperature == 0; }
  // Greedy without a penalty: the argmax of the logits is the answer.
  bool plain() const { return greedy() && options_.repetition_penalty == 1; }

  // Tokens of the text, for the repetition penalty; forget() takes back the last see() of an id.
  void see(int64_t id);
  void forget(int64_t id);

  Distribution distribution(const at::Tensor& logits) const;  // (V)
  int64_t draw(const Distribution& distribution);
  int64_t pick(const at::Tensor& logits) { return draw(distribution(logits)); }
  double uniform();  // [0, 1)

 private:
  void penalise(std::vector<double>& scores) const;

  GenerateOptions options_;
  std::mt19937_64 random_;
  std::vector<int32_t> seen_;  // how often, by id
};

}  // namespace zebra
