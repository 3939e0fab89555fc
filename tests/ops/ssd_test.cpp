#include "ops/ssd.h"

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
using testing::kDecode32;
using testing::kForward32;
using testing::kTwin64;

struct Shape {
  int64_t B = 1, T = 5, G = 2, R = 2, P = 8, Z = 8;
};

struct Form {
  std::string name;
  std::function<SsdOutput(const SsdInput&)> run;
};

const std::vector<Form>& forms() {
  static const std::vector<Form> all = {{"scan", detail::ssd_scan},
                                        {"chunked", detail::ssd_chunked}};
  return all;
}

SsdInput random_input(const Shape& s, at::ScalarType dtype, uint64_t seed = 1) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto normal = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, generator, at::TensorOptions(at::kDouble));
  };
  const int64_t N = s.G * s.R;
  SsdInput in;
  in.x = normal({s.B, s.T, s.G, s.P}).to(dtype);
  in.dt = normal({s.B, s.T, N}).to(dtype);
  in.A_log = normal({N}).to(dtype);
  in.B = (normal({s.B, s.T, s.G, s.Z}) * 0.5).to(dtype);
  in.C = (normal({s.B, s.T, N, s.Z}) * 0.5).to(dtype);
  in.D = normal({N}).to(dtype);
  in.dt_bias = (normal({N}) - 2).to(dtype);
  return in;
}

at::Tensor random_state(const Shape& s, at::ScalarType dtype) {
  at::Generator generator = at::detail::createCPUGenerator(7);
  return at::randn({s.B, s.G * s.R, s.P, s.Z}, generator, at::TensorOptions(at::kDouble)).to(dtype);
}

// Documents of uneven lengths; sequence b starts its own a little later.
at::Tensor random_segments(int64_t B, int64_t T) {
  at::Tensor segments = at::zeros({B, T}, at::kLong);
  for (int64_t b = 0; b < B; ++b) {
    int64_t document = 0;
    for (int64_t t = 0; t < T; ++t) {
      if (t > 0 && (t % 37 == 5 + b || t % 64 == 0 || t == 9)) ++document;
      segments[b][t] = document % 3;
    }
  }
  return segments;
}

const std::vector<std::string> kNames = {"x", "dt", "A_log", "B", "C", "D", "dt_bias"};

SsdInput with_leaves(const SsdInput& in, const std::vector<at::Tensor>& leaves) {
  std::vector<at::Tensor> tensors = leaves;
  tensors.push_back(in.state);
  tensors.push_back(in.segments);
  return detail::ssd_input(tensors, in.chunk_size);
}

struct Evaluation {
  SsdOutput output;
  std::vector<at::Tensor> gradients;  // in the order of kNames
};

Evaluation evaluate(const std::function<SsdOutput(const SsdInput&)>& run, const SsdInput& in) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& tensor : detail::ssd_leaves(in)) {
    leaves.push_back(tensor.detach().clone().requires_grad_(true));
  }
  Evaluation result;
  result.output = run(with_leaves(in, leaves));
  const at::Tensor weights =
      testing::cotangent(result.output.y.sizes()).to(result.output.y.scalar_type());
  result.gradients = torch::autograd::grad({(result.output.y * weights).sum()}, leaves);
  return result;
}

SsdInput in_double(const SsdInput& in) {
  std::vector<at::Tensor> tensors;
  for (const at::Tensor& tensor : detail::ssd_tensors(in)) {
    const bool number = tensor.defined() && at::isFloatingType(tensor.scalar_type());
    tensors.push_back(number ? tensor.to(at::kDouble) : tensor);
  }
  return detail::ssd_input(tensors, in.chunk_size);
}

