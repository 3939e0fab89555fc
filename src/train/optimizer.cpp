#include "train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "zebra/error.h"

namespace zebra {

namespace {

// The norm is taken by rows of this length, then over the rows in double.
constexpr int64_t kRow = 1024;
// Elements updated at a time; bounds the memory where gradients and moments must be cast.
constexpr int64_t kSlice = int64_t{1} << 26;

constexpr const char* kParameter = "parameter.";
constexpr const char* kExpAvg = "exp_avg.";
constexpr const char* kExpAvgSq = "exp_avg_sq.";
constexpr const char* kSteps = "adamw.steps";

at::ScalarType master_dtype(at::ScalarType dtype) {
  return at::isReducedFloatingType(dtype) ? at::kFloat : dtype;
}

// "Float [3, 4]"
std::string form(at::ScalarType dtype, at::IntArrayRef shape) {
  return zebra::str(at::toString(dtype), " ", shape);
}

}  // namespace

// Elements of one parameter that lie in this rank's buffers.
struct AdamW::Piece {
  const NamedParameter& parameter;
  int64_t begin, end;  // in the flattened parameter
  size_t group;
  int64_t place;  // of `begin` in the group's own buffers
};

AdamW::AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options)
    : AdamW(std::move(parameters), options, std::make_unique<Group>()) {}

AdamW::AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options,
             std::unique_ptr<Group> alone)
    : AdamW(std::move(parameters), options, *alone, {}) {
  alone_ = std::move(alone);
}

AdamW::AdamW(std::vector<NamedParameter> parameters, const OptimizerOptions& options, Group& group,
             ShardOptions shards)
    : options_(options) {
  shards.weight_decay = options.weight_decay;
  if (options.moments == MomentFormat::kInt8) shards.align = kRow;
  shards_ = std::make_unique<ParameterShards>(std::move(parameters), group, shards);
  const at::NoGradGuard no_grad;
  for (const auto& flat : shards_->groups()) {
    State state;
    state.master = flat.own.to(master_dtype(flat.own.scalar_type()));  // the same when the dtype is
    state.exp_avg = Moment(state.master, options.moments, Moment::Kind::kFirst);
    state.exp_avg_sq = Moment(state.master, options.moments, Moment::Kind::kSecond);
    state.step = at::zeros({}, flat.own.options().dtype(at::kFloat));
    states_.push_back(std::move(state));
  }
}

double AdamW::global_norm() const {
  double squares = 0;
  for (const auto& group : shards_->groups()) {
    const at::Tensor rows = group.own_grad.view({-1, kRow});  // (rows, kRow)
    const auto norms = at::linalg_vector_norm(rows, 2, {1});  // (rows)
    // Reads from the device, the only time in a step: whether to update at all is decided here,
    // and the number goes into the metrics of the step anyway.
    const double norm = at::linalg_vector_norm(norms.to(at::kDouble)).item<double>();
    squares += norm * norm;
  }
  if (shards_->shares()) squares = shards_->ranks().sum({squares})[0];
  return std::sqrt(squares);
}

double AdamW::finish_gradients() {
  const at::NoGradGuard no_grad;
  shards_->finish_gradients();
  return global_norm();
}

void AdamW::update_group(ParameterGroup& group, State& state, double learning_rate,
                         double clip) const {
  const auto dtype = state.master.scalar_type();
  // How ranks share the gradient out reaches the last bits of its norm; in float32 these are gone.
  if (dtype == at::kFloat) clip = static_cast<float>(clip);
  state.step.fill_(static_cast<double>(steps_));
  const int64_t total = group.own_grad.numel();
  for (int64_t begin = 0; begin < total; begin += kSlice) {
    const int64_t size = std::min(kSlice, total - begin);
    const auto part = [&](const at::Tensor& flat) { return flat.narrow(0, begin, size); };
    const at::Tensor exp_avg = state.exp_avg.read(begin, size);
    const at::Tensor exp_avg_sq = state.exp_avg_sq.read(begin, size);
    if (clip < 1.0) part(group.own_grad).mul_(clip);
    const at::Tensor grad = part(group.own_grad).to(dtype);
    at::_fused_adamw_({part(state.master)}, {grad}, {exp_avg}, {exp_avg_sq},
                      /*max_exp_avg_sqs=*/{}, {state.step}, learning_rate, options_.beta1,
                      options_.beta2, group.weight_decay, options_.eps, /*amsgrad=*/false,
                      /*maximize=*/false);
    const auto places = state.exp_avg.wants_places() ? group.places(begin, size) : at::Tensor();
    state.exp_avg.write(begin, exp_avg, steps_, places);
    state.exp_avg_sq.write(begin, exp_avg_sq, steps_, places);
    if (!state.master.is_same(group.own)) part(group.own).copy_(part(state.master));
  }
}

void AdamW::update(double learning_rate, double grad_norm) {
  const at::NoGradGuard no_grad;
  ++steps_;
  // PyTorch's clip_grad_norm_: the 1e-6 belongs to the published runs.
  const bool clips = options_.clip_norm > 0;
  const double clip = clips ? options_.clip_norm / (grad_norm + 1e-6) : 1.0;
  for (size_t i = 0; i < states_.size(); ++i) {
    update_group(shards_->groups()[i], states_[i], learning_rate, clip);
  }
  shards_->clear_gradients();
  shards_->publish_parameters();
}

void AdamW::discard() { shards_->clear_gradients(); }

StepResult AdamW::step(double learning_rate) {
  StepResult result;
  result.grad_norm = finish_gradients();
  result.finite = std::isfinite(result.grad_norm);
  if (result.finite) {
    update(learning_rate, result.grad_norm);
  } else {
    discard();
  }
  return result;
}

