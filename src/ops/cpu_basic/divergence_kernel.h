// CPU kernel of the losses on logits: divergence from a teacher and cross-entropy, row by row, with
// the gradient left in the place of the student's logits. Raw pointers; the caller splits the rows
// over threads. T is float or double.
#pragma once

#include <cstdint>

#include "zebra/losses.h"

namespace zebra::detail {

template <class T>
struct LogitRowsArgs {
  T* student;             // (rows, V): logits in; out the gradient, or undefined values without one
  T* teacher;             // (rows, V): logits in, undefined values out; null: no divergence
  const T* kl_scale;      // (rows): factor of the divergence in the gradient; null with teacher
  const T* ce_scale;      // (rows): factor of the cross-entropy in the gradient; null: no CE
  const int64_t* target;  // (rows), negative: no cross-entropy; null with ce_scale
  T* kl;                  // (rows) out, times temperature^2; null with teacher
  T* agree;               // (rows) out: 1 where both argmaxes are equal, else 0; null with teacher
  T* ce;                  // (rows) out: -log p(target) at temperature 1; null with ce_scale
  int64_t vocabulary;     // V
  T temperature;
  KlDirection direction;
  bool gradient;
};

template <class T>
void logit_rows(const LogitRowsArgs<T>& args, int64_t begin, int64_t end);

}  // namespace zebra::detail
