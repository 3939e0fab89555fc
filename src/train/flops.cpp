#include "train/flops.h"

#include <array>

#include "zebra/convert.h"

#ifdef ZEBRA_CUDA
#include <ATen/cuda/CUDAContext.h>
#endif

namespace zebra {

namespace {

// Beside the weights: scores and values of attention, the scan's state.
double mixing_flops(const ModelOptions& options, int64_t layer, double seen) {
  const auto heads = static_cast<double>(options.num_heads);
  switch (options.layers[static_cast<size_t>(layer)]) {
    case MixerKind::kAttention:
      return 2 * heads * 2 * static_cast<double>(options.head_dim) * seen;
    case MixerKind::kMla: {
      const auto& mla = options.mla;
      const int64_t qk = mla.qk_nope_head_dim + mla.qk_rope_head_dim;
      return 2 * heads * static_cast<double>(qk + mla.v_head_dim) * seen;
    }
    case MixerKind::kMamba2: {
      // h = a h + (dt x) B^T: three for each element of the state; y = h C: two.
      const auto& mamba2 = options.mamba2;
      return 5.0 * static_cast<double>(mamba2.num_heads * mamba2.head_dim * mamba2.head_dim);
    }
  }
  return 0;
}

struct GpuPeak {
  const char* name;     // part of CUDA's name
  double half, single;  // 1e12 operations a second, dense; single: with TF32
};

// From the vendors' data sheets; the longer name first where one holds the other.
constexpr std::array<GpuPeak, 9> kGpus = {{{"H200", 989.4, 494.7},
                                           {"H100 PCIe", 756.0, 378.0},
                                           {"H100", 989.4, 494.7},
                                           {"A100", 312.0, 156.0},
                                           {"A40", 149.7, 74.8},
                                           {"L40", 181.0, 90.5},
                                           {"RTX 4090", 165.2, 82.6},
                                           {"RTX 3090", 71.0, 35.6},
                                           {"V100", 125.0, 15.7}}};

}  // namespace

ForwardFlops forward_flops(const ModelOptions& options, int64_t sequence_length) {
  ForwardFlops flops;
  const double seen = (static_cast<double>(sequence_length) + 1) / 2;  // tokens, on average
  for (const auto& [name, shape] : expected_tensors(options)) {
    if (!name.starts_with("model.layers.") || shape.size() < 2) continue;
    double weights = 1;  // matrices, and the convolution's (C, 1, K)
    for (const int64_t size : shape) weights *= static_cast<double>(size);
    flops.layers += 2 * weights;
  }
  for (int64_t i = 0; i < options.num_layers(); ++i) {
    flops.layers += mixing_flops(options, i, seen);
  }
  flops.head = 2.0 * static_cast<double>(options.vocab_size * options.hidden_size);
  return flops;
}

double peak_flops_of_gpu(const std::string& name, at::ScalarType dtype) {
  for (const auto& gpu : kGpus) {
    if (name.find(gpu.name) == std::string::npos) continue;
    return 1e12 * (at::isReducedFloatingType(dtype) ? gpu.half : gpu.single);
  }
  return 0;
}

double peak_flops(double peak_tflops, at::Device device, at::ScalarType dtype) {
  if (peak_tflops > 0) return 1e12 * peak_tflops;
#ifdef ZEBRA_CUDA
  if (device.is_cuda()) {
    return peak_flops_of_gpu(at::cuda::getDeviceProperties(device.index())->name, dtype);
  }
#endif
  (void)device;
  (void)dtype;
  return 0;
}

}  // namespace zebra
