// Plain loops compiled for several instruction sets, and the elementary functions they need.
// A kernel is a struct with a static always-inline `run`; run_simd<Kernel>(args...) calls the copy
// that this processor executes fastest. Loops are marked `omp simd`, so the compiler vectorises
// them at any optimisation level. No LibTorch header here: sources are compiled with own flags.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <memory>

#define ZEBRA_INLINE inline __attribute__((always_inline))

namespace zebra::detail {

// ---- instruction sets ---------------------------------------------------------------------------

#if defined(__x86_64__)

template <class Kernel, class... Args>
__attribute__((target("avx2,fma"))) void run_avx2(const Args&... args) {
  Kernel::run(args...);
}

template <class Kernel, class... Args>
__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,avx2,fma,prefer-vector-width=512"))) void
run_avx512(const Args&... args) {
  Kernel::run(args...);
}

template <class Kernel, class... Args>
void run_simd(const Args&... args) {
  if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw")) {
    return run_avx512<Kernel>(args...);
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return run_avx2<Kernel>(args...);
  }
  Kernel::run(args...);
}

#else

template <class Kernel, class... Args>
void run_simd(const Args&... args) {
  Kernel::run(args...);
}

#endif

// ---- elementary functions -----------------------------------------------------------------------

// exp within 2 units in the last place; 0 below -87, largest at 88, NaN for NaN. x = n ln 2 + r
// with |r| <= ln(2) / 2; exp(r) by its series, 2^n through the exponent bits of the rounded n.
ZEBRA_INLINE float exp_of(float x) {
  constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 1.42860682e-6f;
  const float clamped = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  const float shifted = clamped * 1.44269504f + kRound;
  const float n = shifted - kRound;
  const float r = (clamped - n * kLn2High) - n * kLn2Low;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = (p * r + 1.0f) * r + 1.0f;
  const float power = std::bit_cast<float>((std::bit_cast<uint32_t>(shifted) << 23) + 0x3F800000u);
  return x < -87.0f ? 0.0f : p * power;
}
ZEBRA_INLINE double exp_of(double x) { return std::exp(x); }

// log(1 + e) for e in [0, 1]: 2 artanh(e / (2 + e)) by its series.
ZEBRA_INLINE float log1p_of(float e) {
  const float f = e / (2.0f + e);  // at most 1/3
  const float w = f * f;
  float p = 1.0f / 15;
  p = p * w + 1.0f / 13;
  p = p * w + 1.0f / 11;
  p = p * w + 1.0f / 9;
  p = p * w + 1.0f / 7;
  p = p * w + 1.0f / 5;
  p = p * w + 1.0f / 3;
  return 2.0f * f * (p * w + 1.0f);
}
ZEBRA_INLINE double log1p_of(double e) { return std::log1p(e); }

// ---- memory -------------------------------------------------------------------------------------

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};

// `count` values, not initialised, on a 64-byte boundary.
template <class T>
std::unique_ptr<T[], FreeDeleter> aligned_array(int64_t count) {
  const size_t bytes = (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
  return std::unique_ptr<T[], FreeDeleter>(static_cast<T*>(std::aligned_alloc(64, bytes)));
}

}  // namespace zebra::detail
