#include "ops/cpu_basic/divergence_kernel.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu_basic/simd.h"

// One row at a time, so that a row of a few thousand logits stays in the cache: a sweep for the
// largest values, one for the exponentials and sums, one for the gradient. Shifted logits are
// u = (z - max) / temperature, e = exp(u), S = sum e, p = e / S. docs/math/distillation.md.

namespace zebra::detail {
namespace {

template <class T>
struct Largest {
  T value;
  int32_t index;  // the first one
};

template <class T>
ZEBRA_INLINE Largest<T> largest_of(const T* row, int64_t V) {
  T most = row[0];
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < V; ++i) most = row[i] > most ? row[i] : most;
  const int32_t none = static_cast<int32_t>(V);
  int32_t index = none;
#pragma omp simd reduction(min : index)
  for (int32_t i = 0; i < none; ++i) {
    const int32_t candidate = row[i] == most ? i : none;
    index = candidate < index ? candidate : index;
  }
  return {most, index};
}

// A pair of rows and what is known of them. After the first sweep both hold intermediate values.
template <class T>
struct RowPair {
  T* student;
  T* teacher;
  int64_t V;
  T student_max, teacher_max;
  T inverse_temperature;
  T factor;  // of the gradient with respect to the logits
  bool gradient;
};

// KL(t || s) = sum p_t (u_t - u_s) - log S_t + log S_s; gradient p_s - p_t.
template <class T>
ZEBRA_INLINE T forward_divergence(const RowPair<T>& pair) {
  T* const student = pair.student;
  T* const teacher = pair.teacher;
  const T s_max = pair.student_max, t_max = pair.teacher_max, scale = pair.inverse_temperature;
  T s_sum = 0, t_sum = 0, dot = 0;
#pragma omp simd reduction(+ : s_sum, t_sum, dot)
  for (int64_t i = 0; i < pair.V; ++i) {
    const T us = (student[i] - s_max) * scale, ut = (teacher[i] - t_max) * scale;
    const T es = exp_of(us), et = exp_of(ut);
    s_sum += es;
    t_sum += et;
    dot += et * (ut - us);
    student[i] = es;
    teacher[i] = et;
  }
  if (pair.gradient) {
    const T s_factor = pair.factor / s_sum, t_factor = pair.factor / t_sum;
#pragma omp simd
    for (int64_t i = 0; i < pair.V; ++i) student[i] = student[i] * s_factor - teacher[i] * t_factor;
  }
  return dot / t_sum - std::log(t_sum) + std::log(s_sum);
}

// KL(s || t) = D = sum p_s (u_s - u_t) - log S_s + log S_t; gradient p_s (log(p_s / p_t) - D).
template <class T>
ZEBRA_INLINE T reverse_divergence(const RowPair<T>& pair) {
  T* const student = pair.student;
  T* const teacher = pair.teacher;
  const T s_max = pair.student_max, t_max = pair.teacher_max, scale = pair.inverse_temperature;
  T s_sum = 0, t_sum = 0, dot = 0;
#pragma omp simd reduction(+ : s_sum, t_sum, dot)
  for (int64_t i = 0; i < pair.V; ++i) {
    const T us = (student[i] - s_max) * scale, ut = (teacher[i] - t_max) * scale;
    const T es = exp_of(us);
    s_sum += es;
    t_sum += exp_of(ut);
    dot += es * (us - ut);
    student[i] = es;
    teacher[i] = us - ut;
  }
  const T mean = dot / s_sum;
  if (pair.gradient) {
    const T factor = pair.factor / s_sum;
#pragma omp simd
    for (int64_t i = 0; i < pair.V; ++i) student[i] = student[i] * factor * (teacher[i] - mean);
  }
  return mean - std::log(s_sum) + std::log(t_sum);
}

// (KL(t || m) + KL(s || m)) / 2 with log m = max + log(1 + exp(-|difference|)) - log 2;
// gradient p_s (log(p_s / m) - KL(s || m)) / 2.
template <class T>
ZEBRA_INLINE T js_divergence(const RowPair<T>& pair) {
  T* const student = pair.student;
  T* const teacher = pair.teacher;
  const T s_max = pair.student_max, t_max = pair.teacher_max, scale = pair.inverse_temperature;
  T s_sum = 0, t_sum = 0;
#pragma omp simd reduction(+ : s_sum, t_sum)
  for (int64_t i = 0; i < pair.V; ++i) {
    student[i] = (student[i] - s_max) * scale;
    teacher[i] = (teacher[i] - t_max) * scale;
    s_sum += exp_of(student[i]);
    t_sum += exp_of(teacher[i]);
  }
  const T s_log = std::log(s_sum), t_log = std::log(t_sum);
  constexpr T kLog2 = T(0.69314718055994530942);
  T s_divergence = 0, t_divergence = 0;
#pragma omp simd reduction(+ : s_divergence, t_divergence)
  for (int64_t i = 0; i < pair.V; ++i) {
    const T s = student[i] - s_log, t = teacher[i] - t_log;
    const T gap = s > t ? t - s : s - t;
    const T middle = (s > t ? s : t) + log1p_of(exp_of(gap)) - kLog2;
    const T ps = exp_of(s);
    s_divergence += ps * (s - middle);
    t_divergence += exp_of(t) * (t - middle);
    student[i] = ps * (s - middle);
    teacher[i] = ps;
  }
  if (pair.gradient) {
    const T factor = pair.factor / 2;
#pragma omp simd
    for (int64_t i = 0; i < pair.V; ++i) {
      student[i] = (student[i] - teacher[i] * s_divergence) * factor;
    }
  }
  return (s_divergence + t_divergence) / 2;
}

// exponentials[i] = exp(logits[i] - largest), also in place; returns their sum.
template <class T>
ZEBRA_INLINE T exponentials_of(const T* logits, T largest, int64_t V, T* exponentials) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < V; ++i) {
    const T e = exp_of(logits[i] - largest);
    sum += e;
    exponentials[i] = e;
  }
  return sum;
}