// Both forms against the twin in float64, outputs and gradients.
void compare_with_twin(const SsdInput& in) {
  const bool exact = in.x.scalar_type() == at::kDouble;
  const Evaluation expected = evaluate(reference::ssd, in_double(in));
  for (const Form& form : forms()) {
    INFO(form.name << ", T " << in.x.size(1));
    const Evaluation actual = evaluate(form.run, in);
    const double forward = exact ? kTwin64 : kForward32;
    check_close(actual.output.y, expected.output.y, forward, "y");
    check_close(actual.output.state, expected.output.state, forward, "state");
    for (size_t i = 0; i < kNames.size(); ++i) {
      check_close(actual.gradients[i], expected.gradients[i], exact ? kTwin64 : kBackward32,
                  "gradient of " + kNames[i]);
    }
  }
}

SsdInput piece_of(const SsdInput& in, int64_t begin, int64_t end) {
  SsdInput piece = in;
  piece.x = in.x.slice(1, begin, end);
  piece.dt = in.dt.slice(1, begin, end);
  piece.B = in.B.slice(1, begin, end);
  piece.C = in.C.slice(1, begin, end);
  if (in.segments.defined()) piece.segments = in.segments.slice(1, begin, end);
  return piece;
}

}  // namespace

TEST_CASE("ssd: both forms equal the recurrence in float64, at any length") {
  for (const int64_t T : {1, 2, 63, 64, 65, 257}) {
    compare_with_twin(random_input({.B = T > 100 ? 1 : 3, .T = T}, at::kDouble));
  }
  compare_with_twin(random_input({.T = 600, .G = 1}, at::kDouble));
}

TEST_CASE("ssd: both forms equal the recurrence in float32, at any length") {
  for (const int64_t T : {1, 2, 63, 64, 65, 257}) {
    compare_with_twin(random_input({.B = T > 100 ? 1 : 3, .T = T}, at::kFloat));
  }
}

TEST_CASE("ssd: groups of one, two and four heads, and widths that fill no vector") {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    compare_with_twin(random_input({.B = 2, .T = 70, .R = 1, .P = 16, .Z = 16}, dtype));
    compare_with_twin(random_input({.T = 70, .G = 1, .R = 4, .P = 12, .Z = 12}, dtype));
    compare_with_twin(random_input({.T = 70, .R = 2, .P = 5, .Z = 3}, dtype));
    compare_with_twin(random_input({.T = 70, .G = 1, .R = 2, .P = 64, .Z = 64}, dtype));
    compare_with_twin(random_input({.T = 9, .G = 1, .R = 1, .P = 20, .Z = 40}, dtype));
  }
}

TEST_CASE("ssd: an earlier state is continued") {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    for (const Shape& shape : {Shape{.B = 2, .T = 70}, Shape{.T = 1, .P = 12, .Z = 20}}) {
      SsdInput in = random_input(shape, dtype);
      in.state = random_state(shape, dtype);
      compare_with_twin(in);
    }
  }
}

TEST_CASE("ssd: chunks of any length give the same") {
  const SsdInput in = random_input({.B = 2, .T = 50}, at::kDouble);
  const SsdOutput expected = reference::ssd(in);
  for (const int64_t chunk_size : {1, 7, 16, 50, 256}) {
    SsdInput other = in;
    other.chunk_size = chunk_size;
    check_close(detail::ssd_chunked(other).y, expected.y, kTwin64, "y");
  }
}

TEST_CASE("ssd: segments equal the recurrence that is cut between them") {
  for (const int64_t T : {2, 65, 150}) {
    SsdInput in = random_input({.B = 2, .T = T}, at::kDouble);
    in.segments = random_segments(2, T);
    compare_with_twin(in);
    in.state = random_state({.B = 2}, at::kDouble);
    compare_with_twin(in);
  }
}

