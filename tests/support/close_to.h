// Comparison of tensors relative to the expected tensor's largest magnitude; docs/numerics.md.
#pragma once

#include "support/testing.h"

#include <cmath>
#include <source_location>
#include <sstream>
#include <string>

namespace zebra::testing {

// The tolerances of docs/numerics.md. A test names one of them and invents none.
inline constexpr double kTwin64 = 1e-10;           // fast path against slow twin, float64
inline constexpr double kForward32 = 2e-5;         // outputs in float32
inline constexpr double kBackward32 = 1e-4;        // gradients in float32
inline constexpr double kDecode32 = 5e-5;          // piecewise against whole, float32
inline constexpr double kFiniteDifference = 1e-6;  // gradients against finite differences, float64

// "[1, 0, 5]": the index of element `flat` of a contiguous tensor of this shape.
inline std::string index_text(int64_t flat, at::IntArrayRef sizes) {
  std::string text;
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) {
    text = std::to_string(flat % *size) + (text.empty() ? "" : ", ") + text;
    flat /= *size;
  }
  return "[" + text + "]";
}

// Empty when `actual` is `expected` within `tolerance` times expected's largest magnitude. Else one
// line: what, shape, worst element, both values. An expected tensor of zeros wants exact zeros; an
// infinity or NaN on either side always differs.
inline std::string describe_difference(const at::Tensor& actual, const at::Tensor& expected,
                                       double tolerance, const std::string& name) {
  std::ostringstream out;
  out.precision(10);
  if (!actual.defined() || !expected.defined()) {
    if (actual.defined() == expected.defined()) return "";
    out << name << ": " << (actual.defined() ? "expected" : "actual") << " is undefined";
    return out.str();
  }
  if (actual.sizes() != expected.sizes()) {
    out << name << ": expected shape " << expected.sizes() << ", got " << actual.sizes();
    return out.str();
  }
  if (expected.numel() == 0) return "";
  const at::NoGradGuard no_grad;
  const at::Tensor a = actual.detach().to(at::kCPU, at::kDouble).contiguous().view({-1});
  const at::Tensor e = expected.detach().to(at::kCPU, at::kDouble).contiguous().view({-1});
  const at::Tensor error = (a - e).abs();
  const at::Tensor finite = at::isfinite(error);
  const bool all_finite = finite.all().item<bool>();
  const int64_t worst =
      all_finite ? error.argmax().item<int64_t>() : finite.to(at::kInt).argmin().item<int64_t>();
  const double scale = e.abs().max().item<double>();
  const double limit = tolerance * scale;
  if (all_finite && error[worst].item<double>() <= limit) return "";
  out << name << " " << expected.sizes() << ": worst element "
      << index_text(worst, expected.sizes()) << ": expected " << e[worst].item<double>() << ", got "
      << a[worst].item<double>() << "; error " << error[worst].item<double>() << " > " << tolerance
      << " * " << scale;
  return out.str();
}

// check_close(y, twin, kTwin64, "y"): a failure of the running test unless they agree.
inline void check_close(const at::Tensor& actual, const at::Tensor& expected, double tolerance,
                        const std::string& name = "tensor",
                        const std::source_location& where = std::source_location::current()) {
  const std::string difference = describe_difference(actual, expected, tolerance, name);
  INFO("called from " << where.file_name() << ":" << where.line());
  CHECK(difference == "");
}

// The same bits: no tolerance.
inline void check_equal(const at::Tensor& actual, const at::Tensor& expected,
                        const std::string& name = "tensor",
                        const std::source_location& where = std::source_location::current()) {
  check_close(actual, expected, /*tolerance=*/0.0, name, where);
}

}  // namespace zebra::testing
