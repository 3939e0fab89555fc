#include "ops/cpu_basic/attention_kernel.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "ops/cpu_basic/simd.h"

// Keys, values and their gradients of one (batch, key head) are held transposed, (H, S), so that
// the vector lanes run over keys. Four queries share each load. Widths are padded with zero rows to
// a multiple of 8 and the keys to a multiple of 16; masked scores are -infinity, whose exp is 0.

namespace zebra::detail {
namespace {

constexpr int kRows = 4;    // queries of a block
constexpr int kDims = 8;    // dimensions of a head that are worked on at a time
constexpr int kLanes = 16;  // key ranges begin and end at multiples of it

constexpr int64_t round_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// c[i][s] = (Add: +) sum_j a[i][j] b[j][s] for s in [0, length), length a multiple of kLanes.
template <int I, int J, bool Add, class T>
ZEBRA_INLINE void product(const T* a, const T* b, T* c, int64_t stride, int64_t length) {
  T factor[I][J];
  for (int i = 0; i < I; ++i) {
    for (int j = 0; j < J; ++j) factor[i][j] = a[i * J + j];
  }
  const int64_t steps = length / kLanes;
#pragma omp simd
  for (int64_t s = 0; s < steps * kLanes; ++s) {
#pragma GCC unroll 8
    for (int i = 0; i < I; ++i) {
      T sum = Add ? c[i * stride + s] : T(0);
#pragma GCC unroll 8
      for (int j = 0; j < J; ++j) sum += factor[i][j] * b[j * stride + s];
      c[i * stride + s] = sum;
    }
  }
}

// The sum of the lanes, by halves: one addition after another would cost more than a short row.
template <class T>
ZEBRA_INLINE T sum_of_lanes(T (&lanes)[kLanes]) {
#pragma GCC unroll 8
  for (int half = kLanes / 2; half >= 1; half /= 2) {
    for (int l = 0; l < half; ++l) lanes[l] += lanes[l + half];
  }
  return lanes[0];
}

// out[j] = sum_s a[s] b[j][s] for the kDims rows of b.
template <class T>
ZEBRA_INLINE void dots(const T* a, const T* b, int64_t stride, int64_t length, T* out) {
  T lanes[kDims][kLanes] = {};
  for (int64_t s = 0; s < length; s += kLanes) {
#pragma GCC unroll 8
    for (int j = 0; j < kDims; ++j) {
#pragma omp simd
      for (int l = 0; l < kLanes; ++l) lanes[j][l] += a[s + l] * b[j * stride + s + l];
    }
  }
  for (int j = 0; j < kDims; ++j) out[j] = sum_of_lanes(lanes[j]);
}

// Four queries and the keys that at least one of them sees.
struct Block {
  int64_t query;          // the first one
  int64_t count;          // 1 to kRows
  int64_t begin, length;  // keys, multiples of kLanes
};

// Rows of `width` values, `stride` apart.
template <class T>
struct Rows {
  const T* data;
  int64_t stride, width;
};

// What one thread works with. All arrays of a head's dimensions have padded extents.
template <class T>
struct Task {
  const AttentionArgs<T>& args;
  int64_t dims, value_dims, stride;  // H and Hv to multiples of kDims, S to one of kLanes
  int64_t batch, group;
  std::unique_ptr<T[], FreeDeleter> keys, values, key_grads, value_grads;  // (dims, stride)
  std::unique_ptr<T[], FreeDeleter> scores, score_grads;                   // (kRows, stride)
  // (dims / kDims, kRows, kDims): query rows times scale, output gradients, sums
  std::unique_ptr<T[], FreeDeleter> q, dout, sums;

