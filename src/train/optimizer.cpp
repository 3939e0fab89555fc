#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <tuple>

#include "zebra/error.h"

namespace zebra {

namespace {

// Every parameter starts at a multiple of this many elements (256 bytes in float32): matrix
// products may round differently on other alignments, so none depends on what lies before it.
constexpr int64_t kAlign = 64;
// Buffers are whole rows of this length; the norm is taken by rows, then over the rows in double.
constexpr int64_t kRow = 1024;
// Elements updated at a time; bounds the memory where gradients must be cast.
constexpr int64_t kSlice = int64_t{1} << 26;

constexpr const char* kParameter = "parameter.";
constexpr const char* kExpAvg = "exp_avg.";
constexpr const char* kExpAvgSq = "exp_avg_sq.";
constexpr const char* kSteps = "adamw.steps";

int64_t round_up(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

at::ScalarType master_dtype(at::ScalarType dtype) {
  return at::isReducedFloatingType(dtype) ? at::kFloat : dtype;
}

at::Tensor view_of(const at::Tensor& flat, int64_t offset, const at::Tensor& like) {
  return flat.narrow(0, offset, like.numel()).view(like.sizes());
}

// "Float [3, 4]"
std::string form(at::ScalarType dtype, at::IntArrayRef shape) {
  return zebra::str(at::toString(dtype), " ", shape);
}

}  // namespace

std::vector<NamedParameter> trainable(torch::nn::Module& module) {
  std::vector<NamedParameter> result;
  std::set<const at::TensorImpl*> seen;
  for (const auto& item : module.named_parameters()) {
    const at::Tensor& tensor = item.value();
    if (tensor.requires_grad() && seen.insert(tensor.unsafeGetTensorImpl()).second) {
      result.push_back({item.key(), tensor});
    }
  }
  return result;
}

bool decays(const std::string& name) {
  const auto dot = name.rfind('.');
  const std::string last = dot == std::string::npos ? name : name.substr(dot + 1);
  if (last == "bias" || last == "dt_bias" || last == "A_log" || last == "D") return false;
  const std::string owner = dot == std::string::npos ? "" : name.substr(0, dot);
  return !(last == "weight" && ends_with(owner, "norm"));
}

AdamW::AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options)
    : options_(options) {
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
  for (auto& [key, members] : grouped) {
    groups_.push_back(make_group(std::move(members), std::get<double>(key)));
  }
}

AdamW::Group AdamW::make_group(std::vector<NamedParameter> parameters, double weight_decay) {
  const at::NoGradGuard no_grad;
  Group group;
  group.weight_decay = weight_decay;
  int64_t size = 0;
  for (auto& parameter : parameters) {
    const int64_t offset = size;
    size += round_up(parameter.tensor.numel(), kAlign);
    group.members.push_back({std::move(parameter), offset, {}});
  }
  const at::TensorOptions options = group.members.front().parameter.tensor.options();
  const auto plain = options.requires_grad(false);
  group.parameter = at::zeros({round_up(size, kRow)}, plain);
  group.grad = at::zeros_like(group.parameter);
  for (Member& member : group.members) {
    at::Tensor& parameter = member.parameter.tensor;
    const at::Tensor view = view_of(group.parameter, member.offset, parameter);
    view.copy_(parameter);
    member.grad_view = view_of(group.grad, member.offset, parameter);
    if (parameter.grad().defined()) member.grad_view.copy_(parameter.grad());
    parameter.set_data(view);
    parameter.mutable_grad() = member.grad_view;
  }
  const auto dtype = master_dtype(group.parameter.scalar_type());
  group.master = group.parameter.to(dtype);  // the same tensor when the dtype is
  group.exp_avg = at::zeros_like(group.master);
  group.exp_avg_sq = at::zeros_like(group.master);
  group.step = at::zeros({}, plain.dtype(at::kFloat));
  return group;
}

// Autograd adds into the views in place, so there is mostly nothing to do.
void AdamW::collect_gradients(Group& group) {
  const auto size = static_cast<int64_t>(group.parameter.element_size());
  const auto* base = static_cast<const char*>(group.parameter.const_data_ptr());
  for (Member& member : group.members) {
    at::Tensor& parameter = member.parameter.tensor;
    TORCH_CHECK(parameter.const_data_ptr() == base + member.offset * size, "optimizer ",
                member.parameter.name, ": the parameter was moved after the optimiser took it");
    at::Tensor& grad = parameter.mutable_grad();
    if (grad.defined() && grad.const_data_ptr() == member.grad_view.const_data_ptr()) continue;
    if (grad.defined()) {
      member.grad_view.copy_(grad);
    } else {
      member.grad_view.zero_();
    }
    grad = member.grad_view;
  }
}

double AdamW::global_norm() const {
  double squares = 0;
  for (const Group& group : groups_) {
    const at::Tensor rows = group.grad.view({-1, kRow});  // (rows, kRow)
    const auto norms = at::linalg_vector_norm(rows, 2, {1}, /*keepdim=*/false,
                                              group.master.scalar_type());  // (rows)
    // Reads from the device, the only time in a step: whether to update at all is decided here,
    // and the number goes into the metrics of the step anyway.
    const double norm = at::linalg_vector_norm(norms.to(at::kDouble)).item<double>();
    squares += norm * norm;
  }
  return std::sqrt(squares);
}

void AdamW::update(Group& group, double learning_rate, double clip) const {
  group.step.fill_(static_cast<double>(steps_));
  const bool cast = group.grad.scalar_type() != group.master.scalar_type();
  const int64_t total = group.grad.numel();
  for (int64_t begin = 0; begin < total; begin += kSlice) {
    const int64_t size = std::min(kSlice, total - begin);
    const auto part = [&](const at::Tensor& flat) { return flat.narrow(0, begin, size); };
    at::Tensor grad = part(group.grad).to(group.master.scalar_type());
    if (clip < 1.0) grad.mul_(clip);
    at::_fused_adamw_({part(group.master)}, {grad}, {part(group.exp_avg)}, {part(group.exp_avg_sq)},
                      /*max_exp_avg_sqs=*/{}, {group.step}, learning_rate, options_.beta1,
                      options_.beta2, group.weight_decay, options_.eps, /*amsgrad=*/false,
                      /*maximize=*/false);
    if (cast) part(group.parameter).copy_(part(group.master));
  }
}

StepResult AdamW::step(double learning_rate) {
  const at::NoGradGuard no_grad;
  for (Group& group : groups_) collect_gradients(group);
  StepResult result;
  result.grad_norm = global_norm();
  result.finite = std::isfinite(result.grad_norm);
  if (result.finite) {
    ++steps_;
    // PyTorch's clip_grad_norm_: the 1e-6 belongs to the published runs.
    const bool clips = options_.clip_norm > 0;
    const double clip = clips ? options_.clip_norm / (result.grad_norm + 1e-6) : 1.0;
    for (Group& group : groups_) update(group, learning_rate, clip);
  }
  for (Group& group : groups_) group.grad.zero_();
  return result;
}

void AdamW::save(const std::string& prefix, Checkpoint& out) const {
  for (const Group& group : groups_) {
    for (const Member& member : group.members) {
      const at::Tensor& parameter = member.parameter.tensor;
      const auto put = [&](const char* kind, const at::Tensor& flat) {
        out.pieces.push_back({.name = prefix + kind + member.parameter.name,
                              .shape = parameter.sizes().vec(),
                              .begin = 0,
                              .values = flat.narrow(0, member.offset, parameter.numel())});
      };
      put(kParameter, group.master);
      put(kExpAvg, group.exp_avg);
      put(kExpAvgSq, group.exp_avg_sq);
    }
  }
  out.state[prefix + kSteps] = std::to_string(steps_);
}

void AdamW::load(const std::string& prefix, const SavedCheckpoint& in) {
  const at::NoGradGuard no_grad;
  std::vector<std::pair<at::Tensor, std::string>> copies;  // (to, name)
  std::set<std::string> expected;
  std::string mistakes;
  const auto want = [&](const char* kind, const Member& member, const at::Tensor& flat) {
    const at::Tensor to = view_of(flat, member.offset, member.parameter.tensor);
    const std::string name = prefix + kind + member.parameter.name;
    expected.insert(name);
    const auto found = in.tensors().find(name);
    if (found == in.tensors().end()) {
      mistakes += str("; ", name, ": missing");
    } else if (to.sizes() != found->second.shape || to.scalar_type() != found->second.dtype) {
      mistakes += "; " + name + ": expected " + form(to.scalar_type(), to.sizes()) + ", got " +
                  form(found->second.dtype, found->second.shape);
    } else {
      copies.emplace_back(to, name);
    }
  };
  for (const Group& group : groups_) {
    for (const Member& member : group.members) {
      want(kParameter, member, group.master);
      want(kExpAvg, member, group.exp_avg);
      want(kExpAvgSq, member, group.exp_avg_sq);
    }
  }
  for (const char* kind : {kParameter, kExpAvg, kExpAvgSq}) {
    const std::string start = prefix + kind;
    for (auto at = in.tensors().lower_bound(start); at != in.tensors().end(); ++at) {
      if (!at->first.starts_with(start)) break;
      if (!expected.contains(at->first)) mistakes += str("; ", at->first, ": not in the model");
    }
  }
  const auto steps = in.state().find(prefix + kSteps);
  if (steps == in.state().end()) mistakes += str("; ", prefix, kSteps, ": missing");
  if (!mistakes.empty()) {
    throw GaveUpError("checkpoint does not fit the model: " + mistakes.substr(2));
  }
  steps_ = std::stoll(steps->second);
  for (const auto& [to, name] : copies) to.copy_(in.read(name));
  for (Group& group : groups_) {
    if (!group.master.is_same(group.parameter)) group.parameter.copy_(group.master);
    group.grad.zero_();
  }
}

}  // namespace zebra
