#include "ops/basic_support.h"

#include "ops/logit_losses.h"
#include "ops/reference_basic.h"
#include "zebra/losses.h"

#include <cmath>

namespace zebra {
namespace {

using namespace zebra::testing;

constexpr KlDirection kDirections[] = {KlDirection::kForward, KlDirection::kReverse,
                                       KlDirection::kJs};

KlDirection any_direction() {
  return GENERATE(from_range(std::begin(kDirections), std::end(kDirections)));
}

struct Problem {
  int64_t M = 11, V = 37, D = 6, Dt = 9;
};

// Weights with zeros, targets with -1: every kind of token occurs when M is 4 or more.
DistillLossInput input_of(const Problem& p, at::ScalarType dtype) {
  DistillLossInput in;
  in.student_hidden = normal({p.M, p.D}, 1, dtype);
  in.student_head = normal({p.V, p.D}, 2, dtype);
  in.teacher_hidden = normal({p.M, p.Dt}, 3, dtype);
  in.teacher_head = normal({p.V, p.Dt}, 4, dtype);
  in.targets = integers({p.M}, p.V, 5).masked_fill_(at::arange(p.M).remainder(5).eq(1), -1);
  const at::Tensor index = at::arange(p.M, dtype);
  in.kl_weights = (index * 0.1 + 0.3) * at::arange(p.M).remainder(4).ne(2);
  in.ce_weights = (index * 0.2 + 0.1) * at::arange(p.M).remainder(3).ne(2);
  return in;
}

// The loss as a function of the two differentiable inputs.
TensorFunction loss_of(DistillLossInput in, const DistillLossOptions& options) {
  return [in, options](const std::vector<at::Tensor>& x) mutable {
    in.student_hidden = x[0];
    in.student_head = x[1];
    return distill_loss(in, options).loss;
  };
}

TensorFunction twin_of(DistillLossInput in, const DistillLossOptions& options) {
  return [in, options](const std::vector<at::Tensor>& x) mutable {
    in.student_hidden = x[0];
    in.student_head = x[1];
    return reference::distill_loss(in, options).loss;
  };
}

void check_all(const DistillLossInput& in, const DistillLossOptions& options) {
  const bool wide = in.student_hidden.scalar_type() == at::kDouble;
  check_twin(loss_of(in, options), twin_of(in, options), {in.student_hidden, in.student_head});
  const DistillLossOutput actual = distill_loss(in, options);
  const DistillLossOutput expected = reference::distill_loss(in, options);
  const double tolerance = wide ? kTwin64 : kForward32;
  check_close(actual.kl_sum, expected.kl_sum, tolerance, "kl_sum");
  check_close(actual.ce_sum, expected.ce_sum, tolerance, "ce_sum");
  check_equal(actual.agree, expected.agree, "agree");
  CHECK_FALSE(actual.kl_sum.requires_grad());
}

TEST_CASE("distill_loss: equals its slow twin, gradients included, for every chunk size") {
  DistillLossOptions options;
  options.direction = any_direction();
  options.temperature = GENERATE(1.0, 2.5);
  options.ce_weight = GENERATE(0.0, 0.7);
  options.kl_weight = 1.3;
  options.chunk_tokens = GENERATE(1, 4, 11, 1000);
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  check_all(input_of({}, dtype), options);
}

TEST_CASE("distill_loss: equals its slow twin for vocabularies of many sizes") {
  DistillLossOptions options;
  options.direction = any_direction();
  options.ce_weight = 0.5;
  const int64_t V = GENERATE(2, 16, 31, 513, 4000);
  check_all(input_of({5, V, 8, 4}, at::kFloat), options);
  check_all(input_of({5, V, 8, 4}, at::kDouble), options);
}

TEST_CASE("distill_loss: gradients equal finite differences") {
  DistillLossOptions options;
  options.direction = any_direction();
  options.temperature = GENERATE(1.0, 1.7);
  options.ce_weight = GENERATE(0.0, 0.6);
  options.chunk_tokens = 3;
  const DistillLossInput in = input_of({7, 9, 4, 3}, at::kDouble);
  check_gradients(loss_of(in, options), {{"hidden", in.student_hidden}, {"head", in.student_head}});
}

TEST_CASE("distill_loss: one token, and none") {
  DistillLossOptions options;
  options.direction = any_direction();
  check_all(input_of({1, 12, 3, 5}, at::kDouble), options);
  const DistillLossInput none = input_of({0, 12, 3, 5}, at::kDouble);
  const Result result = evaluate(loss_of(none, options), {none.student_hidden, none.student_head});
  CHECK(result.value.item<double>() == 0.0);
  CHECK(result.grads[0].sizes() == at::IntArrayRef({0, 3}));
  check_equal(result.grads[1], at::zeros({12, 3}, at::kDouble));
}

TEST_CASE("distill_loss: tokens that weigh nothing change nothing") {
  DistillLossOptions options;
  options.direction = any_direction();
  options.chunk_tokens = 4;
  DistillLossInput in = input_of({}, at::kDouble);
  in.kl_weights = at::arange(11).remainder(3).ne(0).to(at::kDouble);
  const auto run = [&] {
    return evaluate(loss_of(in, options), {in.student_hidden, in.student_head});
  };
  const Result before = run();
  const DistillLossOutput counted = distill_loss(in, options);
  const at::Tensor padding = in.kl_weights.eq(0).unsqueeze(1);
  in.student_hidden = in.student_hidden.masked_fill(padding, std::nan(""));
  in.teacher_hidden = in.teacher_hidden.masked_fill(padding, std::nan(""));
  const Result after = run();
  check_equal(after.value, before.value);
  check_equal(after.grads[0], before.grads[0]);
  check_equal(after.grads[1], before.grads[1]);
  check_equal(distill_loss(in, options).kl_sum, counted.kl_sum);
  CHECK(before.grads[0][0].abs().max().item<double>() == 0.0);
}

TEST_CASE("distill_loss: equal models have no divergence, no gradient and agree") {
  DistillLossOptions options;
  options.direction = any_direction();
  DistillLossInput in = input_of({6, 20, 5, 5}, at::kDouble);
  in.teacher_hidden = in.student_hidden;
  in.teacher_head = in.student_head;
  in.kl_weights = at::ones({6}, at::kDouble);
  const Result result = evaluate(loss_of(in, options), {in.student_hidden, in.student_head});
  CHECK(std::abs(result.value.item<double>()) < 1e-12);
  CHECK(result.grads[0].abs().max().item<double>() < 1e-12);
  CHECK(distill_loss(in, options).agree.item<double>() == 6.0);
}

TEST_CASE("distill_loss: reverse is forward with the models exchanged, and JS is symmetric") {
  const DistillLossInput in = input_of({6, 20, 5, 8}, at::kDouble);
  DistillLossInput exchanged = in;
  std::swap(exchanged.student_hidden, exchanged.teacher_hidden);
  std::swap(exchanged.student_head, exchanged.teacher_head);
  const auto value = [](const DistillLossInput& input, KlDirection direction) {
    DistillLossOptions options;
    options.direction = direction;
    return distill_loss(input, options).loss;
  };
  check_close(value(exchanged, KlDirection::kReverse), value(in, KlDirection::kForward), kTwin64);
  check_close(value(exchanged, KlDirection::kJs), value(in, KlDirection::kJs), kTwin64);
  CHECK(value(in, KlDirection::kJs).item<double>() <
        std::log(2.0) * in.kl_weights.sum().item<double>());
}

TEST_CASE("distill_loss: the divergence of two known distributions") {
  DistillLossInput in;  // logits are the heads' single column
  in.student_hidden = in.teacher_hidden = at::ones({1, 1}, at::kDouble);
  in.student_head = at::tensor({0.5, 0.5}, at::kDouble).log().view({2, 1});
  in.teacher_head = at::tensor({0.25, 0.75}, at::kDouble).log().view({2, 1});
  in.kl_weights = at::ones({1}, at::kDouble);
  DistillLossOptions options;
  const double forward = 0.25 * std::log(0.5) + 0.75 * std::log(1.5);
  CHECK(distill_loss(in, options).loss.item<double>() == Approx(forward).epsilon(1e-12));
  options.direction = KlDirection::kReverse;
  const double reverse = 0.5 * std::log(2.0) + 0.5 * std::log(0.5 / 0.75);
  CHECK(distill_loss(in, options).loss.item<double>() == Approx(reverse).epsilon(1e-12));
  CHECK(distill_loss(in, options).agree.item<double>() == 0.0);  // the student's tie is token 0
}

TEST_CASE("distill_loss: gradients of micro-batches add up to the gradient of the batch") {
  DistillLossOptions options;
  options.direction = any_direction();
  options.chunk_tokens = 3;
  const DistillLossInput in = input_of({}, at::kDouble);
  const Result whole = evaluate(loss_of(in, options), {in.student_hidden, in.student_head});
  at::Tensor dhead = at::zeros_like(whole.grads[1]);
  std::vector<at::Tensor> dhidden;
  for (const auto& [begin, count] : {std::pair<int64_t, int64_t>{0, 5}, {5, 2}, {7, 4}}) {
    DistillLossInput part = in;
    for (at::Tensor* tensor : {&part.student_hidden, &part.teacher_hidden, &part.kl_weights}) {
      *tensor = tensor->narrow(0, begin, count);
    }
    const Result result = evaluate(loss_of(part, options), {part.student_hidden, in.student_head});
    dhead += result.grads[1];
    dhidden.push_back(result.grads[0]);
  }
  check_close(dhead, whole.grads[1], kTwin64, "head");
  check_close(at::cat(dhidden), whole.grads[0], kTwin64, "hidden");
}

TEST_CASE("distill_loss: only what wants a gradient gets one") {
  DistillLossInput in = input_of({}, at::kDouble);
  in.student_hidden.requires_grad_(true);
  distill_loss(in, {}).loss.backward();
  CHECK(in.student_hidden.grad().defined());
  in.student_hidden = in.student_hidden.detach();
  in.student_head.requires_grad_(true);
  distill_loss(in, {}).loss.backward();
  CHECK(in.student_head.grad().defined());
  const at::NoGradGuard no_grad;
  CHECK_FALSE(distill_loss(in, {}).loss.requires_grad());
}

TEST_CASE("distill_loss: a head that is also the embedding sums both gradients") {
  DistillLossInput in = input_of({}, at::kDouble);
  const at::Tensor ids = integers({11}, 37, 8);
  const auto tied = [&](auto loss) {
    return [&, loss](const std::vector<at::Tensor>& x) {
      DistillLossInput with = in;
      with.student_head = x[0];
      with.student_hidden = x[0].index_select(0, ids).tanh();
      return loss(with, DistillLossOptions{}).loss;
    };
  };
  check_twin(tied(distill_loss), tied(reference::distill_loss), {in.student_head});
}

TEST_CASE("distill_loss: cross-entropy alone needs no teacher, and of equal logits is log V") {
  DistillLossInput in = input_of({6, 20, 5, 5}, at::kDouble);
  in.student_head.zero_();
  in.teacher_hidden = in.teacher_head = at::Tensor();
  in.ce_weights = at::full({6}, 1.0 / 6, at::kDouble);
  in.targets = integers({6}, 20, 6);
  DistillLossOptions options;
  options.kl_weight = 0.0;
  CHECK_THROWS_WITH(distill_loss(in, options), ContainsSubstring("got neither"));
  options.ce_weight = 1.0;
  const DistillLossOutput out = distill_loss(in, options);
  CHECK(out.loss.item<double>() == Approx(std::log(20.0)).epsilon(1e-12));
  CHECK(out.ce_sum.item<double>() == Approx(6 * std::log(20.0)).epsilon(1e-12));
  CHECK(out.kl_sum.item<double>() == 0.0);
  check_gradients(loss_of(in, options),
                  {{"hidden", normal({6, 5}, 1)}, {"head", normal({20, 5}, 2)}});
}

TEST_CASE("distill_loss: bfloat16 models stay within their dtype of the twin in float32") {
  DistillLossInput in = input_of({40, 200, 16, 24}, at::kBFloat16);
  in.student_head *= 0.3;
  in.teacher_head *= 0.3;
  in.kl_weights = at::ones({40});
  DistillLossOptions options;
  options.direction = any_direction();
  DistillLossInput wide = in;
  for (at::Tensor* tensor :
       {&wide.student_hidden, &wide.student_head, &wide.teacher_hidden, &wide.teacher_head}) {
    *tensor = tensor->to(at::kFloat);
  }
  const Result actual = evaluate(loss_of(in, options), {in.student_hidden, in.student_head});
  const Result expected =
      evaluate(twin_of(wide, options), {wide.student_hidden, wide.student_head});
  constexpr double kBFloat16 = 2e-2;  // a few units of 2^-8
  CHECK(actual.value.scalar_type() == at::kFloat);
  CHECK(actual.grads[1].scalar_type() == at::kBFloat16);
  check_close(actual.value, expected.value, kBFloat16, "loss");
  check_close(actual.grads[0], expected.grads[0], kBFloat16, "hidden");
  check_close(actual.grads[1], expected.grads[1], kBFloat16, "head");
}

TEST_CASE("logit_losses: LibTorch's form equals the kernel") {
  const KlDirection direction = any_direction();
  const double temperature = GENERATE(1.0, 2.5);
  const bool with_teacher = GENERATE(true, false);
  const bool with_ce = GENERATE(true, false);
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const auto make = [&] {
    detail::LogitLossInput in;
    in.student = normal({9, 50}, 1, dtype) * 3;
    if (with_teacher) in.teacher = normal({9, 50}, 2, dtype) * 3;
    if (with_teacher) in.kl_scale = normal({9}, 3, dtype);
    if (with_ce) in.ce_scale = normal({9}, 4, dtype);
    if (with_ce) in.targets = integers({9}, 50, 5).masked_fill_(at::arange(9).eq(4), -1);
    in.direction = direction;
    in.temperature = temperature;
    in.gradient = with_teacher || with_ce;
    return in;
  };
  const detail::LogitLossInput a = make(), b = make();
  const auto actual = detail::logit_losses_cpu(a), expected = detail::logit_losses_aten(b);
  const double forward = dtype == at::kDouble ? kTwin64 : kForward32;
  check_close(actual.kl, expected.kl, forward, "kl");
  check_close(actual.ce, expected.ce, forward, "ce");
  check_close(actual.agree, expected.agree, forward, "agree");
  if (a.gradient) {
    check_close(a.student, b.student, dtype == at::kDouble ? kTwin64 : kBackward32, "gradient");
  }
}

TEST_CASE("distill_loss: models of different vocabularies and foreign targets are refused") {
  DistillLossInput in = input_of({}, at::kFloat);
  in.teacher_head = in.teacher_head.narrow(0, 0, 36);
  CHECK_THROWS_WITH(distill_loss(in, {}),
                    ContainsSubstring("teacher_head: expected shape [37, 9], got [36, 9]"));
  in = input_of({}, at::kFloat);
  in.targets[3] = 37;
  DistillLossOptions options;
  options.ce_weight = 1.0;
  CHECK_THROWS_WITH(distill_loss(in, options),
                    ContainsSubstring("distill_loss targets: expected ids below 37, got 37"));
}

}  // namespace
}  // namespace zebra
