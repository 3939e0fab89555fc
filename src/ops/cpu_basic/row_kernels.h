// CPU kernels of the operations that work row by row. Raw pointers; the caller splits the rows over
// threads. T is float or double.
#pragma once

#include <cstdint>

namespace zebra::detail {

// Row r is x[r * D .. r * D + D).
template <class T>
struct RmsNormArgs {
  const T* x;       // (rows, D)
  const T* weight;  // (D)
  T* rstd;          // (rows): 1 / root mean square; written forward, read backward
  T* y;             // (rows, D) forward only
  const T* dy;      // (rows, D) backward only
  T* dx;            // (rows, D) backward only
  int64_t D;
  double eps;
};

template <class T>
void rms_norm_forward_rows(const RmsNormArgs<T>& args, int64_t begin, int64_t end);

// dweight: (D), set to the sum over these rows.
template <class T>
void rms_norm_backward_rows(const RmsNormArgs<T>& args, int64_t begin, int64_t end, T* dweight);

template <class T>
struct SwigluArgs {
  const T* gate;
  const T* up;
  T* y;         // forward only
  const T* dy;  // the rest backward only
  T* dgate;
  T* dup;
};

// Elements begin to end of contiguous tensors.
template <class T>
void swiglu_forward_range(const SwigluArgs<T>& args, int64_t begin, int64_t end);
template <class T>
void swiglu_backward_range(const SwigluArgs<T>& args, int64_t begin, int64_t end);

// Where the two members of pair j lie in a head: at j * step and j * step + distance.
struct PairLayout {
  int64_t step;
  int64_t distance;
};

// y pair = x pair rotated by the angle of (cos, direction * sin).
template <class T>
struct RopeArgs {
  const T* x;  // element (b, t, n, h) at b * batch_stride + t * token_stride + n * head_stride + h
  int64_t batch_stride, token_stride, head_stride;
  T* y;  // (B, T, N, H) contiguous
  const T* cos;
  const T* sin;                  // (B or 1, T, H/2) contiguous
  int64_t table_batch_stride;    // T * H/2, or 0 for one table for all
  int64_t tokens, heads, width;  // T, N, H
  PairLayout from, to;
  T direction;  // 1, or -1 for the inverse rotation
};

// Tokens begin to end of the B * T.
template <class T>
void rope_rows(const RopeArgs<T>& args, int64_t begin, int64_t end);

}  // namespace zebra::detail
