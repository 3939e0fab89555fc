#include "base/rng.h"

#include <ATen/CPUGeneratorImpl.h>

namespace zebra {

at::Generator make_generator(uint64_t seed) { return at::detail::createCPUGenerator(seed); }

KeepDefaultGenerator::KeepDefaultGenerator() {
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  state_ = generator.get_state();
}

KeepDefaultGenerator::~KeepDefaultGenerator() {
  auto generator = at::detail::getDefaultCPUGenerator();
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_state(state_);
}

}  // namespace zebra
