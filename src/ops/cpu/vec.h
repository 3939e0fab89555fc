// Vectors of W numbers on GCC's and Clang's vector extension, and the functions of them that the
// kernels need. Included by isa_*.cpp through kernel_table.h; ZEBRA_ISA names the instruction set.
#pragma once

#include <cstdint>
#include <cstring>

#ifndef ZEBRA_ISA
#error "include ops/cpu/kernels.h; this header is compiled once for each instruction set"
#endif

#define ZEBRA_INLINE inline __attribute__((always_inline))

namespace zebra::detail::ZEBRA_ISA {

template <class Real>
struct Float;  // the layout of a floating point number, and how far its series must go

template <>
struct Float<float> {
  using Int = int32_t;
  static constexpr int kMantissa = 23, kBias = 127, kExpTerms = 7, kLogTerms = 8;
  static constexpr float kLowest = -87.0F;         // exp(x) is normal above
  static constexpr float kRound = 12582912.0F;     // 1.5 * 2^23: adding it rounds to integers
  static constexpr float kLn2High = 0.693359375F;  // few bits: products with it are exact
  static constexpr float kLn2Low = -2.12194440e-4F;
};

template <>
struct Float<double> {
  using Int = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023, kExpTerms = 13, kLogTerms = 17;
  static constexpr double kLowest = -708.0;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
  static constexpr double kLn2High = 0.693145751953125;
  static constexpr double kLn2Low = 1.42860682030941723212e-6;
};

inline constexpr double kInverseFactorial[] = {1.0,
                                               1.0,
                                               1.0 / 2,
                                               1.0 / 6,
                                               1.0 / 24,
                                               1.0 / 120,
                                               1.0 / 720,
                                               1.0 / 5040,
                                               1.0 / 40320,
                                               1.0 / 362880,
                                               1.0 / 3628800,
                                               1.0 / 39916800,
                                               1.0 / 479001600,
                                               1.0 / 6227020800};

template <class Real, int W>
struct Simd {
  using Bits = Float<Real>;
  using Int = typename Bits::Int;
  typedef Real V __attribute__((vector_size(W * sizeof(Real))));
  typedef Int I __attribute__((vector_size(W * sizeof(Int))));

  static ZEBRA_INLINE V load(const Real* from) {
    V v;
    std::memcpy(&v, from, sizeof(V));
    return v;
  }
  static ZEBRA_INLINE void store(Real* to, V v) { std::memcpy(to, &v, sizeof(V)); }

  // The first `count` numbers; the rest are zero, respectively left alone.
  static ZEBRA_INLINE V load(const Real* from, int64_t count) {
    if (count >= W) return load(from);
    Real numbers[W] = {};
    for (int64_t i = 0; i < count; ++i) numbers[i] = from[i];
    return load(numbers);
  }
  static ZEBRA_INLINE void store(Real* to, V v, int64_t count) {
    if (count >= W) return store(to, v);
    Real numbers[W];
    store(numbers, v);
    for (int64_t i = 0; i < count; ++i) to[i] = numbers[i];
  }

  static ZEBRA_INLINE Real sum(V v) {
    if constexpr (W == 2) {
      return v[0] + v[1];
    } else if constexpr (W == 4) {
      const V swapped = v + __builtin_shufflevector(v, v, 2, 3, 0, 1);
      return swapped[0] + swapped[1];
    } else if constexpr (W == 8) {
      return Simd<Real, 4>::sum(__builtin_shufflevector(v, v, 0, 1, 2, 3) +
                                __builtin_shufflevector(v, v, 4, 5, 6, 7));
    } else {
      static_assert(W == 16);
      return Simd<Real, 8>::sum(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                                __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
    }
  }

  static ZEBRA_INLINE V magnitude(V x) { return x < 0 ? -x : x; }

  // exp(x) for x <= 0 within two units of the last place; zero where it would be denormal.
  // x = n ln 2 + r with |r| <= ln(2) / 2, Taylor's series in r.
  static ZEBRA_INLINE V exp_nonpositive(V x) {
    constexpr Real kLog2e = static_cast<Real>(1.44269504088896340736);
    const V lowest = V{} + Bits::kLowest;
    const V clamped = x < lowest ? lowest : x;
    const V shifted = clamped * kLog2e + Bits::kRound;
    const V n = shifted - Bits::kRound;
    const V r = (clamped - n * Bits::kLn2High) - n * Bits::kLn2Low;
    V series = V{};
    for (int k = Bits::kExpTerms; k >= 0; --k) {
      series = series * r + static_cast<Real>(kInverseFactorial[k]);
    }
    const I power = bits(shifted) - bits(V{} + Bits::kRound) + Bits::kBias;
    const V result = series * numbers(power << Bits::kMantissa);
    return x < lowest ? V{} : result;
  }

  static ZEBRA_INLINE V sigmoid(V x) {
    const V e = exp_nonpositive(-magnitude(x));
    return (x < 0 ? e : V{} + static_cast<Real>(1)) / (e + static_cast<Real>(1));
  }

  // log(1 + exp(x)) = max(x, 0) + log1p(exp(-|x|)), log1p(u) = 2 artanh(u / (2 + u)).
  static ZEBRA_INLINE V softplus(V x) {
    const V u = exp_nonpositive(-magnitude(x));
    const V s = u / (u + static_cast<Real>(2));
    const V square = s * s;
    V series = V{};
    for (int k = Bits::kLogTerms; k >= 0; --k) {
      series = series * square + static_cast<Real>(2) / static_cast<Real>(2 * k + 1);
    }
    return (x > 0 ? x : V{}) + s * series;
  }

 private:
  static ZEBRA_INLINE I bits(V v) {
    I i;
    std::memcpy(&i, &v, sizeof(V));
    return i;
  }
  static ZEBRA_INLINE V numbers(I i) {
    V v;
    std::memcpy(&v, &i, sizeof(I));
    return v;
  }
};

// How many numbers the widest register holds.
template <class Real>
constexpr int kFullWidth = ZEBRA_VECTOR_BYTES / static_cast<int>(sizeof(Real));

}  // namespace zebra::detail::ZEBRA_ISA
