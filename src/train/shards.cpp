#include "train/shards.h"

#include <algorithm>
#include <charconv>
#include <map>
#include <set>
#include <tuple>

#include "zebra/error.h"

namespace zebra {

namespace {

// Every parameter starts at a multiple of this many elements (256 bytes in float32): matrix
// products may round differently on other alignments, so none depends on what lies before it.
constexpr int64_t kAlign = 64;
// Groups, and the part of a rank, are whole rows of this length: the norm is taken by rows.
constexpr int64_t kRow = 1024;
// Sums over ranks that may be under way at a time, each holding one unit's gradient.
constexpr size_t kReductionsInFlight = 4;
constexpr int64_t kShell = 0;

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

at::ScalarType sum_dtype(at::ScalarType dtype, bool exact) {
  if (exact) return at::kDouble;
  return at::isReducedFloatingType(dtype) ? at::kFloat : dtype;
}

at::Tensor view_of(const at::Tensor& flat, int64_t offset, const at::Tensor& like) {
  return flat.narrow(0, offset, like.numel()).view(like.sizes());
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// "model.layers.3.mlp.up_proj.weight" -> 4; what stands in no layer -> the shell
int64_t unit_of(const std::string& name) {
  const std::string layers = "layers.";
  const auto at = name.find(layers);
  if (at == std::string::npos) return kShell;
  int64_t layer = -1;
  const char* begin = name.data() + at + layers.size();
  const auto result = std::from_chars(begin, name.data() + name.size(), layer);
  return result.ec == std::errc() ? layer + 1 : kShell;
}

// Whether the memory behind a buffer exists. Its views stay what they are while it does not.
bool exists(const at::Tensor& flat) { return flat.storage().nbytes() > 0; }

void drop_memory(const at::Tensor& flat) {
  auto* const storage = flat.storage().unsafeGetStorageImpl();
  storage->set_data_ptr_noswap(at::DataPtr(nullptr, flat.device()));
  storage->set_nbytes(0);
}

void take_memory(const at::Tensor& flat) {
  auto* const storage = flat.storage().unsafeGetStorageImpl();
  const auto bytes = static_cast<size_t>(flat.numel()) * flat.element_size();
  storage->set_data_ptr_noswap(storage->allocator()->allocate(bytes));
  storage->set_nbytes(bytes);
}

int64_t bytes_of(const at::Tensor& flat) {
  return flat.defined() && exists(flat) ? static_cast<int64_t>(flat.nbytes()) : 0;
}

std::vector<NamedParameter> parameters_of(torch::nn::Module& module, bool only_trainable) {
  std::vector<NamedParameter> result;
  std::set<const at::TensorImpl*> seen;
  for (const auto& item : module.named_parameters()) {
    const at::Tensor& tensor = item.value();
    if (only_trainable && !tensor.requires_grad()) continue;
    if (seen.insert(tensor.unsafeGetTensorImpl()).second) result.push_back({item.key(), tensor});
  }
  return result;
}

}  // namespace

std::vector<NamedParameter> trainable(torch::nn::Module& module) {
  return parameters_of(module, /*only_trainable=*/true);
}

std::vector<NamedParameter> all_parameters(torch::nn::Module& module) {
  return parameters_of(module, /*only_trainable=*/false);
}

bool decays(const std::string& name) {
  const auto dot = name.rfind('.');
  const std::string last = dot == std::string::npos ? name : name.substr(dot + 1);
  if (last == "bias" || last == "dt_bias" || last == "A_log" || last == "D") return false;
  const std::string owner = dot == std::string::npos ? "" : name.substr(0, dot);
  return !(last == "weight" && ends_with(owner, "norm"));
}

// Autograd calls it when it has added a parameter's gradient.
class ParameterShards::Hook : public torch::autograd::PostAccumulateGradHook {
 public:
  Hook(ParameterShards& shards, FlatSegment& segment, size_t member)
      : shards_(shards), segment_(segment), member_(member) {}
  void operator()(const at::Tensor& /*parameter*/) override {
    shards_.took_gradient(segment_, member_);
  }

