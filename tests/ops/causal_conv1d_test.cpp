#include "ops/mamba2.h"
#include "ops/reference.h"
#include "support/close_to.h"
#include "support/gradcheck.h"
#include "support/testing.h"
#include "zebra/ops.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

namespace zebra {

namespace {

using testing::check_close;
using testing::check_equal;
using testing::kBackward32;
using testing::kForward32;
using testing::kTwin64;

using Function = std::function<ConvOutput(const at::Tensor&, const at::Tensor&, const at::Tensor&,
                                          const at::Tensor&, const at::Tensor&)>;

struct Form {
  std::string name;
  Function run;
};

const std::vector<Form>& forms() {
  static const std::vector<Form> all = {{"cpu", detail::causal_conv1d_cpu},
                                        {"any", detail::causal_conv1d_any}};
  return all;
}

struct Input {
  at::Tensor x, weight, bias, state, segments;
};

struct Shape {
  int64_t B = 2, T = 9, C = 24, K = 4;
};

Input random_input(const Shape& s, at::ScalarType dtype) {
  at::Generator generator = at::detail::createCPUGenerator(3);
  const auto normal = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, generator, at::TensorOptions(at::kDouble)).to(dtype);
  };
  return {normal({s.B, s.T, s.C}), normal({s.C, s.K}), normal({s.C}), {}, {}};
}

at::Tensor random_state(const Shape& s, at::ScalarType dtype) {
  at::Generator generator = at::detail::createCPUGenerator(5);
  return at::randn({s.B, s.C, s.K}, generator, at::TensorOptions(at::kDouble)).to(dtype);
}

at::Tensor random_segments(int64_t B, int64_t T) {
  at::Tensor segments = at::zeros({B, T}, at::kLong);
  for (int64_t b = 0; b < B; ++b) {
    int64_t document = 0;
    for (int64_t t = 0; t < T; ++t) {
      if (t > 0 && (t % 7 == 2 + b || t % 5 == 0 || t % 128 == 127)) ++document;
      segments[b][t] = document % 2;
    }
  }
  return segments;
}

struct Evaluation {
  ConvOutput output;
  std::vector<at::Tensor> gradients;  // x, weight, bias
};

Evaluation evaluate(const Function& run, const Input& in) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& tensor : {in.x, in.weight, in.bias}) {
    if (tensor.defined()) leaves.push_back(tensor.detach().clone().requires_grad_(true));
  }
  Evaluation result;
  const at::Tensor bias = in.bias.defined() ? leaves[2] : at::Tensor();
  result.output = run(leaves[0], leaves[1], bias, in.state, in.segments);
  const at::Tensor weights = testing::cotangent(result.output.y.sizes()).to(in.x.scalar_type());
  result.gradients = torch::autograd::grad({(result.output.y * weights).sum()}, leaves);
  return result;
}

at::Tensor in_double(const at::Tensor& tensor) {
  return tensor.defined() ? tensor.to(at::kDouble) : tensor;
}

void compare_with_twin(const Input& in) {
  const bool exact = in.x.scalar_type() == at::kDouble;
  const Evaluation expected =
      evaluate(reference::causal_conv1d, {in_double(in.x), in_double(in.weight), in_double(in.bias),
                                          in_double(in.state), in.segments});
  for (const Form& form : forms()) {
    INFO(form.name << ", x " << in.x.sizes());
    const Evaluation actual = evaluate(form.run, in);
    check_close(actual.output.y, expected.output.y, exact ? kTwin64 : kForward32, "y");
    check_equal(actual.output.state, expected.output.state, "state");
    for (size_t i = 0; i < actual.gradients.size(); ++i) {
      check_close(actual.gradients[i], expected.gradients[i], exact ? kTwin64 : kBackward32,
                  "gradient " + std::to_string(i));
    }
  }
}

}  // namespace

TEST_CASE("causal_conv1d: equals its twin at any length, width and number of channels") {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    for (const int64_t T : {1, 2, 3, 4, 65, 127, 128, 131, 300}) {
      compare_with_twin(random_input({.T = T}, dtype));
    }
    compare_with_twin(random_input({.C = 5, .K = 3}, dtype));
    compare_with_twin(random_input({.C = 300, .K = 1}, dtype));
    compare_with_twin(random_input({.T = 140, .C = 17, .K = 7}, dtype));
    compare_with_twin(random_input({.T = 3, .C = 8, .K = 16}, dtype));
  }
}

TEST_CASE("causal_conv1d: a bias may be absent") {
  Input in = random_input({}, at::kDouble);
  in.bias = at::Tensor();
  compare_with_twin(in);
}

TEST_CASE("causal_conv1d: an earlier piece's state precedes the first token") {
  for (const int64_t T : {1, 2, 3, 5, 130}) {
    Input in = random_input({.T = T}, at::kDouble);
    in.state = random_state({}, at::kDouble);
    compare_with_twin(in);
  }
}

TEST_CASE("causal_conv1d: taps do not reach over a change of segment") {
  for (const int64_t T : {1, 2, 5, 8, 130, 260}) {
    for (const int64_t K : {2, 4, 6}) {
      Input in = random_input({.T = T, .K = K}, at::kDouble);
      in.segments = random_segments(2, T);
      compare_with_twin(in);
      in.state = random_state({.K = K}, at::kDouble);
      compare_with_twin(in);
    }
  }
}

