#include "train/optimizer.h"

#include "support/close_to.h"
#include "support/temp_dir.h"
#include "support/testing.h"

#include <torch/nn/utils/clip_grad.h>
#include <torch/optim/adamw.h>
#include <chrono>
#include <cmath>
#include <iostream>
#include <limits>

#include "zebra/error.h"

using zebra::AdamW;
using zebra::Checkpoint;
using zebra::NamedParameter;
using zebra::OptimizerOptions;
using zebra::testing::Approx;
using zebra::testing::check_close;
using zebra::testing::check_equal;
using zebra::testing::ContainsSubstring;
using zebra::testing::kForward32;
using zebra::testing::kTwin64;

namespace {

constexpr double kRate = 3e-3;

// What an optimiser saves, copied: tensors by name in their shapes, and text.
struct Saved {
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::string> state;
};

Saved save(const AdamW& optimizer, const std::string& prefix = "") {
  Checkpoint checkpoint;
  optimizer.save(prefix, checkpoint);
  Saved saved{.tensors = {}, .state = checkpoint.state};
  for (const auto& piece : checkpoint.pieces) {
    saved.tensors[piece.name] = piece.values.clone().view(piece.shape);
  }
  return saved;
}

// By way of a checkpoint on disk.
void load(AdamW& optimizer, const std::string& prefix, const Saved& saved) {
  const zebra::testing::TempDir folder;
  Checkpoint checkpoint{.step = 1, .pieces = {}, .state = saved.state};
  for (const auto& [name, tensor] : saved.tensors) {
    checkpoint.pieces.push_back(zebra::whole_tensor(name, tensor));
  }
  zebra::CheckpointStore store(folder.path(), {});
  store.save(checkpoint);
  optimizer.load(prefix, *store.load_newest());
}

OptimizerOptions options(double weight_decay, double clip_norm) {
  OptimizerOptions result;
  result.weight_decay = weight_decay;
  result.clip_norm = clip_norm;
  return result;
}

at::Tensor random(at::IntArrayRef sizes, uint64_t seed, at::ScalarType dtype) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randn(sizes, generator, at::TensorOptions(at::kDouble)).to(dtype);
}

// Parameters of odd sizes; the norm, the bias and D have no decay.
std::vector<NamedParameter> parameters(at::ScalarType dtype) {
  const std::vector<std::pair<std::string, std::vector<int64_t>>> shapes = {
      {"model.embed_tokens.weight", {11, 7}},    {"model.layers.0.input_layernorm.weight", {7}},
      {"model.layers.0.mixer.D", {3}},           {"model.layers.0.mixer.conv1d.weight", {5, 1, 4}},
      {"model.layers.0.mixer.conv1d.bias", {5}}, {"model.layers.0.mixer.in_proj.weight", {37, 41}}};
  std::vector<NamedParameter> result;
  for (const auto& [name, shape] : shapes) {
    result.push_back({name, random(shape, 100 + result.size(), dtype).requires_grad_(true)});
  }
  return result;
}

// The gradient of parameter `index` at `step`; about 40 in norm over all of them.
at::Tensor gradient_of(const at::Tensor& like, uint64_t index, uint64_t step) {
  return random(like.sizes(), 1000 * step + index, like.scalar_type());
}

// As autograd does it: added to what is there.
void backward(const std::vector<NamedParameter>& parameters, uint64_t step) {
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor& parameter = parameters[i].tensor;
    (parameter * gradient_of(parameter, i, step)).sum().backward();
  }
}

// AdamW of one parameter, element by element as the paper has it, in double.
struct Twin {
  std::vector<double> parameter, m, v;

  explicit Twin(const at::Tensor& start) {
    const at::Tensor flat = start.detach().to(at::kDouble).reshape({-1}).contiguous();
    parameter.assign(flat.data_ptr<double>(), flat.data_ptr<double>() + flat.numel());
    m.assign(parameter.size(), 0.0);
    v.assign(parameter.size(), 0.0);
  }

