// AdamW on flat buffers: the optimiser of every stage.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "zebra/checkpoint.h"
#include "zebra/recipe.h"

namespace torch::nn {
class Module;
}

namespace zebra {

struct NamedParameter {
  std::string name;
  at::Tensor tensor;
};

// The parameters that want a gradient, in the order in which they were registered; one that is
// registered twice (tied) comes once, under its first name.
std::vector<NamedParameter> trainable(torch::nn::Module& module);

// False for the weights of norms, biases, A_log, D and dt_bias, by name.
bool decays(const std::string& name);

struct StepResult {
  double grad_norm = 0;  // global, before clipping
  bool finite = true;    // false: nothing was updated
};

// AdamW with decoupled weight decay and clipping by the global norm.
//
// The parameters are moved into one contiguous buffer a group (same decay, dtype and device) and
// become views of it, and so do their gradients: clearing, the norm and the update are a few calls
// whatever the number of parameters. bf16 parameters have float32 masters and moments; the masters
// are rounded into the parameters after each step.
//
// REQUIRES: nothing else holds views of the parameters' old storage, and the parameters are not
// moved or cast while the optimiser lives. They stay usable after it. A gradient may be absent,
// replaced or set to none between steps; an absent one counts as zero.
//
// The same calls on the same numbers give the same bits, whatever the number of threads.
class AdamW {
 public:
  AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options);

  // Clips by the global norm, updates with this learning rate, clears the gradients. A non-finite
  // norm changes nothing but the gradients (cleared).
  StepResult step(double learning_rate);

  // Gives views under `prefix`: parameters (the masters), both moments; the step count goes into
  // the state.
  void save(const std::string& prefix, Checkpoint& out) const;

  // Takes back what `save` wrote. Missing, surplus or mis-shaped tensors: GaveUpError naming them,
  // nothing changed.
  void load(const std::string& prefix, const SavedCheckpoint& in);

  int64_t steps() const { return steps_; }  // updates done

 private:
  struct Member {
    NamedParameter parameter;
    int64_t offset;        // elements
    at::Tensor grad_view;  // of the group's gradient, in the parameter's shape
  };
  struct Group {
    std::vector<Member> members;
    double weight_decay = 0;
    at::Tensor parameter, grad;  // flat, in the parameters' dtype
    at::Tensor
        master;  // flat, float32 (float64 for float64 parameters); `parameter` itself unless bf16
    at::Tensor exp_avg, exp_avg_sq, step;
  };

  static Group make_group(std::vector<NamedParameter> parameters, double weight_decay);
  static void collect_gradients(Group& group);
  double global_norm() const;
  void update(Group& group, double learning_rate, double clip) const;

  OptimizerOptions options_;
  std::vector<Group> groups_;
  int64_t steps_ = 0;
};

}  // namespace zebra