TEST_CASE("causal_conv1d: gradients equal finite differences") {
  for (const bool packed : {false, true}) {
    Input in = random_input({.T = 9, .C = 5}, at::kDouble);
    in.state = random_state({.T = 9, .C = 5}, at::kDouble);
    if (packed) in.segments = random_segments(2, 9);
    for (const Form& form : forms()) {
      INFO(form.name);
      testing::check_gradients(
          [&](const std::vector<at::Tensor>& values) {
            return form.run(values[0], values[1], values[2], in.state, in.segments).y;
          },
          {{"x", in.x}, {"weight", in.weight}, {"bias", in.bias}});
    }
  }
}

TEST_CASE("causal_conv1d: pieces with the state handed over equal the whole") {
  const Input in = random_input({.T = 140}, at::kFloat);
  for (const Form& form : forms()) {
    const ConvOutput whole = form.run(in.x, in.weight, in.bias, {}, {});
    for (const int64_t first : {1, 2, 3, 4, 63, 128, 139}) {
      const ConvOutput head = form.run(in.x.slice(1, 0, first), in.weight, in.bias, {}, {});
      const ConvOutput tail = form.run(in.x.slice(1, first), in.weight, in.bias, head.state, {});
      INFO(form.name << ", first piece " << first);
      check_close(at::cat({head.y, tail.y}, 1), whole.y, kForward32, "y");
      check_equal(tail.state, whole.state, "state");
    }
  }
}

TEST_CASE("causal_conv1d: a late token changes no earlier output") {
  for (const Form& form : forms()) {
    const Input in = random_input({.T = 131}, at::kFloat);
    at::Tensor changed = in.x.clone();
    changed.select(1, 127).add_(1);
    const at::Tensor before = form.run(in.x, in.weight, in.bias, {}, {}).y;
    const at::Tensor after = form.run(changed, in.weight, in.bias, {}, {}).y;
    check_equal(after.slice(1, 0, 127), before.slice(1, 0, 127), form.name);
    CHECK_FALSE(at::equal(after.select(1, 130), before.select(1, 130)));
  }
}

TEST_CASE("causal_conv1d: an impulse gives the taps back") {
  at::Tensor x = at::zeros({1, 6, 1}, at::kDouble);
  x[0][1][0] = 1.0;
  const at::Tensor weight = at::tensor({0.5, -1.0, 2.0, 3.0}, at::kDouble).view({1, 4});
  for (const Form& form : forms()) {
    const ConvOutput output = form.run(x, weight, {}, {}, {});
    const at::Tensor taps = at::tensor({0.0, 3.0, 2.0, -1.0, 0.5, 0.0}, at::kDouble);
    check_close(output.y.flatten(), taps * at::sigmoid(taps), kTwin64, form.name);
  }
}

TEST_CASE("causal_conv1d: an empty piece leaves the state as it is") {
  Input in = random_input({.T = 0}, at::kDouble);
  in.state = random_state({}, at::kDouble);
  for (const Form& form : forms()) {
    const Evaluation result = evaluate(form.run, in);
    CHECK(result.output.y.sizes() == at::IntArrayRef({2, 0, 24}));
    check_equal(result.output.state, in.state, "state");
    CHECK(result.gradients[1].abs().sum().item<double>() == 0.0);
  }
}

TEST_CASE("causal_conv1d: slices of a projection are read in place") {
  const Input in = random_input({.T = 20}, at::kDouble);
  const at::Tensor joined = at::cat({in.x, in.x + 1}, 2);
  const at::Tensor slice = joined.narrow(2, 24, 24);
  for (const Form& form : forms()) {
    check_equal(form.run(slice, in.weight, in.bias, {}, {}).y,
                form.run(in.x + 1, in.weight, in.bias, {}, {}).y, form.name);
  }
}

TEST_CASE("causal_conv1d: the number of threads changes no bit") {
  const Input in = random_input({.B = 3, .T = 400, .C = 40}, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Evaluation one = evaluate(causal_conv1d, in);
  at::set_num_threads(2);
  const Evaluation two = evaluate(causal_conv1d, in);
  at::set_num_threads(threads);
  check_equal(one.output.y, two.output.y, "y");
  for (size_t i = 0; i < 3; ++i) check_equal(one.gradients[i], two.gradients[i], "gradient");
}

TEST_CASE("causal_conv1d: low precision is computed in float32") {
  const Input in = random_input({}, at::kFloat);
  const ConvOutput output = causal_conv1d(in.x.to(at::kBFloat16), in.weight, in.bias, {}, {});
  CHECK(output.y.scalar_type() == at::kBFloat16);
  const at::Tensor exact =
      causal_conv1d(in.x.to(at::kBFloat16).to(at::kFloat), in.weight, in.bias, {}, {}).y;
  check_close(output.y, exact, 1.0 / 128, "y");  // one unit of bfloat16
}

TEST_CASE("causal_conv1d: wrong shapes are refused by name") {
  using testing::ContainsSubstring;
  const Input in = random_input({}, at::kFloat);
  CHECK_THROWS_WITH(causal_conv1d(in.x, in.weight.narrow(0, 0, 3), in.bias, {}, {}),
                    ContainsSubstring("causal_conv1d weight: expected shape (24, K), got [3, 4]"));
  CHECK_THROWS_WITH(causal_conv1d(in.x, in.weight, in.weight, {}, {}),
                    ContainsSubstring("causal_conv1d bias: expected shape (24)"));
  CHECK_THROWS_WITH(causal_conv1d(in.x, in.weight, in.bias, in.x, {}),
                    ContainsSubstring("causal_conv1d state: expected shape [2, 24, 4]"));
}

}  // namespace zebra
