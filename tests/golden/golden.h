// What the golden tests share: reading a golden file, and the tolerance of the device and dtype
// they run on.
#pragma once

#include "support/close_to.h"
#include "support/testing.h"
#include "zebra/convert.h"
#include "zebra/model.h"
#include "zebra/safetensors.h"

#include <string>
#include <vector>

namespace zebra::testing {

class Golden {
 public:
  explicit Golden(const std::string& relative) : file_(shared_path(relative)) {}
  bool has(const std::string& name) const { return file_.tensors().contains(name); }
  at::Tensor operator[](const std::string& name) const {
    return file_.read(name).to(test_device());
  }
  // Names that begin with `prefix`, without it.
  std::vector<std::string> names(const std::string& prefix) const {
    std::vector<std::string> found;
    for (const auto& [name, info] : file_.tensors()) {
      if (name.starts_with(prefix)) found.push_back(name.substr(prefix.size()));
    }
    return found;
  }

 private:
  SafetensorsFile file_;
};

// docs/numerics.md: in bf16 every tolerance is the same multiple of that format's rounding.
inline constexpr double kBfloat16 = 4e-2;
inline double tolerance(double float32) {
  return test_dtype() == torch::kFloat32 ? float32 : kBfloat16;
}

inline CausalLm load_golden_model(const std::string& relative) {
  return load_model(shared_path(relative), {.dtype = test_dtype(), .device = test_device()});
}

inline void check_parameter_gradients(CausalLm& model, const Golden& golden,
                                      const std::string& prefix, double limit) {
  const auto parameters = model->named_parameters();
  const auto names = golden.names(prefix);
  REQUIRE(!names.empty());
  for (const auto& name : names) {
    const auto* parameter = parameters.find(name);
    INFO(name);
    REQUIRE(parameter != nullptr);
    check_close(parameter->grad(), golden[prefix + name], limit, prefix + name);
  }
}

}  // namespace zebra::testing
