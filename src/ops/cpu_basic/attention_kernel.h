// CPU kernel of causal attention for small heads, forward and backward. Raw pointers; the caller
// splits the tasks, one a (batch, key head), over threads; a task's result depends on no other.
// Probabilities are never kept: the backward makes them again from the saved log-sum-exp.
#pragma once

#include <cstdint>

namespace zebra::detail {

struct HeadStrides {
  int64_t batch, token, head;  // in elements; the last dimension has stride 1
};

// T is float or double. Query t stands at key position keys - queries + t.
template <class T>
struct AttentionArgs {
  int64_t queries, keys;       // T, S
  int64_t heads, groups;       // N, G
  int64_t width, value_width;  // H, Hv
  T scale;
  const T* q;  // (B, T, N, H)
  const T* k;  // (B, S, G, H)
  const T* v;  // (B, S, G, Hv)
  HeadStrides q_strides, k_strides, v_strides;
  const int64_t* first;  // (B, S): the first key that each position sees, or null: 0
  T* out;                // (B, T, N, Hv) contiguous; written forward, read backward
  T* lse;                // (B, N, T): log of the softmax's denominator, likewise
  const T* dout;         // (B, T, N, Hv) contiguous; the rest backward only
  T* dq;                 // (B, T, N, H) contiguous
  T* dk;                 // (B, S, G, H) contiguous
  T* dv;                 // (B, S, G, Hv) contiguous
};

// Tasks begin to end of the B * G.
template <class T>
void attention_forward_tasks(const AttentionArgs<T>& args, int64_t begin, int64_t end);
template <class T>
void attention_backward_tasks(const AttentionArgs<T>& args, int64_t begin, int64_t end);

}  // namespace zebra::detail
