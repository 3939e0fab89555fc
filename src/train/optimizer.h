// AdamW on flat buffers: the optimiser of every stage.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "train/moments.h"
#include "train/shards.h"
#include "zebra/checkpoint.h"
#include "zebra/recipe.h"

namespace zebra {

struct StepResult {
  double grad_norm = 0;  // global, before clipping
  bool finite = true;    // false: nothing was updated
};

// AdamW with decoupled weight decay and clipping by the global norm.
//
// It works on the buffers of ParameterShards: clearing, the norm and the update are a few calls
// whatever the number of parameters, and a rank updates the part that it owns. bf16 parameters have
// float32 masters; these are rounded into the parameters after each step.
//
// The same calls on the same numbers give the same bits, whatever the number of threads.
class AdamW {
 public:
  // One rank, all of the state.
  AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options);
  // `group` outlives this; weight decay and alignment in `shards` are the optimiser's to set.
  AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options, Group& group,
        ShardOptions shards);

  // The three parts of a step. First the gradients' sums over ranks and micro-batches, and their
  // global norm, the same on every rank; then either the update with this learning rate, clipped by
  // the norm, or nothing. Both clear the gradients.
  double finish_gradients();
  void update(double learning_rate, double grad_norm);
  void discard();

  // All three: a non-finite norm changes nothing but the gradients (cleared).
  StepResult step(double learning_rate);

  // Pieces under `prefix`, views where they can be: this rank's part of parameters (the masters)
  // and both moments; the step count goes into the state. What all ranks hold alike they divide.
  void save(const std::string& prefix, Checkpoint& out) const;

  // Takes back what `save` wrote, with whatever sharding and number of ranks. Missing, surplus or
  // mis-shaped tensors: GaveUpError naming them, nothing changed.
  void load(const std::string& prefix, const SavedCheckpoint& in);

  int64_t steps() const { return steps_; }  // updates done
  ParameterShards& shards() { return *shards_; }

  // Bytes of this rank.
  struct Bytes {
    int64_t parameters = 0, gradients = 0, masters = 0, moments = 0;
  };
  Bytes bytes() const;

 private:
  // Beside each group of the shards.
  struct State {
    at::Tensor
        master;  // flat, float32 (float64 for float64); the group's `own` unless that is bf16
    Moment exp_avg, exp_avg_sq;
    at::Tensor step;
  };
  struct Piece;

  AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options,
        std::unique_ptr<Group> alone);
  double global_norm() const;
  void update_group(ParameterGroup& group, State& state, double learning_rate, double clip) const;
  template <class Visit>
  void visit_pieces(bool divide, const Visit& visit) const;
  std::string misfits(const std::string& prefix, const SavedCheckpoint& in) const;

  OptimizerOptions options_;
  std::unique_ptr<Group> alone_;
  std::unique_ptr<ParameterShards> shards_;
  std::vector<State> states_;
  int64_t steps_ = 0;
};

}  // namespace zebra