  ZEBRA_INLINE Task(const AttentionArgs<T>& a, bool backward)
      : args(a),
        dims(round_up(a.width, kDims)),
        value_dims(round_up(a.value_width, kDims)),
        stride(round_up(a.keys, kLanes)) {
    const int64_t most = kRows * std::max(dims, value_dims);
    keys = aligned_array<T>(dims * stride);
    values = aligned_array<T>(value_dims * stride);
    scores = aligned_array<T>(kRows * stride);
    q = aligned_array<T>(most);
    sums = aligned_array<T>(most);
    if (!backward) return;
    key_grads = aligned_array<T>(dims * stride);
    value_grads = aligned_array<T>(value_dims * stride);
    score_grads = aligned_array<T>(kRows * stride);
    dout = aligned_array<T>(most);
  }

  ZEBRA_INLINE void start(int64_t task) {
    batch = task / args.groups;
    group = task % args.groups;
    load_transposed(args.k, args.k_strides, args.width, dims, keys.get());
    load_transposed(args.v, args.v_strides, args.value_width, value_dims, values.get());
  }

  ZEBRA_INLINE void load_transposed(const T* from, const HeadStrides& strides, int64_t width,
                                    int64_t padded, T* to) const {
    std::fill(to, to + padded * stride, T(0));
    const T* const source = from + batch * strides.batch + group * strides.head;
    for (int64_t s = 0; s < args.keys; ++s) {
      for (int64_t h = 0; h < width; ++h) to[h * stride + s] = source[s * strides.token + h];
    }
  }

  // (S, width) of this group inside a contiguous (B, S, G, width).
  ZEBRA_INLINE void store_transposed(const T* from, int64_t width, T* to) const {
    T* const target = to + (batch * args.keys * args.groups + group) * width;
    for (int64_t s = 0; s < args.keys; ++s) {
      T* const row = target + s * args.groups * width;
      for (int64_t h = 0; h < width; ++h) row[h] = from[h * stride + s];
    }
  }

  // The first `count` rows times `factor` into blocks of kDims, the rest zero.
  ZEBRA_INLINE void load_rows(const Rows<T>& from, int64_t count, T factor, T* to) const {
    std::fill(to, to + kRows * round_up(from.width, kDims), T(0));
    for (int64_t r = 0; r < count; ++r) {
      for (int64_t h = 0; h < from.width; ++h) {
        to[(h / kDims * kRows + r) * kDims + h % kDims] = from.data[r * from.stride + h] * factor;
      }
    }
  }

  ZEBRA_INLINE int64_t position(int64_t query) const { return args.keys - args.queries + query; }

  ZEBRA_INLINE int64_t first_key(int64_t query) const {
    return args.first ? args.first[batch * args.keys + position(query)] : 0;
  }

  ZEBRA_INLINE Block block_at(int64_t query) const {
    Block block{query, std::min<int64_t>(kRows, args.queries - query), args.keys, 0};
    for (int64_t r = 0; r < block.count; ++r) {
      block.begin = std::min(block.begin, first_key(query + r) / kLanes * kLanes);
    }
    const int64_t seen = position(query + block.count - 1) + 1;
    block.length = round_up(seen - block.begin, kLanes);
    return block;
  }

  // rows[r][s] = sum_h left[r][h] right[h][s] over the block's keys.
  ZEBRA_INLINE void row_products(const T* left, const T* right, int64_t padded, const Block& block,
                                 T* rows) const {
    product<kRows, kDims, false>(left, right + block.begin, rows, stride, block.length);
    for (int64_t d = kDims; d < padded; d += kDims) {
      product<kRows, kDims, true>(left + d * kRows, right + d * stride + block.begin, rows, stride,
                                  block.length);
    }
  }

  // The scores of the block's queries with -infinity where a query sees no key.
  ZEBRA_INLINE void masked_scores(int64_t head, const Block& block) {
    const T* const from = args.q + batch * args.q_strides.batch +
                          block.query * args.q_strides.token + head * args.q_strides.head;
    load_rows({from, args.q_strides.token, args.width}, block.count, args.scale, q.get());
    row_products(q.get(), keys.get(), dims, block, scores.get());
    constexpr T kMasked = -std::numeric_limits<T>::infinity();
    for (int64_t r = 0; r < block.count; ++r) {
      T* const row = scores.get() + r * stride;
      const int64_t seen = position(block.query + r) + 1 - block.begin;
      std::fill(row, row + (first_key(block.query + r) - block.begin), kMasked);
      std::fill(row + seen, row + block.length, kMasked);
    }
  }

