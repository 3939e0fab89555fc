// The learning rate over the steps of a stage.
#pragma once

#include <cstdint>

#include "zebra/recipe.h"

namespace zebra {

// The learning rate of step `step`, counted from 0, of `total_steps`. A pure function: nothing to
// save or restore.
//
// The forms are those of Hugging Face's schedulers. The first ceil(warmup_ratio * total_steps)
// steps rise linearly from 0, so step 0 of a schedule with warm-up has the learning rate 0. Then,
// with p the share of the remaining steps done:
//   cosine    min + (1 - min) * (1 + cos(pi p)) / 2
//   linear    min + (1 - min) * (1 - p)
//   constant  1
//   wsd       1, and linear down to min over the last round(decay_ratio * total_steps) steps
// times the peak, where min is min_ratio.
double learning_rate(const OptimizerOptions& options, int64_t step, int64_t total_steps);

}  // namespace zebra