  void step(const at::Tensor& gradient, double scale, double decay, int64_t t) {
    const at::Tensor flat = gradient.to(at::kDouble).reshape({-1}).contiguous();
    for (size_t i = 0; i < parameter.size(); ++i) {
      const double g = flat.data_ptr<double>()[i] * scale;
      parameter[i] -= kRate * decay * parameter[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      const double m_hat = m[i] / (1 - std::pow(0.9, t)), v_hat = v[i] / (1 - std::pow(0.999, t));
      parameter[i] -= kRate * m_hat / (std::sqrt(v_hat) + 1e-8);
    }
  }

  at::Tensor tensor(const at::Tensor& like) const {
    return at::tensor(parameter, at::TensorOptions(at::kDouble)).view(like.sizes());
  }
};

double norm_of_gradients(const std::vector<NamedParameter>& parameters, uint64_t step) {
  double squares = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const at::Tensor g = gradient_of(parameters[i].tensor, i, step).to(at::kDouble);
    squares += g.square().sum().item<double>();
  }
  return std::sqrt(squares);
}

// The parameters after `steps` steps against the twin's; `masters`: those of the optimiser.
void compare_with_twin(at::ScalarType dtype, double clip_norm, double tolerance) {
  const auto tested = parameters(dtype);
  std::vector<Twin> twins;
  for (const auto& parameter : tested) twins.emplace_back(parameter.tensor);
  AdamW optimizer(tested, options(/*weight_decay=*/0.1, clip_norm));
  for (int64_t t = 1; t <= 12; ++t) {
    backward(tested, t);
    const double norm = norm_of_gradients(tested, t);
    const auto result = optimizer.step(kRate);
    CHECK(result.finite);
    CHECK(result.grad_norm == Approx(norm).epsilon(1e-5));
    const double clip = clip_norm > 0 ? std::min(1.0, clip_norm / (norm + 1e-6)) : 1.0;
    for (size_t i = 0; i < tested.size(); ++i) {
      twins[i].step(gradient_of(tested[i].tensor, i, t), clip,
                    zebra::decays(tested[i].name) ? 0.1 : 0.0, t);
    }
  }
  CHECK(optimizer.steps() == 12);
  const Saved saved = save(optimizer);
  for (size_t i = 0; i < tested.size(); ++i) {
    check_close(saved.tensors.at("parameter." + tested[i].name), twins[i].tensor(tested[i].tensor),
                tolerance, tested[i].name);
  }
}

}  // namespace

TEST_CASE("optimizer: equals the step-by-step twin in float64") {
  compare_with_twin(at::kDouble, /*clip_norm=*/0.0, kTwin64);
  compare_with_twin(at::kDouble, /*clip_norm=*/1.0, kTwin64);
  compare_with_twin(at::kDouble, /*clip_norm=*/1e6, kTwin64);
}

TEST_CASE("optimizer: equals the step-by-step twin in float32") {
  compare_with_twin(at::kFloat, /*clip_norm=*/0.0, kForward32);
  compare_with_twin(at::kFloat, /*clip_norm=*/1.0, kForward32);
}

TEST_CASE("optimizer: bf16 parameters have float32 masters that follow the twin") {
  compare_with_twin(at::kBFloat16, /*clip_norm=*/1.0, kForward32);
}

TEST_CASE("optimizer: bf16 parameters are their masters, rounded") {
  const auto tested = parameters(at::kBFloat16);
  AdamW optimizer(tested, options(0.1, 1.0));
  for (uint64_t t = 1; t <= 3; ++t) {
    backward(tested, t);
    optimizer.step(1e-6);  // far less than half a bf16 step: only masters can add it up
  }
  const Saved saved = save(optimizer);
  for (const auto& [name, tensor] : tested) {
    const at::Tensor& master = saved.tensors.at("parameter." + name);
    CHECK(master.scalar_type() == at::kFloat);
    check_equal(tensor, master.to(at::kBFloat16), name);
    CHECK_FALSE(at::equal(master, master.to(at::kBFloat16).to(at::kFloat)));
  }
}

TEST_CASE("optimizer: equals torch::optim::AdamW with clip_grad_norm_") {
  const auto tested = parameters(at::kFloat), peers = parameters(at::kFloat);
  AdamW optimizer(tested, options(0.1, 1.0));
  std::vector<at::Tensor> all, decayed, plain;
  for (const auto& [name, tensor] : peers) {
    all.push_back(tensor);
    (zebra::decays(name) ? decayed : plain).push_back(tensor);
  }
  const auto settings = [](double decay) {
    return std::make_unique<torch::optim::AdamWOptions>(
        torch::optim::AdamWOptions(kRate).weight_decay(decay));
  };
  torch::optim::AdamW peer({torch::optim::OptimizerParamGroup(decayed, settings(0.1)),
                            torch::optim::OptimizerParamGroup(plain, settings(0.0))});
  for (uint64_t t = 1; t <= 10; ++t) {
    backward(tested, t);
    backward(peers, t);
    const double norm = torch::nn::utils::clip_grad_norm_(all, 1.0);
    peer.step();
    peer.zero_grad();
    CHECK(optimizer.step(kRate).grad_norm == Approx(norm).epsilon(1e-5));
  }
  for (size_t i = 0; i < tested.size(); ++i) {
    check_close(tested[i].tensor, peers[i].tensor, kForward32, tested[i].name);
  }
}

