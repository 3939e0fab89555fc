#include "ops/basic_support.h"

#include "ops/reference_basic.h"
#include "zebra/losses.h"

namespace zebra {
namespace {

using namespace zebra::testing;

constexpr IldForm kForms[] = {IldForm::kNorm, IldForm::kMeanSquared};

TEST_CASE("ild_distance: equals its slow twin, gradients included") {
  const IldForm form = GENERATE(from_range(std::begin(kForms), std::end(kForms)));
  const at::ScalarType dtype = GENERATE(at::kDouble, at::kFloat);
  const at::Tensor teacher = normal({2, 5, 9}, 1, dtype), weights = normal({2, 5}, 2, dtype).abs();
  check_twin([&](const auto& x) { return ild_distance(x[0], teacher, weights, form); },
             [&](const auto& x) { return reference::ild_distance(x[0], teacher, weights, form); },
             {normal({2, 5, 9}, 3, dtype)});
}

TEST_CASE("ild_distance: gradients equal finite differences") {
  const IldForm form = GENERATE(from_range(std::begin(kForms), std::end(kForms)));
  const at::Tensor teacher = normal({2, 3, 4}, 1), weights = normal({2, 3}, 2).abs();
  check_gradients([&](const auto& x) { return ild_distance(x[0], teacher, weights, form); },
                  {{"student", normal({2, 3, 4}, 3)}});
}

TEST_CASE("ild_distance: the published form is the mean of the lengths, not squared") {
  const at::Tensor student = at::tensor({3.0, 4.0, 0.0, 5.0}, at::kDouble).view({1, 2, 2});
  const at::Tensor weights = at::full({1, 2}, 0.5, at::kDouble);
  const at::Tensor zero = at::zeros({1, 2, 2}, at::kDouble);
  CHECK(ild_distance(student, zero, weights, IldForm::kNorm).item<double>() == Approx(5.0));
  CHECK(ild_distance(student, zero, weights, IldForm::kMeanSquared).item<double>() == Approx(12.5));
}

TEST_CASE("ild_distance: a zero difference has a zero gradient") {
  const IldForm form = GENERATE(from_range(std::begin(kForms), std::end(kForms)));
  const at::Tensor teacher = normal({1, 3, 4}, 1, at::kFloat);
  at::Tensor student = teacher.clone();
  student[0][1] += 1.0;
  student.requires_grad_(true);
  ild_distance(student, teacher, at::ones({1, 3}), form).backward();
  CHECK(at::isfinite(student.grad()).all().item<bool>());
  CHECK(student.grad()[0][0].abs().sum().item<float>() == 0.0f);
  CHECK(student.grad()[0][1].abs().sum().item<float>() > 0.0f);
}

TEST_CASE("ild_distance: micro-batches with one denominator add up to the batch") {
  const IldForm form = GENERATE(from_range(std::begin(kForms), std::end(kForms)));
  const at::Tensor student = normal({4, 3, 5}, 1), teacher = normal({4, 3, 5}, 2);
  const at::Tensor weights = at::full({4, 3}, 1.0 / 12, at::kDouble);
  const auto part = [&](int64_t begin, int64_t count) {
    return ild_distance(student.narrow(0, begin, count), teacher.narrow(0, begin, count),
                        weights.narrow(0, begin, count), form);
  };
  check_close(part(0, 1) + part(1, 3), ild_distance(student, teacher, weights, form), kTwin64);
}

TEST_CASE("ild_distance: bfloat16 differences are measured in float32") {
  const at::Tensor student = normal({2, 3, 8}, 1, at::kBFloat16);
  const at::Tensor teacher = normal({2, 3, 8}, 2, at::kBFloat16);
  const at::Tensor weights = at::ones({2, 3});
  const at::Tensor loss = ild_distance(student, teacher, weights, IldForm::kNorm);
  CHECK(loss.scalar_type() == at::kFloat);
  check_close(loss, reference::ild_distance(student, teacher, weights, IldForm::kNorm), kForward32);
}

TEST_CASE("ild_distance: tensors of unequal shape are refused with both shapes") {
  CHECK_THROWS_WITH(
      ild_distance(at::ones({1, 2, 3}), at::ones({1, 2, 4}), at::ones({1, 2}), IldForm::kNorm),
      ContainsSubstring("ild_distance teacher: expected shape [1, 2, 3], got [1, 2, 4]"));
}

}  // namespace
}  // namespace zebra