// A rank's own part of every parameter; what all ranks hold alike, they divide.
template <class Visit>
void AdamW::visit_pieces(bool divide, const Visit& visit) const {
  const auto& ranks = shards_->ranks();
  for (size_t g = 0; g < states_.size(); ++g) {
    int64_t own_at = 0;
    for (const auto& segment : shards_->groups()[g].segments) {
      for (const auto& member : segment.members) {
        const int64_t count = member.parameter.tensor.numel();
        int64_t begin = std::max<int64_t>(0, segment.own_begin - member.offset);
        int64_t end = std::min(count, segment.own_begin + segment.own_size - member.offset);
        if (divide && !shards_->shares()) {
          begin = count * ranks.rank() / ranks.size();
          end = count * (ranks.rank() + 1) / ranks.size();
        }
        if (begin >= end) continue;
        visit(Piece{member.parameter, begin, end, g,
                    own_at + member.offset + begin - segment.own_begin});
      }
      own_at += segment.own_size;
    }
  }
}

void AdamW::save(const std::string& prefix, Checkpoint& out) const {
  const at::NoGradGuard no_grad;
  visit_pieces(/*divide=*/true, [&](const Piece& piece) {
    const int64_t size = piece.end - piece.begin;
    const State& state = states_[piece.group];
    const auto put = [&](const char* kind, const at::Tensor& values) {
      out.pieces.push_back({.name = prefix + kind + piece.parameter.name,
                            .shape = piece.parameter.tensor.sizes().vec(),
                            .begin = piece.begin,
                            .values = values});
    };
    put(kParameter, state.master.narrow(0, piece.place, size));
    put(kExpAvg, state.exp_avg.read(piece.place, size));
    put(kExpAvgSq, state.exp_avg_sq.read(piece.place, size));
  });
  out.state[prefix + kSteps] = std::to_string(steps_);
}

// What of a checkpoint does not fit the model; "" when all of it does.
std::string AdamW::misfits(const std::string& prefix, const SavedCheckpoint& in) const {
  std::set<std::string> expected;
  std::string mistakes;
  for (size_t g = 0; g < states_.size(); ++g) {
    const auto dtype = states_[g].master.scalar_type();
    for (const auto& segment : shards_->groups()[g].segments) {
      for (const auto& member : segment.members) {
        for (const char* kind : {kParameter, kExpAvg, kExpAvgSq}) {
          const auto& [name, tensor] = member.parameter;
          const std::string key = prefix + kind + name;
          expected.insert(key);
          const auto found = in.tensors().find(key);
          if (found == in.tensors().end()) {
            mistakes += str("; ", key, ": missing");
          } else if (tensor.sizes() != found->second.shape || dtype != found->second.dtype) {
            mistakes += "; " + key + ": expected " + form(dtype, tensor.sizes()) + ", got " +
                        form(found->second.dtype, found->second.shape);
          }
        }
      }
    }
  }
  for (const char* kind : {kParameter, kExpAvg, kExpAvgSq}) {
    const std::string start = prefix + kind;
    for (auto at = in.tensors().lower_bound(start); at != in.tensors().end(); ++at) {
      if (!at->first.starts_with(start)) break;
      if (!expected.contains(at->first)) mistakes += str("; ", at->first, ": not in the model");
    }
  }
  if (!in.state().contains(prefix + kSteps)) mistakes += str("; ", prefix, kSteps, ": missing");
  return mistakes;
}

void AdamW::load(const std::string& prefix, const SavedCheckpoint& in) {
  const at::NoGradGuard no_grad;
  const std::string mistakes = misfits(prefix, in);
  if (!mistakes.empty()) {
    throw GaveUpError("checkpoint does not fit the model: " + mistakes.substr(2));
  }
  steps_ = std::stoll(in.state(prefix + kSteps));
  struct Loading {
    at::Tensor exp_avg, exp_avg_sq;
  };
  std::vector<Loading> loading;
  for (const State& state : states_) {
    const int64_t all = state.master.numel();
    loading.push_back({state.exp_avg.read(0, all), state.exp_avg_sq.read(0, all)});
  }
  visit_pieces(/*divide=*/false, [&](const Piece& piece) {
    const auto get = [&](const char* kind, const at::Tensor& flat) {
      flat.narrow(0, piece.place, piece.end - piece.begin)
          .copy_(in.read(prefix + kind + piece.parameter.name, piece.begin, piece.end));
    };
    get(kParameter, states_[piece.group].master);
    get(kExpAvg, loading[piece.group].exp_avg);
    get(kExpAvgSq, loading[piece.group].exp_avg_sq);
  });
  for (size_t g = 0; g < states_.size(); ++g) {
    State& state = states_[g];
    state.exp_avg.write(0, loading[g].exp_avg, steps_);
    state.exp_avg_sq.write(0, loading[g].exp_avg_sq, steps_);
    const at::Tensor& own = shards_->groups()[g].own;
    if (!state.master.is_same(own)) own.copy_(state.master);
  }
  shards_->clear_gradients();
  shards_->publish_parameters();
}

AdamW::Bytes AdamW::bytes() const {
  const auto held = shards_->bytes();
  Bytes bytes{.parameters = held.parameters, .gradients = held.gradients};
  for (size_t g = 0; g < states_.size(); ++g) {
    const State& state = states_[g];
    if (!state.master.is_same(shards_->groups()[g].own)) {
      bytes.masters += static_cast<int64_t>(state.master.nbytes());
    }
    bytes.moments += state.exp_avg.bytes() + state.exp_avg_sq.bytes();
  }
  return bytes;
}

}  // namespace zebra