TEST_CASE("optimizer: the first step in closed form, clipped and not") {
  // |g| = 5. After one step m_hat = g and v_hat = g^2 of the clipped gradient, whatever its scale,
  // so eps of the size of the gradient makes the clipping visible.
  for (const double clip_norm : {0.0, 0.5, 5.5}) {
    const at::Tensor x = at::zeros({2}, at::kDouble).requires_grad_(true);
    auto settings = options(0.0, clip_norm);
    settings.eps = 1.0;
    AdamW optimizer({{"x", x}}, settings);
    (x * at::tensor({3.0, -4.0}, at::kDouble)).sum().backward();
    const auto result = optimizer.step(kRate);
    CHECK(result.grad_norm == Approx(5.0).epsilon(1e-14));
    const double scale = clip_norm == 0.5 ? 0.5 / (5.0 + 1e-6) : 1.0;
    CHECK(x[0].item<double>() == Approx(-kRate * 3 * scale / (3 * scale + 1)).epsilon(1e-12));
    CHECK(x[1].item<double>() == Approx(kRate * 4 * scale / (4 * scale + 1)).epsilon(1e-12));
  }
}

TEST_CASE("optimizer: the norm of many equal gradients in closed form") {
  const at::Tensor x = at::zeros({1'000'003}, at::kFloat).requires_grad_(true);
  AdamW optimizer({{"x", x}}, options(0.0, 1.0));
  (x * 0.1).sum().backward();
  const double expected = 0.1F * std::sqrt(1'000'003.0);
  CHECK(optimizer.step(kRate).grad_norm == Approx(expected).epsilon(1e-6));
}

TEST_CASE("optimizer: a gradient that is not finite changes nothing and is cleared") {
  for (const double bad :
       {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::quiet_NaN()}) {
    const auto tested = parameters(at::kFloat);
    AdamW optimizer(tested, options(0.1, 1.0));
    backward(tested, 1);
    optimizer.step(kRate);
    const Saved before = save(optimizer);
    backward(tested, 2);
    (tested[3].tensor.view({-1})[2] * bad).backward();
    const auto result = optimizer.step(kRate);
    CHECK_FALSE(result.finite);
    CHECK_FALSE(std::isfinite(result.grad_norm));
    CHECK(optimizer.steps() == 1);
    const Saved after = save(optimizer);
    CHECK(after.state == before.state);
    for (const auto& [name, tensor] : before.tensors) check_equal(after.tensors.at(name), tensor);
    for (const auto& [name, tensor] : tested) check_equal(tensor.grad(), at::zeros_like(tensor));
  }
}

TEST_CASE("optimizer: gradients accumulate in place and may be replaced or taken away") {
  const auto tested = parameters(at::kFloat), twin = parameters(at::kFloat);
  AdamW optimizer(tested, options(0.0, 1.0)), plain(twin, options(0.0, 1.0));
  const void* where = tested[5].tensor.grad().const_data_ptr();
  backward(tested, 1);
  backward(tested, 2);
  CHECK(tested[5].tensor.grad().const_data_ptr() == where);
  check_close(tested[5].tensor.grad(),
              gradient_of(tested[5].tensor, 5, 1) + gradient_of(tested[5].tensor, 5, 2),
              kForward32);
  optimizer.step(kRate);
  backward(twin, 1);
  backward(twin, 2);
  plain.step(kRate);

  // set to none and made anew by autograd; one stays absent
  backward(tested, 7);
  for (const auto& [name, tensor] : tested) tensor.mutable_grad().reset();
  for (const size_t i : {0, 1, 2, 3, 5}) {
    tested[i].tensor.mutable_grad() = gradient_of(tested[i].tensor, i, 3);
    (twin[i].tensor * gradient_of(twin[i].tensor, i, 3)).sum().backward();
  }
  optimizer.step(kRate);
  plain.step(kRate);
  CHECK(tested[5].tensor.grad().const_data_ptr() == where);
  for (size_t i = 0; i < tested.size(); ++i) check_equal(tested[i].tensor, twin[i].tensor);
}

