// A model's parameters in flat buffers, a block's side by side, and how ranks share them out.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/hash.h"
#include "zebra/dist.h"
#include "zebra/recipe_running.h"

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
std::vector<NamedParameter> all_parameters(torch::nn::Module& module);

// False for the weights of norms, biases, A_log, D and dt_bias, by name.
bool decays(const std::string& name);

struct ShardOptions {
  Sharding sharding = Sharding::kNone;
  int64_t micro_batches = 1;  // backward passes of a step
  bool trained = true;        // false: no gradients
  bool exact_sums = false;    // gradients are added up in float64
  double weight_decay = 0;    // of parameters that decay: they lie apart from those that do not
  int64_t align = 0;          // elements that every block's part is rounded up to; 0: as needed
};

// Parameters of one unit and group, side by side. A unit is what is gathered and reduced at once: a
// block, or the shell (embedding, final norm, head), which is unit 0.
struct FlatSegment {
  struct Member {
    NamedParameter parameter;
    int64_t offset = 0;    // in the segment
    at::Tensor grad_view;  // of full_grad, in the parameter's shape; undefined where that is
  };
  int64_t unit = 0;
  int64_t size = 0;  // elements of the whole; each rank owns a W-th, or all of it (none)
  int64_t own_begin = 0, own_size = 0;
  int64_t place = 0;  // of its first element in the group, what fills up the ranks' parts left out
  std::vector<Member> members = {};
  at::Tensor full = {}, full_grad = {};  // (size); full_grad undefined while there is none
  at::Tensor own = {}, own_grad = {};    // (own_size), views of the group's
};

// Segments that the optimiser treats alike: one weight decay, dtype and device.
struct ParameterGroup {
  double weight_decay = 0;
  std::vector<FlatSegment> segments;
  at::Tensor own;       // flat: this rank's parts, in the parameters' dtype
  at::Tensor own_grad;  // flat: the gradient of those, summed over ranks, in the dtype of sums

  // (size) int64: names of own's elements [begin, begin + size), the same however they are shared
  // out.
  at::Tensor places(int64_t begin, int64_t size) const;
};

// Moves the parameters into flat buffers, of which they become views, and shares the buffers out:
//
//              parameters   gradients    own, own_grad (the optimiser's)
//   none       whole        whole        the whole buffers
//   zero1      whole        whole        a W-th each
//   zero2      whole        one unit's   a W-th each
//   full       one unit's   one unit's   a W-th each
//
// Gradients are summed over micro-batches and ranks in float32 (float64 for float64, or when sums
// are to be exact), over ranks as soon as the backward has made all of a unit, while it goes on
// with the next. With `full`, the units but the shell exist only between gather and release.
//
// With one rank nothing is shared out; where gradients have the dtype of their sums, nothing is
// then done in a backward either.
//
// REQUIRES: nothing else holds views of the parameters' old storage, and the parameters are not
// moved or cast while this lives. Parameters stay usable after it once `materialize` was called. A
// gradient may be absent, replaced or set to none between steps; an absent one counts as zero.
class ParameterShards {
 public:
  // `group` outlives this.
  ParameterShards(std::vector<NamedParameter> parameters, Group& group,
                  const ShardOptions& options);
  ~ParameterShards();
  ParameterShards(const ParameterShards&) = delete;
  ParameterShards& operator=(const ParameterShards&) = delete;

  std::vector<ParameterGroup>& groups() { return groups_; }
  const std::vector<ParameterGroup>& groups() const { return groups_; }
  Group& ranks() const { return ranks_; }
  bool shares() const { return shares_; }  // each rank owns a part alone

  // Completes the sums over ranks; afterwards own_grad holds this rank's part.
  void finish_gradients();
  void clear_gradients();

  // Between the two, what backwards make is not added up over ranks: `end_local` gives the hash of
  // this rank's own gradients (the same bits give the same), and nothing of them is left.
  void begin_local();
  uint64_t end_local();

  // Makes the parameters what `own` says, on every rank.
  void publish_parameters();
  // All parameters whole at once, to be read or saved.
  void materialize();

  // Around a unit's forward and backward; these only matter with `full`.
  void before_forward(int64_t unit);
  void after_forward(int64_t unit, bool backward_follows);
  void before_backward(int64_t unit);

  // Bytes that exist now: whole or gathered parameters with own copies, and gradients.
  struct Bytes {
    int64_t parameters = 0, gradients = 0;
  };
  Bytes bytes() const;

 private:
  struct Unit {
    std::vector<FlatSegment*> segments;
    int64_t parameters = 0, hits = 0;  // gradients made in this step
    bool reduced = false;              // none, zero1: summed in this step
    bool present = true;               // the parameters exist (or are on their way)
    bool waits_for_backward = false;
    std::vector<Pending> gathering;
  };
  struct Reduction {
    Pending pending = {};
    FlatSegment* segment = nullptr;
    at::Tensor whole = {}, part = {};  // kept alive until the sum is there
  };
  class Hook;

  void make_group(std::vector<NamedParameter> parameters, double weight_decay);
  void place(ParameterGroup& group);
  void install_hooks();
  bool keeps_whole_gradient() const;
  bool adds_in_place(const FlatSegment& segment) const;  // autograd adds into full_grad itself
  void collect(FlatSegment& segment, FlatSegment::Member& member);
  void took_gradient(FlatSegment& segment, size_t member);
  void take_leftovers(FlatSegment& segment);
  void reduce(Unit& unit);
  void hash_unit(Unit& unit);
  void complete_oldest();
  void gather(Unit& unit);
  void wait_for(Unit& unit);
  void release(Unit& unit);

  Group& ranks_;
  ShardOptions options_;
  bool shares_ = false;
  std::vector<ParameterGroup> groups_;
  std::vector<Unit> units_;
  std::deque<Reduction> reductions_;
  std::unique_ptr<Hasher> local_;  // between begin_local and end_local
};

}  // namespace zebra