TEST_CASE("ssd: a packed document gives what it gives alone, outputs and gradients") {
  const std::vector<int64_t> ends = {0, 1, 30, 64, 128, 131};
  SsdInput in = random_input({.T = ends.back()}, at::kDouble);
  in.segments = at::zeros({1, ends.back()}, at::kLong);
  for (size_t i = 1; i + 1 < ends.size(); ++i) {
    in.segments.slice(1, ends[i], ends[i + 1]).fill_(static_cast<int64_t>(i));
  }
  for (const Form& form : forms()) {
    const auto packed = [&](const SsdInput& input) { return form.run(input); };
    const auto one_by_one = [&](const SsdInput& input) {
      std::vector<at::Tensor> outputs;
      SsdOutput last;
      for (size_t i = 0; i + 1 < ends.size(); ++i) {
        SsdInput document = piece_of(input, ends[i], ends[i + 1]);
        document.segments = at::Tensor();
        last = form.run(document);
        outputs.push_back(last.y);
      }
      return SsdOutput{at::cat(outputs, 1), last.state};
    };
    INFO(form.name);
    const Evaluation together = evaluate(packed, in), alone = evaluate(one_by_one, in);
    check_close(together.output.y, alone.output.y, kTwin64, "y");
    check_close(together.output.state, alone.output.state, kTwin64, "state");
    for (size_t i = 0; i < kNames.size(); ++i) {
      check_close(together.gradients[i], alone.gradients[i], kTwin64, "gradient of " + kNames[i]);
    }
  }
}

TEST_CASE("ssd: gradients equal finite differences") {
  for (const bool packed : {false, true}) {
    const Shape shape{.B = 2, .T = 11, .G = 2, .R = 2, .P = 3, .Z = 5};
    SsdInput in = random_input(shape, at::kDouble);
    in.chunk_size = 4;
    in.state = random_state(shape, at::kDouble);
    if (packed) in.segments = random_segments(2, shape.T);
    std::vector<testing::NamedInput> inputs;
    const std::vector<at::Tensor> leaves = detail::ssd_leaves(in);
    for (size_t i = 0; i < kNames.size(); ++i) inputs.push_back({kNames[i], leaves[i]});
    for (const Form& form : forms()) {
      INFO(form.name << (packed ? ", segments" : ""));
      testing::check_gradients(
          [&](const std::vector<at::Tensor>& values) {
            return form.run(with_leaves(in, values)).y;
          },
          inputs);
    }
  }
}

TEST_CASE("ssd: pieces with the state handed over equal the whole") {
  const int64_t T = 200;
  for (const Form& form : forms()) {
    SsdInput in = random_input({.B = 2, .T = T, .P = 16, .Z = 16}, at::kFloat);
    for (const bool packed : {false, true}) {
      in.segments = packed ? random_segments(2, T) : at::Tensor();
      const SsdOutput whole = form.run(in);
      for (const int64_t first : {1, 63, 64, 65, 199}) {
        // A piece must not begin with a new segment: only the caller could cut the state there.
        if (packed && detail::segment_starts(in.segments).select(1, first).any().item<bool>()) {
          continue;
        }
        INFO(form.name << ", first piece " << first);
        const SsdOutput head = form.run(piece_of(in, 0, first));
        SsdInput rest = piece_of(in, first, T);
        rest.state = head.state;
        const SsdOutput tail = form.run(rest);
        check_close(at::cat({head.y, tail.y}, 1), whole.y, kDecode32, "y");
        check_close(tail.state, whole.state, kDecode32, "state");
      }
    }
  }
}

TEST_CASE("ssd: one token after another equals the whole") {
  const SsdInput in = random_input({.B = 2, .T = 40, .P = 64, .Z = 64}, at::kFloat);
  const SsdOutput whole = ssd(in);
  std::vector<at::Tensor> outputs;
  at::Tensor state;
  for (int64_t t = 0; t < 40; ++t) {
    SsdInput token = piece_of(in, t, t + 1);
    token.state = state;
    const SsdOutput output = ssd(token);
    outputs.push_back(output.y);
    state = output.state;
  }
  check_close(at::cat(outputs, 1), whole.y, kDecode32, "y");
  check_close(state, whole.state, kDecode32, "state");
}