TEST_CASE("optimizer: a resume from a checkpoint gives the same bits") {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto straight = parameters(dtype), resumed = parameters(dtype);
    AdamW one(straight, options(0.1, 1.0));
    Saved saved;
    for (uint64_t t = 1; t <= 8; ++t) {
      backward(straight, t);
      one.step(kRate);
      if (t == 4) saved = save(one, "student/");
    }
    for (const auto& [name, tensor] : resumed) {
      const at::NoGradGuard no_grad;
      tensor.fill_(7.0);
    }
    AdamW two(resumed, options(0.1, 1.0));
    backward(resumed, 99);  // what is left of an interrupted step must not count
    load(two, "student/", saved);
    CHECK(two.steps() == 4);
    for (uint64_t t = 5; t <= 8; ++t) {
      backward(resumed, t);
      two.step(kRate);
    }
    for (size_t i = 0; i < straight.size(); ++i) {
      check_equal(resumed[i].tensor, straight[i].tensor, straight[i].name);
    }
    const Saved a = save(one), b = save(two);
    for (const auto& [name, tensor] : a.tensors) check_equal(b.tensors.at(name), tensor, name);
  }
}

TEST_CASE("optimizer: any number of threads gives the same bits") {
  const int threads = at::get_num_threads();
  std::vector<at::Tensor> results;
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    const at::Tensor x = random({777, 511}, 5, at::kFloat).requires_grad_(true);
    AdamW optimizer({{"x", x}}, options(0.1, 1.0));
    for (uint64_t t = 1; t <= 3; ++t) {
      x.mutable_grad() = gradient_of(x, 0, t);
      optimizer.step(kRate);
    }
    results.push_back(x.detach());
  }
  at::set_num_threads(threads);
  check_equal(results[1], results[0]);
  check_equal(results[2], results[0]);
}

TEST_CASE("optimizer: what it gives to a checkpoint are views of whole tensors") {
  const auto tested = parameters(at::kFloat);
  AdamW optimizer(tested, options(0.1, 1.0));
  Checkpoint given;
  optimizer.save("", given);
  CHECK(given.pieces.size() == 3 * tested.size());
  const auto& piece = given.pieces.front();
  const auto found = std::find_if(tested.begin(), tested.end(), [&](const auto& parameter) {
    return piece.name == "parameter." + parameter.name;
  });
  REQUIRE(found != tested.end());
  CHECK(piece.begin == 0);
  CHECK(piece.values.const_data_ptr() == found->tensor.const_data_ptr());
  backward(tested, 1);
  optimizer.step(kRate);
  check_equal(piece.values.view(piece.shape), found->tensor);
}

TEST_CASE("optimizer: a checkpoint that does not fit is refused by name and changes nothing") {
  const auto tested = parameters(at::kFloat);
  AdamW optimizer(tested, options(0.1, 1.0));
  Saved good = save(optimizer, "s/");
  const at::Tensor before = tested[0].tensor.detach().clone();
  good.tensors.at("s/parameter." + tested[0].name).add_(1.0);

  Saved missing = good, shape = good, dtype = good, surplus = good, steps = good;
  missing.tensors.erase("s/exp_avg.model.layers.0.mixer.D");
  CHECK_THROWS_AS(load(optimizer, "s/", missing), zebra::GaveUpError);
  CHECK_THROWS_WITH(load(optimizer, "s/", missing),
                    ContainsSubstring("s/exp_avg.model.layers.0.mixer.D: missing"));
  shape.tensors["s/exp_avg_sq.model.layers.0.mixer.D"] = at::zeros({4});
  CHECK_THROWS_WITH(load(optimizer, "s/", shape), ContainsSubstring("[3], got Float [4]"));
  dtype.tensors["s/exp_avg.model.layers.0.mixer.D"] = at::zeros({3}, at::kDouble);
  CHECK_THROWS_WITH(load(optimizer, "s/", dtype), ContainsSubstring("got Double [3]"));
  surplus.tensors["s/parameter.other"] = at::zeros({4});
  CHECK_THROWS_WITH(load(optimizer, "s/", surplus),
                    ContainsSubstring("s/parameter.other: not in the model"));
  steps.state.clear();
  CHECK_THROWS_WITH(load(optimizer, "s/", steps), ContainsSubstring("s/adamw.steps: missing"));
  CHECK_THROWS_AS(load(optimizer, "t/", good), zebra::GaveUpError);
  check_equal(tested[0].tensor, before);
}