 private:
  ParameterShards& shards_;
  FlatSegment& segment_;
  size_t member_;
};

at::Tensor ParameterGroup::places(int64_t begin, int64_t size) const {
  std::vector<at::Tensor> runs;
  int64_t at = 0;  // in own
  for (const auto& segment : segments) {
    const int64_t from = std::max(begin, at), to = std::min(begin + size, at + segment.own_size);
    const int64_t first = segment.place + segment.own_begin - at;
    if (from < to)
      runs.push_back(at::arange(first + from, first + to, own.options().dtype(at::kLong)));
    at += segment.own_size;
  }
  return at::cat(runs);
}

// ---- laying out ---------------------------------------------------------------------------------

ParameterShards::ParameterShards(std::vector<NamedParameter> parameters, Group& group,
                                 const ShardOptions& options)
    : ranks_(group), options_(options) {
  const at::NoGradGuard no_grad;
  shares_ = group.size() > 1 && options.sharding != Sharding::kNone;
  if (!shares_) options_.sharding = Sharding::kNone;
  using Key = std::tuple<double, at::ScalarType, std::string>;
  std::map<Key, std::vector<NamedParameter>> grouped;
  std::set<std::string> names;
  for (auto& parameter : parameters) {
    const at::Tensor& tensor = parameter.tensor;
    TORCH_CHECK(tensor.defined() && tensor.is_leaf() && tensor.is_floating_point(), "optimizer ",
                parameter.name, ": expected a floating-point leaf");
    TORCH_CHECK(names.insert(parameter.name).second, "optimizer: two parameters are named ",
                parameter.name);
    const double decay = decays(parameter.name) ? options.weight_decay : 0.0;
    grouped[{decay, tensor.scalar_type(), tensor.device().str()}].push_back(std::move(parameter));
  }
  for (auto& [key, members] : grouped) make_group(std::move(members), std::get<double>(key));
  for (auto& made : groups_) {
    for (auto& segment : made.segments) {
      if (segment.unit >= static_cast<int64_t>(units_.size())) units_.resize(segment.unit + 1);
      units_[segment.unit].segments.push_back(&segment);
      units_[segment.unit].parameters += static_cast<int64_t>(segment.members.size());
    }
  }
  if (options_.trained) install_hooks();
  for (auto& unit : units_) release(unit);
}

ParameterShards::~ParameterShards() {
  for (auto& group : groups_) {
    for (auto& segment : group.segments) {
      for (auto& member : segment.members) {
        torch::autograd::impl::set_post_acc_grad_hooks(member.parameter.tensor, nullptr);
      }
    }
  }
}

void ParameterShards::make_group(std::vector<NamedParameter> parameters, double weight_decay) {
  ParameterGroup group;
  group.weight_decay = weight_decay;
  for (auto& parameter : parameters) {
    const int64_t unit = unit_of(parameter.name);
    auto& segments = group.segments;
    if (segments.empty() || segments.back().unit != unit) segments.push_back({.unit = unit});
    FlatSegment& segment = segments.back();
    const int64_t offset = segment.size;
    segment.size += round_up(parameter.tensor.numel(), kAlign);
    segment.members.push_back({std::move(parameter), offset, {}});
  }
  const int64_t parts = shares_ ? ranks_.size() : 1;
  const int64_t multiple = shares_ ? parts * kRow : std::max(kAlign, options_.align);
  int64_t total = 0, before = 0;
  for (auto& segment : group.segments) {
    segment.place = before;
    before += segment.size;
    segment.size = round_up(segment.size, multiple);
    total += segment.size;
  }
  group.segments.back().size += round_up(total, kRow) - total;
  for (auto& segment : group.segments) {
    segment.own_size = segment.size / parts;
    segment.own_begin = shares_ ? ranks_.rank() * segment.own_size : 0;
  }
  place(group);
  groups_.push_back(std::move(group));
}

// Makes the buffers of a group and moves its parameters into them.
void ParameterShards::place(ParameterGroup& group) {
  const auto options =
      group.segments.front().members.front().parameter.tensor.options().requires_grad(false);
  const auto dtype = c10::typeMetaToScalarType(options.dtype());
  const auto sums = options.dtype(sum_dtype(dtype, options_.exact_sums));
  int64_t total = 0, own_total = 0;
  for (const auto& segment : group.segments) {
    total += segment.size;
    own_total += segment.own_size;
  }
  const bool whole = options_.sharding != Sharding::kFull;
  const auto full = whole ? at::zeros({total}, options) : at::Tensor();
  const auto full_grad =
      options_.trained && keeps_whole_gradient() ? at::zeros({total}, sums) : at::Tensor();
  group.own = shares_ ? at::zeros({own_total}, options) : full;
  if (options_.trained) group.own_grad = shares_ ? at::zeros({own_total}, sums) : full_grad;
  int64_t at = 0, own_at = 0;
  for (auto& segment : group.segments) {
    segment.full = whole ? full.narrow(0, at, segment.size) : at::zeros({segment.size}, options);
    if (full_grad.defined()) segment.full_grad = full_grad.narrow(0, at, segment.size);
    segment.own = group.own.narrow(0, own_at, segment.own_size);
    if (options_.trained) segment.own_grad = group.own_grad.narrow(0, own_at, segment.own_size);
    for (auto& member : segment.members) {
      at::Tensor& parameter = member.parameter.tensor;
      const at::Tensor view = view_of(segment.full, member.offset, parameter);
      view.copy_(parameter);
      if (segment.full_grad.defined()) {
        member.grad_view = view_of(segment.full_grad, member.offset, parameter);
        if (parameter.grad().defined()) member.grad_view.copy_(parameter.grad());
      }
      parameter.set_data(view);
      if (options_.trained) {
        parameter.mutable_grad() = adds_in_place(segment) ? member.grad_view : at::Tensor();
      }
    }
    if (shares_) segment.own.copy_(segment.full.narrow(0, segment.own_begin, segment.own_size));
    at += segment.size;
    own_at += segment.own_size;
  }
}

bool ParameterShards::keeps_whole_gradient() const {
  return options_.sharding == Sharding::kNone || options_.sharding == Sharding::kZero1;
}

bool ParameterShards::adds_in_place(const FlatSegment& segment) const {
  return keeps_whole_gradient() && segment.own.dtype() == segment.own_grad.dtype();
}

void ParameterShards::install_hooks() {
  for (auto& group : groups_) {
    for (auto& segment : group.segments) {
      if (ranks_.size() == 1 && adds_in_place(segment)) continue;  // nothing to do in a backward
      for (size_t i = 0; i < segment.members.size(); ++i) {
        torch::autograd::impl::set_post_acc_grad_hooks(segment.members[i].parameter.tensor,
                                                       std::make_unique<Hook>(*this, segment, i));
      }
    }
  }
}

// ---- gradients ----------------------------------------------------------------------------------

// Takes a gradient out of the parameter into the unit's buffer.
void ParameterShards::collect(FlatSegment& segment, FlatSegment::Member& member) {
  at::Tensor& grad = member.parameter.tensor.mutable_grad();
  if (!segment.full_grad.defined()) {
    segment.full_grad = at::zeros({segment.size}, segment.own_grad.options());
  }
  view_of(segment.full_grad, member.offset, grad).add_(grad);
  grad = at::Tensor();
}

void ParameterShards::took_gradient(FlatSegment& segment, size_t member) {
  const at::NoGradGuard no_grad;
  Unit& unit = units_[segment.unit];
  if (!adds_in_place(segment)) collect(segment, segment.members[member]);
  ++unit.hits;
  if (keeps_whole_gradient()) {
    const bool all = unit.hits == unit.parameters * options_.micro_batches;
    if (all && !local_) reduce(unit);
  } else if (unit.hits % unit.parameters == 0) {
    if (local_) {
      hash_unit(unit);
    } else {
      reduce(unit);
    }
    unit.waits_for_backward = false;
    release(unit);
  }
}

void ParameterShards::reduce(Unit& unit) {
  TORCH_CHECK(!unit.reduced || !keeps_whole_gradient(),
              "optimizer: a gradient came after all of its step's had been summed");
  unit.reduced = true;
  if (ranks_.size() == 1) return;
  for (FlatSegment* segment : unit.segments) {
    if (!segment->full_grad.defined()) continue;
    Reduction next{.segment = segment};
    if (options_.sharding == Sharding::kNone) {
      next.pending = ranks_.all_reduce(segment->full_grad);
    } else if (options_.sharding == Sharding::kZero1) {
      next.pending = ranks_.reduce_scatter(segment->own_grad, segment->full_grad);
    } else {
      next.part = at::empty_like(segment->own_grad);
      next.whole = std::exchange(segment->full_grad, at::Tensor());
      next.pending = ranks_.reduce_scatter(next.part, next.whole);
    }
    reductions_.push_back(std::move(next));
  }
  while (reductions_.size() > kReductionsInFlight) complete_oldest();
}

// What a unit has collected so far, which is then forgotten.
void ParameterShards::hash_unit(Unit& unit) {
  for (FlatSegment* segment : unit.segments) {
    if (!segment->full_grad.defined()) continue;
    const auto bytes = segment->full_grad.to(at::kCPU);
    local_->add_bytes(bytes.data_ptr(), bytes.nbytes());
    if (keeps_whole_gradient()) {
      segment->full_grad.zero_();
    } else {
      segment->full_grad = at::Tensor();
    }
  }
}

void ParameterShards::begin_local() { local_ = std::make_unique<Hasher>(); }

uint64_t ParameterShards::end_local() {
  const at::NoGradGuard no_grad;
  for (auto& group : groups_) {
    for (auto& segment : group.segments) take_leftovers(segment);
  }
  for (auto& unit : units_) hash_unit(unit);
  const uint64_t hash = local_->value();
  local_ = nullptr;
  clear_gradients();
  return hash;
}

void ParameterShards::complete_oldest() {
  Reduction& oldest = reductions_.front();
  oldest.pending.wait();
  if (oldest.part.defined()) oldest.segment->own_grad.add_(oldest.part);
  reductions_.pop_front();
}

// Autograd adds into the views in place, so there is mostly nothing to do.
void ParameterShards::take_leftovers(FlatSegment& segment) {
  const auto size = static_cast<int64_t>(segment.full.element_size());
  for (auto& member : segment.members) {
    at::Tensor& parameter = member.parameter.tensor;
    TORCH_CHECK(
        !exists(segment.full) ||
            parameter.const_data_ptr() ==
                static_cast<const char*>(segment.full.const_data_ptr()) + member.offset * size,
        "optimizer ", member.parameter.name,
        ": the parameter was moved after the optimiser took it");
    at::Tensor& grad = parameter.mutable_grad();
    if (!adds_in_place(segment)) {
      if (grad.defined()) collect(segment, member);
      continue;
    }
    if (grad.defined() && grad.const_data_ptr() == member.grad_view.const_data_ptr()) continue;
    if (grad.defined()) {
      member.grad_view.copy_(grad);
    } else {
      member.grad_view.zero_();
    }
    grad = member.grad_view;
  }
}

void ParameterShards::finish_gradients() {
  const at::NoGradGuard no_grad;
  for (auto& group : groups_) {
    for (auto& segment : group.segments) take_leftovers(segment);
  }
  for (auto& unit : units_) {
    if (!unit.reduced || !keeps_whole_gradient()) reduce(unit);
  }
  while (!reductions_.empty()) complete_oldest();
}

void ParameterShards::clear_gradients() {
  const at::NoGradGuard no_grad;
  for (auto& group : groups_) {
    group.own_grad.zero_();
    if (!keeps_whole_gradient() || !shares_) continue;
    for (auto& segment : group.segments) segment.full_grad.zero_();
  }
  for (auto& unit : units_) {
    unit.hits = 0;
    unit.reduced = unit.waits_for_backward = false;
  }
}

// ---- parameters ---------------------------------------------------------------------------------

void ParameterShards::gather(Unit& unit) {
  for (FlatSegment* segment : unit.segments) {
    if (!exists(segment->full)) take_memory(segment->full);
    unit.gathering.push_back(ranks_.all_gather(segment->full, segment->own));
  }
  unit.present = true;
}

void ParameterShards::wait_for(Unit& unit) {
  for (auto& pending : unit.gathering) pending.wait();
  unit.gathering.clear();
}

void ParameterShards::release(Unit& unit) {
  if (options_.sharding != Sharding::kFull || &unit == &units_[kShell]) return;
  wait_for(unit);
  for (FlatSegment* segment : unit.segments) {
    if (exists(segment->full)) drop_memory(segment->full);
  }
  unit.present = false;
}

void ParameterShards::publish_parameters() {
  if (!shares_) return;
  const at::NoGradGuard no_grad;
  const bool blocks_too = options_.sharding != Sharding::kFull;
  for (auto& unit : units_) {
    if (blocks_too || &unit == &units_[kShell]) {
      gather(unit);
    } else {
      release(unit);
    }
  }
  for (auto& unit : units_) wait_for(unit);
}

void ParameterShards::materialize() {
  const at::NoGradGuard no_grad;
  for (auto& unit : units_) {
    if (!unit.present) gather(unit);
  }
  for (auto& unit : units_) wait_for(unit);
}

void ParameterShards::before_forward(int64_t unit) {
  const at::NoGradGuard no_grad;
  if (!units_[unit].present) gather(units_[unit]);
  wait_for(units_[unit]);
  const auto next = static_cast<size_t>(unit) + 1;
  if (next < units_.size() && !units_[next].present) gather(units_[next]);
}

void ParameterShards::after_forward(int64_t unit, bool backward_follows) {
  units_[unit].waits_for_backward = backward_follows;
  const bool turns_round = backward_follows && unit + 1 == static_cast<int64_t>(units_.size());
  if (!turns_round) release(units_[unit]);
}

void ParameterShards::before_backward(int64_t unit) {
  const at::NoGradGuard no_grad;
  if (!units_[unit].present) gather(units_[unit]);
  wait_for(units_[unit]);
  const int64_t next = unit - 1;
  if (next > kShell && !units_[next].present && units_[next].waits_for_backward) {
    gather(units_[next]);
  }
}

ParameterShards::Bytes ParameterShards::bytes() const {
  Bytes bytes;
  for (const auto& group : groups_) {
    if (shares_) {
      bytes.parameters += bytes_of(group.own);
      bytes.gradients += bytes_of(group.own_grad);
    }
    for (const auto& segment : group.segments) {
      if (exists(segment.full)) bytes.parameters += bytes_of(segment.full);
      bytes.gradients += bytes_of(segment.full_grad);
    }
  }
  for (const auto& reduction : reductions_) bytes.gradients += bytes_of(reduction.whole);
  return bytes;
}

}  // namespace zebra
