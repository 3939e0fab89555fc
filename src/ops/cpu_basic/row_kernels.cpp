#include "ops/cpu_basic/row_kernels.h"

#include <algorithm>
#include <cmath>

#include "ops/cpu_basic/simd.h"

namespace zebra::detail {
namespace {

template <class T>
struct RmsNormForward {
  static ZEBRA_INLINE void run(const RmsNormArgs<T>& args, int64_t begin, int64_t end) {
    const int64_t D = args.D;
    const T* const weight = args.weight;
    for (int64_t row = begin; row < end; ++row) {
      const T* const x = args.x + row * D;
      T* const y = args.y + row * D;
      T squares = 0;
#pragma omp simd reduction(+ : squares)
      for (int64_t d = 0; d < D; ++d) squares += x[d] * x[d];
      const T rstd = 1 / std::sqrt(squares / static_cast<T>(D) + static_cast<T>(args.eps));
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) y[d] = x[d] * rstd * weight[d];
      args.rstd[row] = rstd;
    }
  }
};

// With g = dy * weight: dx = rstd * g - x * rstd^3 * mean(g * x), dweight = sum of dy * x * rstd.
template <class T>
struct RmsNormBackward {
  static ZEBRA_INLINE void run(const RmsNormArgs<T>& args, int64_t begin, int64_t end, T* dweight) {
    const int64_t D = args.D;
    const T* const weight = args.weight;
    std::fill(dweight, dweight + D, T(0));
    for (int64_t row = begin; row < end; ++row) {
      const T* const x = args.x + row * D;
      const T* const dy = args.dy + row * D;
      T* const dx = args.dx + row * D;
      const T rstd = args.rstd[row];
      T dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t d = 0; d < D; ++d) dot += dy[d] * weight[d] * x[d];
      const T along = dot * rstd * rstd * rstd / static_cast<T>(D);
#pragma omp simd
      for (int64_t d = 0; d < D; ++d) {
        dx[d] = dy[d] * weight[d] * rstd - x[d] * along;
        dweight[d] += dy[d] * x[d] * rstd;
      }
    }
  }
};

template <class T>
struct SwigluForward {
  static ZEBRA_INLINE void run(const SwigluArgs<T>& args, int64_t begin, int64_t end) {
    const T* const gate = args.gate;
    const T* const up = args.up;
    T* const y = args.y;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) y[i] = gate[i] / (1 + exp_of(-gate[i])) * up[i];
  }
};

template <class T>
struct SwigluBackward {
  static ZEBRA_INLINE void run(const SwigluArgs<T>& args, int64_t begin, int64_t end) {
    const T* const gate = args.gate;
    const T* const up = args.up;
    const T* const dy = args.dy;
    T* const dgate = args.dgate;
    T* const dup = args.dup;
#pragma omp simd
    for (int64_t i = begin; i < end; ++i) {
      const T sigmoid = 1 / (1 + exp_of(-gate[i]));
      dgate[i] = dy[i] * up[i] * sigmoid * (1 + gate[i] * (1 - sigmoid));
      dup[i] = dy[i] * gate[i] * sigmoid;
    }
  }
};

template <class T>
struct Rope {
  static ZEBRA_INLINE void run(const RopeArgs<T>& args, int64_t begin, int64_t end) {
    const int64_t pairs = args.width / 2;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t batch = row / args.tokens, token = row % args.tokens;
      const T* const cos = args.cos + batch * args.table_batch_stride + token * pairs;
      const T* const sin = args.sin + batch * args.table_batch_stride + token * pairs;
      const T* x = args.x + batch * args.batch_stride + token * args.token_stride;
      T* y = args.y + row * args.heads * args.width;
      for (int64_t n = 0; n < args.heads; ++n, x += args.head_stride, y += args.width) {
        rotate_head(args, x, y, cos, sin);
      }
    }
  }

  static ZEBRA_INLINE void rotate_head(const RopeArgs<T>& args, const T* x, T* y, const T* cos,
                                       const T* sin) {
    const int64_t pairs = args.width / 2;
    const PairLayout from = args.from, to = args.to;
    const T direction = args.direction;
#pragma omp simd
    for (int64_t j = 0; j < pairs; ++j) {
      const T first = x[j * from.step], second = x[j * from.step + from.distance];
      const T s = sin[j] * direction;
      y[j * to.step] = first * cos[j] - second * s;
      y[j * to.step + to.distance] = second * cos[j] + first * s;
    }
  }
};

}  // namespace

template <class T>
void rms_norm_forward_rows(const RmsNormArgs<T>& args, int64_t begin, int64_t end) {
  run_simd<RmsNormForward<T>>(args, begin, end);
}

template <class T>
void rms_norm_backward_rows(const RmsNormArgs<T>& args, int64_t begin, int64_t end, T* dweight) {
  run_simd<RmsNormBackward<T>>(args, begin, end, dweight);
}

template <class T>
void swiglu_forward_range(const SwigluArgs<T>& args, int64_t begin, int64_t end) {
  run_simd<SwigluForward<T>>(args, begin, end);
}

template <class T>
void swiglu_backward_range(const SwigluArgs<T>& args, int64_t begin, int64_t end) {
  run_simd<SwigluBackward<T>>(args, begin, end);
}

template <class T>
void rope_rows(const RopeArgs<T>& args, int64_t begin, int64_t end) {
  run_simd<Rope<T>>(args, begin, end);
}

template void rms_norm_forward_rows(const RmsNormArgs<float>&, int64_t, int64_t);
template void rms_norm_forward_rows(const RmsNormArgs<double>&, int64_t, int64_t);
template void rms_norm_backward_rows(const RmsNormArgs<float>&, int64_t, int64_t, float*);
template void rms_norm_backward_rows(const RmsNormArgs<double>&, int64_t, int64_t, double*);
template void swiglu_forward_range(const SwigluArgs<float>&, int64_t, int64_t);
template void swiglu_forward_range(const SwigluArgs<double>&, int64_t, int64_t);
template void swiglu_backward_range(const SwigluArgs<float>&, int64_t, int64_t);
template void swiglu_backward_range(const SwigluArgs<double>&, int64_t, int64_t);
template void rope_rows(const RopeArgs<float>&, int64_t, int64_t);
template void rope_rows(const RopeArgs<double>&, int64_t, int64_t);

}  // namespace zebra::detail
