#include "zebra/layers.h"

#include <cmath>
#include <numbers>

#include "model/project.h"
#include "zebra/ops.h"

namespace zebra {

RmsNormImpl::RmsNormImpl(int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", torch::ones({width}));
}

at::Tensor RmsNormImpl::forward(const at::Tensor& x) { return rms_norm(x, weight, eps_); }

MlpImpl::MlpImpl(const MlpOptions& options) {
  const int64_t D = options.hidden_size, F = options.intermediate_size;
  gate_proj = register_module("gate_proj", make_linear(D, F, options.bias));
  up_proj = register_module("up_proj", make_linear(D, F, options.bias));
  down_proj = register_module("down_proj", make_linear(F, D, options.bias));
}

at::Tensor MlpImpl::forward(const at::Tensor& x) {
  return project_last(down_proj, swiglu(project(gate_proj, x), project(up_proj, x)));
}

namespace {

// Wavelengths longer than low are divided by the factor, shorter than high are kept, and between
// them the two blend.
at::Tensor scale_llama3(const RopeOptions& options, const at::Tensor& inverse) {
  const double length = static_cast<double>(options.original_max_position_embeddings);
  const auto turns = length / (2 * std::numbers::pi / inverse);  // over the original length
  const auto blend =
      ((turns - options.low_freq_factor) / (options.high_freq_factor - options.low_freq_factor))
          .clamp(0, 1);
  return (1 - blend) * inverse / options.factor + blend * inverse;
}

// Dimension at which a frequency makes `turns` turns over the original length.
double yarn_dimension(const RopeOptions& options, int64_t dim, double turns) {
  const double length = static_cast<double>(options.original_max_position_embeddings);
  return static_cast<double>(dim) * std::log(length / (turns * 2 * std::numbers::pi)) /
         (2 * std::log(options.theta));
}

at::Tensor scale_yarn(const RopeOptions& options, int64_t dim, const at::Tensor& inverse) {
  const double low = std::max(0.0, std::floor(yarn_dimension(options, dim, options.beta_fast)));
  double high = std::min(static_cast<double>(dim - 1),
                         std::ceil(yarn_dimension(options, dim, options.beta_slow)));
  if (high == low) high += 0.001;  // as published: no division by zero
  const auto ramp = ((torch::arange(dim / 2, torch::kFloat) - low) / (high - low)).clamp(0, 1);
  return inverse / options.factor * ramp + inverse * (1 - ramp);
}

}  // namespace

// In float32 throughout, as the models were trained: at position 20,000 a last bit of a frequency
// turns a head by a thousandth.
RopeFrequencies::RopeFrequencies(const RopeOptions& options, int64_t dim) {
  TORCH_CHECK(dim % 2 == 0, "rope: expected an even number of rotary dimensions, got ", dim);
  const auto exponents = torch::arange(0, dim, 2, torch::kFloat) / static_cast<double>(dim);
  inverse = 1.0 / torch::pow(options.theta, exponents);  // (dim/2)
  if (options.scaling == RopeScaling::kLlama3) inverse = scale_llama3(options, inverse);
  if (options.scaling == RopeScaling::kYarn) {
    inverse = scale_yarn(options, dim, inverse);
    attention_factor = options.factor > 1 ? 0.1 * std::log(options.factor) + 1.0 : 1.0;
  }
}

RopeTable RopeFrequencies::table(const at::Tensor& positions, at::ScalarType dtype) const {
  const auto angles =
      positions.to(torch::kFloat).unsqueeze(-1) * inverse.to(positions.device());  // (B, T, dim/2)
  return {(angles.cos() * attention_factor).to(dtype), (angles.sin() * attention_factor).to(dtype)};
}

}  // namespace zebra