template <class T>
struct LogitRows {
  static ZEBRA_INLINE void run(const LogitRowsArgs<T>& args, T* scratch, int64_t begin,
                               int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      T* const student = args.student + row * args.vocabulary;
      const Largest<T> largest = largest_of(student, args.vocabulary);
      const bool with_target = args.ce_scale && args.target[row] >= 0;
      T sum = 1;
      if (args.ce_scale) args.ce[row] = 0;
      if (with_target) {
        const T shifted = student[args.target[row]] - largest.value;
        T* const exponentials = args.teacher ? scratch : student;
        sum = exponentials_of(student, largest.value, args.vocabulary, exponentials);
        args.ce[row] = std::log(sum) - shifted;
      }
      if (args.teacher) divergence(args, row, largest);
      if (args.gradient && args.ce_scale) cross_entropy_gradient(args, row, scratch, sum);
    }
  }

  static ZEBRA_INLINE void divergence(const LogitRowsArgs<T>& args, int64_t row,
                                      const Largest<T>& student_largest) {
    const int64_t V = args.vocabulary;
    T* const teacher = args.teacher + row * V;
    const Largest<T> teacher_largest = largest_of(teacher, V);
    const RowPair<T> pair{args.student + row * V,
                          teacher,
                          V,
                          student_largest.value,
                          teacher_largest.value,
                          1 / args.temperature,
                          args.kl_scale[row] * args.temperature,
                          args.gradient};
    T value = 0;
    switch (args.direction) {
      case KlDirection::kForward:
        value = forward_divergence(pair);
        break;
      case KlDirection::kReverse:
        value = reverse_divergence(pair);
        break;
      case KlDirection::kJs:
        value = js_divergence(pair);
        break;
    }
    args.kl[row] = value * args.temperature * args.temperature;
    args.agree[row] = student_largest.index == teacher_largest.index ? T(1) : T(0);
  }

  // Adds ce_scale * (p - 1 at the target) to the divergence's gradient, or makes it alone.
  static ZEBRA_INLINE void cross_entropy_gradient(const LogitRowsArgs<T>& args, int64_t row,
                                                  const T* scratch, T sum) {
    const int64_t V = args.vocabulary;
    T* const student = args.student + row * V;
    if (args.target[row] < 0) {
      if (!args.teacher) std::fill_n(student, V, T(0));
      return;
    }
    const T factor = args.ce_scale[row] / sum;
    if (args.teacher) {
#pragma omp simd
      for (int64_t i = 0; i < V; ++i) student[i] += scratch[i] * factor;
    } else {
#pragma omp simd
      for (int64_t i = 0; i < V; ++i) student[i] *= factor;
    }
    student[args.target[row]] -= args.ce_scale[row];
  }
};

}  // namespace

template <class T>
void logit_rows(const LogitRowsArgs<T>& args, int64_t begin, int64_t end) {
  const bool both = args.teacher != nullptr && args.ce_scale != nullptr;
  const auto scratch = aligned_array<T>(both ? args.vocabulary : 1);
  run_simd<LogitRows<T>>(args, scratch.get(), begin, end);
}

template void logit_rows(const LogitRowsArgs<float>&, int64_t, int64_t);
template void logit_rows(const LogitRowsArgs<double>&, int64_t, int64_t);

}  // namespace zebra::detail