  ZEBRA_INLINE int64_t lse_index(int64_t head, int64_t query) const {
    return (batch * args.heads + head) * args.queries + query;
  }

  ZEBRA_INLINE int64_t out_index(int64_t head, int64_t query) const {
    return ((batch * args.queries + query) * args.heads + head) * args.value_width;
  }
};

// exp(row - its maximum) in place; returns the sum and the maximum.
template <class T>
ZEBRA_INLINE void softmax_row(T* row, int64_t length, T& sum, T& largest) {
  const int64_t steps = length / kLanes;
  T most = row[0];
#pragma omp simd reduction(max : most)
  for (int64_t s = 0; s < steps * kLanes; ++s) most = row[s] > most ? row[s] : most;
  T lanes[kLanes] = {};
  for (int64_t s = 0; s < length; s += kLanes) {
#pragma omp simd
    for (int l = 0; l < kLanes; ++l) {
      const T e = exp_of(row[s + l] - most);
      row[s + l] = e;
      lanes[l] += e;
    }
  }
  sum = sum_of_lanes(lanes);
  largest = most;
}

template <class T>
struct AttentionForward {
  static ZEBRA_INLINE void run(const AttentionArgs<T>& args, int64_t begin, int64_t end) {
    Task<T> task(args, /*backward=*/false);
    const int64_t repeat = args.heads / args.groups;
    for (int64_t index = begin; index < end; ++index) {
      task.start(index);
      for (int64_t query = 0; query < args.queries; query += kRows) {
        const Block block = task.block_at(query);
        for (int64_t n = 0; n < repeat; ++n) forward(task, task.group * repeat + n, block);
      }
    }
  }

  static ZEBRA_INLINE void forward(Task<T>& task, int64_t head, const Block& block) {
    const AttentionArgs<T>& args = task.args;
    task.masked_scores(head, block);
    for (int64_t r = 0; r < block.count; ++r) {
      T* const row = task.scores.get() + r * task.stride;
      T sum, largest;
      softmax_row(row, block.length, sum, largest);
      T* const sums = task.sums.get();
      for (int64_t d = 0; d < task.value_dims; d += kDims) {
        dots(row, task.values.get() + d * task.stride + block.begin, task.stride, block.length,
             sums + d);
      }
      T* const out = args.out + task.out_index(head, block.query + r);
      for (int64_t h = 0; h < args.value_width; ++h) out[h] = sums[h] / sum;
      args.lse[task.lse_index(head, block.query + r)] = largest + std::log(sum);
    }
  }
};

// With p the probabilities and o the output: dp = do v^T, ds = p (dp - do . o), dq = scale ds k,
// dk = ds^T (scale q), dv = p^T do.
template <class T>
struct AttentionBackward {
  static ZEBRA_INLINE void run(const AttentionArgs<T>& args, int64_t begin, int64_t end) {
    Task<T> task(args, /*backward=*/true);
    const int64_t repeat = args.heads / args.groups;
    for (int64_t index = begin; index < end; ++index) {
      task.start(index);
      std::fill_n(task.key_grads.get(), task.dims * task.stride, T(0));
      std::fill_n(task.value_grads.get(), task.value_dims * task.stride, T(0));
      for (int64_t query = 0; query < args.queries; query += kRows) {
        const Block block = task.block_at(query);
        for (int64_t n = 0; n < repeat; ++n) backward(task, task.group * repeat + n, block);
      }
      task.store_transposed(task.key_grads.get(), args.width, args.dk);
      task.store_transposed(task.value_grads.get(), args.value_width, args.dv);
    }
  }

