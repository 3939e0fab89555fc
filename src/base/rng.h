// Random numbers that nobody else's calls disturb.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace zebra {

// A generator of its own on the CPU.
at::Generator make_generator(uint64_t seed);

// Puts the default CPU generator back as it was at the end of the scope: for code that builds
// modules whose random weights it replaces.
class KeepDefaultGenerator {
 public:
  KeepDefaultGenerator();
  ~KeepDefaultGenerator();
  KeepDefaultGenerator(const KeepDefaultGenerator&) = delete;
  KeepDefaultGenerator& operator=(const KeepDefaultGenerator&) = delete;

 private:
  at::Tensor state_;
};

}  // namespace zebra