TEST_CASE("ssd: a late token changes no earlier output") {
  for (const int64_t T : {2, 64, 65, 257, 600}) {
    for (const Form& form : forms()) {
      SsdInput in = random_input({.T = T, .G = 1}, at::kFloat);
      const at::Tensor before = form.run(in).y;
      for (const int64_t late : {T - 1, T / 2}) {
        SsdInput changed = in;
        for (at::Tensor* tensor : {&changed.x, &changed.dt, &changed.B, &changed.C}) {
          *tensor = tensor->clone();
          tensor->select(1, late).add_(3);
        }
        const at::Tensor after = form.run(changed).y;
        INFO(form.name << ", T " << T << ", token " << late);
        check_equal(after.slice(1, 0, late), before.slice(1, 0, late), "earlier outputs");
        CHECK_FALSE(at::equal(after.select(1, late), before.select(1, late)));
      }
    }
  }
}

TEST_CASE("ssd: an empty sequence leaves the state as it is") {
  const Shape shape{.B = 2, .T = 0, .P = 12, .Z = 9};
  for (const Form& form : forms()) {
    SsdInput in = random_input(shape, at::kDouble);
    CHECK(form.run(in).y.sizes() == at::IntArrayRef({2, 0, 4, 12}));
    check_equal(form.run(in).state, at::zeros({2, 4, 12, 9}, at::kDouble), "state");
    in.state = random_state(shape, at::kDouble);
    in.segments = at::zeros({2, 0}, at::kLong);
    check_equal(form.run(in).state, in.state, "state");
    for (const at::Tensor& gradient : evaluate(form.run, in).gradients) {
      CHECK(gradient.abs().sum().item<double>() == 0.0);
    }
  }
}

TEST_CASE("ssd: a single token follows the closed form") {
  SsdInput in = random_input({.T = 1, .G = 1, .R = 1, .P = 1, .Z = 1}, at::kDouble);
  in.state = random_state({.G = 1, .R = 1, .P = 1, .Z = 1}, at::kDouble);
  const auto number = [](const at::Tensor& tensor) { return tensor.item<double>(); };
  const double step = std::log1p(std::exp(number(in.dt) + number(in.dt_bias)));
  const double state = std::exp(-step * std::exp(number(in.A_log))) * number(in.state) +
                       step * number(in.x) * number(in.B);
  for (const Form& form : forms()) {
    INFO(form.name);
    const SsdOutput output = form.run(in);
    check_close(output.state, at::full({1, 1, 1, 1}, state, at::kDouble), kTwin64, "state");
    check_close(
        output.y,
        at::full({1, 1, 1, 1}, state * number(in.C) + number(in.D) * number(in.x), at::kDouble),
        kTwin64, "y");
  }
}

TEST_CASE("ssd: extreme decays and steps stay finite, forward and backward") {
  for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
    for (const double A_log : {-60.0, 5.0, 30.0, 1000.0}) {
      for (const double dt : {-1e3, -30.0, 40.0, 1e4}) {
        SsdInput in = random_input({.T = 70}, dtype);
        in.A_log = at::full_like(in.A_log, A_log);
        in.dt.slice(1, 20, 40).fill_(dt);
        for (const Form& form : forms()) {
          INFO(form.name << ", A_log " << A_log << ", dt " << dt);
          const Evaluation result = evaluate(form.run, in);
          CHECK(at::isfinite(result.output.y).all().item<bool>());
          CHECK(at::isfinite(result.output.state).all().item<bool>());
          for (size_t i = 0; i < kNames.size(); ++i) {
            INFO("gradient of " << kNames[i]);
            CHECK(at::isfinite(result.gradients[i]).all().item<bool>());
          }
        }
      }
    }
  }
}

TEST_CASE("ssd: strong decays keep the accuracy of weak ones") {
  SsdInput in = random_input({.B = 2, .T = 130}, at::kFloat);
  in.A_log = at::tensor({-6.0, 0.0, 2.0, 4.0}).to(at::kFloat);
  in.dt.slice(1, 50, 53).fill_(30);
  compare_with_twin(in);
}