  static ZEBRA_INLINE void backward(Task<T>& task, int64_t head, const Block& block) {
    const AttentionArgs<T>& args = task.args;
    task.masked_scores(head, block);
    const Rows<T> dout{args.dout + task.out_index(head, block.query), args.heads * args.value_width,
                       args.value_width};
    task.load_rows(dout, block.count, T(1), task.dout.get());
    task.row_products(task.dout.get(), task.values.get(), task.value_dims, block,
                      task.score_grads.get());
    for (int64_t r = 0; r < kRows; ++r) score_gradients(task, head, block, r);
    query_gradients(task, head, block);
    add_products(task, block, task.scores.get(), task.dout.get(),
                 {task.value_grads.get(), task.value_dims});
    add_products(task, block, task.score_grads.get(), task.q.get(),
                 {task.key_grads.get(), task.dims});
  }

  // Row r: scores become probabilities, their gradients in place; zeros in rows without a query.
  static ZEBRA_INLINE void score_gradients(Task<T>& task, int64_t head, const Block& block,
                                           int64_t r) {
    T* const p = task.scores.get() + r * task.stride;
    T* const ds = task.score_grads.get() + r * task.stride;
    if (r >= block.count) {
      std::fill_n(p, block.length, T(0));
      std::fill_n(ds, block.length, T(0));
      return;
    }
    const T* const out = task.args.out + task.out_index(head, block.query + r);
    const T* const dout = task.args.dout + task.out_index(head, block.query + r);
    T along = 0;
    for (int64_t h = 0; h < task.args.value_width; ++h) along += out[h] * dout[h];
    const T lse = task.args.lse[task.lse_index(head, block.query + r)];
    const int64_t steps = block.length / kLanes;
#pragma omp simd
    for (int64_t s = 0; s < steps * kLanes; ++s) {
      const T probability = exp_of(p[s] - lse);
      p[s] = probability;
      ds[s] = probability * (ds[s] - along);
    }
  }

  static ZEBRA_INLINE void query_gradients(Task<T>& task, int64_t head, const Block& block) {
    const AttentionArgs<T>& args = task.args;
    T* const sums = task.sums.get();
    for (int64_t r = 0; r < block.count; ++r) {
      for (int64_t d = 0; d < task.dims; d += kDims) {
        dots(task.score_grads.get() + r * task.stride,
             task.keys.get() + d * task.stride + block.begin, task.stride, block.length, sums + d);
      }
      const int64_t token = task.batch * args.queries + block.query + r;
      T* const dq = args.dq + (token * args.heads + head) * args.width;
      for (int64_t h = 0; h < args.width; ++h) dq[h] = sums[h] * args.scale;
    }
  }

  struct Sums {
    T* data;  // (padded, stride)
    int64_t padded;
  };

  // sums[h][s] += sum_r rows[r][s] factors[r][h]
  static ZEBRA_INLINE void add_products(const Task<T>& task, const Block& block, const T* rows,
                                        const T* factors, const Sums& sums) {
    for (int64_t d = 0; d < sums.padded; d += kDims) {
      T transposed[kDims * kRows];
      for (int r = 0; r < kRows; ++r) {
        for (int h = 0; h < kDims; ++h) {
          transposed[h * kRows + r] = factors[(d / kDims * kRows + r) * kDims + h];
        }
      }
      product<kDims, kRows, true>(transposed, rows, sums.data + d * task.stride + block.begin,
                                  task.stride, block.length);
    }
  }
};

}  // namespace

template <class T>
void attention_forward_tasks(const AttentionArgs<T>& args, int64_t begin, int64_t end) {
  run_simd<AttentionForward<T>>(args, begin, end);
}

template <class T>
void attention_backward_tasks(const AttentionArgs<T>& args, int64_t begin, int64_t end) {
  run_simd<AttentionBackward<T>>(args, begin, end);
}

template void attention_forward_tasks(const AttentionArgs<float>&, int64_t, int64_t);
template void attention_forward_tasks(const AttentionArgs<double>&, int64_t, int64_t);
template void attention_backward_tasks(const AttentionArgs<float>&, int64_t, int64_t);
template void attention_backward_tasks(const AttentionArgs<double>&, int64_t, int64_t);

}  // namespace zebra::detail