TEST_CASE("optimizer: weight decay leaves out norms, biases, A_log, D and dt_bias") {
  for (const char* name :
       {"model.norm.weight", "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight", "m.q_a_layernorm.weight",
        "mamba.norm.weight", "conv1d.bias", "mamba.dt_bias", "mamba.A_log", "mamba.D", "D"}) {
    CHECK_FALSE(zebra::decays(name));
  }
  for (const char* name : {"model.embed_tokens.weight", "lm_head.weight", "mamba.in_proj.weight",
                           "conv1d.weight", "normal_proj.weight"}) {
    CHECK(zebra::decays(name));
  }
}

TEST_CASE("optimizer: trainable parameters come in registration order, tied ones once") {
  struct Tied : torch::nn::Module {
    torch::nn::Linear b, a;
    at::Tensor frozen, tied;
    Tied() : b(3, 2), a(2, 3) {
      register_module("b", b);
      register_module("a", a);
      frozen = register_parameter("frozen", torch::zeros({2}), /*requires_grad=*/false);
      tied = register_parameter("tied", a->weight);
    }
  } module;
  std::vector<std::string> names;
  for (const auto& parameter : zebra::trainable(module)) names.push_back(parameter.name);
  CHECK(names == std::vector<std::string>{"tied", "b.weight", "b.bias", "a.bias"});
  AdamW optimizer(zebra::trainable(module), options(0.0, 1.0));
  module.a->forward(module.b->forward(torch::ones({1, 3}))).sum().backward();
  optimizer.step(kRate);
  check_equal(module.tied, module.a->weight);
}

TEST_CASE("optimizer: a parameter that was moved away is noticed") {
  const auto tested = parameters(at::kFloat);
  AdamW optimizer(tested, options(0.0, 1.0));
  tested[2].tensor.set_data(at::zeros({3}));
  backward(tested, 1);
  CHECK_THROWS_WITH(optimizer.step(kRate), ContainsSubstring("mixer.D: the parameter was moved"));
}

TEST_CASE("optimizer: none of its parameters is a matter of nothing to do") {
  AdamW optimizer({}, options(0.0, 1.0));
  const auto result = optimizer.step(kRate);
  CHECK(result.finite);
  CHECK(result.grad_norm == 0.0);
}

TEST_CASE("optimizer: a group of many elements is updated to its end", "[.slow]") {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const int64_t size = (int64_t{1} << 26) + 5000;  // more than is updated at a time
    const at::Tensor x = at::ones({size}, dtype).requires_grad_(true);
    AdamW optimizer({{"x", x}}, options(0.0, 0.0));
    x.sum().backward();
    optimizer.step(0.5);  // to 1 - 0.5 * 1 / (1 + eps)
    CHECK(x.min().item<double>() == Approx(0.5).epsilon(kForward32));
    CHECK(x.max().item<double>() == x.min().item<double>());
  }
}

TEST_CASE("optimizer: time of a step with 260,000 parameters in 60 tensors", "[.slow]") {
  std::vector<NamedParameter> tested;
  for (int i = 0; i < 60; ++i) {
    const at::Tensor weight = at::randn({66, 66}).requires_grad_(true);
    tested.push_back({"layer." + std::to_string(i) + ".weight", weight});
  }
  AdamW optimizer(tested, options(0.1, 1.0));
  const auto run = [&](int steps) {
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < steps; ++i) {
      tested[0].tensor.mutable_grad().fill_(1.0);
      optimizer.step(1e-4);
    }
    const std::chrono::duration<double, std::milli> time = std::chrono::steady_clock::now() - begin;
    return time.count() / steps;
  };
  double milliseconds = run(50);
  for (int i = 0; i < 10; ++i)
    milliseconds = std::min(milliseconds, run(100));  // of a busy machine
  std::cout << "optimizer step: " << milliseconds << " ms\n";
  CHECK(milliseconds < 1.0);
}