TEST_CASE("ssd: the number of threads changes no bit") {
  const SsdInput in = random_input({.B = 3, .T = 300, .P = 16, .Z = 16}, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Evaluation one = evaluate(ssd, in);
  at::set_num_threads(2);
  const Evaluation two = evaluate(ssd, in);
  at::set_num_threads(threads);
  check_equal(one.output.y, two.output.y, "y");
  for (size_t i = 0; i < kNames.size(); ++i) {
    check_equal(one.gradients[i], two.gradients[i], "gradient of " + kNames[i]);
  }
}

TEST_CASE("ssd: slices of one projection are read in place") {
  const Shape s{.B = 2, .T = 70};
  const SsdInput in = random_input(s, at::kDouble);
  const at::Tensor joined = at::cat({in.x.flatten(2), in.B.flatten(2), in.C.flatten(2), in.dt}, 2);
  const std::vector<at::Tensor> parts = joined.split_with_sizes({16, 16, 32, 4}, 2);
  SsdInput sliced = in;
  sliced.x = parts[0].unflatten(2, {2, 8});
  sliced.B = parts[1].unflatten(2, {2, 8});
  sliced.C = parts[2].unflatten(2, {4, 8});
  sliced.dt = parts[3];
  for (const Form& form : forms()) check_equal(form.run(sliced).y, form.run(in).y, form.name);
}

TEST_CASE("ssd: low precision goes by the product form with float32 states") {
  SsdInput in = random_input({.B = 2, .T = 70}, at::kFloat);
  for (at::Tensor* tensor : {&in.x, &in.dt, &in.B, &in.C}) *tensor = tensor->to(at::kBFloat16);
  const SsdOutput output = ssd(in);
  CHECK(output.y.scalar_type() == at::kBFloat16);
  CHECK(output.state.scalar_type() == at::kFloat);
  check_close(output.state, reference::ssd(in).state, kForward32, "state");
  check_close(output.y, reference::ssd(in).y, 1.0 / 128, "y");  // one unit of bfloat16
  const Evaluation result = evaluate(ssd, in);
  CHECK(result.gradients[0].scalar_type() == at::kBFloat16);
  CHECK(result.gradients[2].scalar_type() == at::kFloat);
}

TEST_CASE("ssd: wrong shapes and types are refused by name") {
  using testing::ContainsSubstring;
  SsdInput in = random_input({}, at::kFloat);
  in.dt = in.dt.narrow(2, 0, 3);
  CHECK_THROWS_WITH(ssd(in), ContainsSubstring("ssd dt: expected shape [1, 5, 4], got [1, 5, 3]"));
  in = random_input({}, at::kFloat);
  in.B = in.B.to(at::kDouble);
  CHECK_THROWS_WITH(ssd(in), ContainsSubstring("ssd B: expected x's dtype Float, got Double"));
  in = random_input({}, at::kFloat);
  in.segments = at::zeros({1, 4}, at::kLong);
  CHECK_THROWS_WITH(ssd(in), ContainsSubstring("ssd segments: expected shape [1, 5]"));
  in = random_input({}, at::kFloat);
  in.D = at::Tensor();
  CHECK_THROWS_WITH(ssd(in), ContainsSubstring("ssd D: expected shape [4], got no tensor"));
}

TEST_CASE("ssd: without a gradient nothing is kept for one") {
  SsdInput in = random_input({}, at::kFloat);
  CHECK_FALSE(ssd(in).y.requires_grad());
  in.x.requires_grad_(true);
  CHECK(ssd(in).y.requires_grad());
  CHECK_FALSE(ssd(in).state.requires_grad());
  const at::NoGradGuard no_grad;
  CHECK(ssd(in).y.grad_fn() == nullptr);
}

}  // namespace zebra
