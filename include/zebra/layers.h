// The small layers that every block is made of.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/linear.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <string>

#include "zebra/ops.h"

namespace zebra {

class RmsNormImpl : public torch::nn::Module {
 public:
  RmsNormImpl(int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x);  // (..., D) -> (..., D)

  at::Tensor weight;  // (D)

 private:
  double eps_;
};
TORCH_MODULE(RmsNorm);

struct MlpOptions {
  int64_t hidden_size = 2048;        // D
  int64_t intermediate_size = 8192;  // F
  bool bias = false;
};

// SwiGLU: down(silu(gate(x)) * up(x)).
class MlpImpl : public torch::nn::Module {
 public:
  explicit MlpImpl(const MlpOptions& options);
  at::Tensor forward(const at::Tensor& x);  // (..., D) -> (..., D)

  torch::nn::Linear gate_proj{nullptr}, up_proj{nullptr}, down_proj{nullptr};
};
TORCH_MODULE(Mlp);

enum class RopeScaling { kDefault, kLlama3, kYarn };

struct RopeOptions {
  RopeScaling scaling = RopeScaling::kDefault;
  double theta = 10000.0;
  double factor = 1.0;                              // context extension
  int64_t original_max_position_embeddings = 8192;  // the length the frequencies were made for
  double low_freq_factor = 1.0;                     // llama3 only
  double high_freq_factor = 4.0;                    // llama3 only
  double beta_fast = 32.0;                          // YaRN only
  double beta_slow = 1.0;                           // YaRN only
};

// Inverse frequencies of one rotary dimension count, and the factor on cos and sin.
// Llama: theta^(-2i/H). llama3: Hugging Face's piecewise scaling. YaRN: Peng et al. 2023 as
// DeepSeek wrote it, with factor 0.1 ln(factor) + 1 on cos and sin and the ramp's bounds floored
// and ceiled.
struct RopeFrequencies {
  RopeFrequencies() = default;
  RopeFrequencies(const RopeOptions& options, int64_t dim);
  // positions: (B or 1, T) int64 -> tables (B or 1, T, dim/2) on positions' device.
  RopeTable table(const at::Tensor& positions, at::ScalarType dtype) const;

  at::Tensor inverse;             // (dim/2) float32 on the CPU; undefined: no rotation wanted
  double attention_factor = 1.0;  // multiplies cos and sin
};

}  // namespace zebra
