// The moments of AdamW in the format that the recipe asks for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "zebra/recipe.h"

namespace zebra {

// One flat moment. Whatever the format, it is read and written as float32 (float64 where it is kept
// as that), a range at a time:
//
//   fp32   as it is
//   bf16   2 bytes; rounded at random, from a generator that is a function of step and place:
//          rounding to the nearest would leave a second moment where it is, for at a decay of 0.999
//          its change is smaller than half a unit in the last place
//   int8   1 byte, and a float32 scale for every 256 values: codes of a dynamic tree, finest near
//          zero (Dettmers et al. 2022, arXiv 2110.02861); of the second moment its root is coded
//
// What was written and read is written as itself again, so that saving and loading changes nothing.
class Moment {
 public:
  enum class Kind { kFirst, kSecond };
  static constexpr int64_t kBlock =
      256;  // int8: what is written begins and ends at multiples of it

  Moment() = default;
  // Zeros. like: flat, float32 or float64 (which is kept in full, whatever the format).
  Moment(const at::Tensor& like, MomentFormat format, Kind kind);

  // The values of [begin, begin + size): a view that may be written to in place for fp32, otherwise
  // a copy.
  at::Tensor read(int64_t begin, int64_t size) const;
  // places: (size) int64, what the elements are to the generator of bf16; by default where they
  // stand.
  void write(int64_t begin, const at::Tensor& values, int64_t step, at::Tensor places = {});
  bool wants_places() const { return format_ == MomentFormat::kBf16; }

  int64_t bytes() const;

 private:
  void encode(int64_t begin, const at::Tensor& values);

  MomentFormat format_ = MomentFormat::kFp32;
  Kind kind_ = Kind::kFirst;
  at::Tensor values_;              // float32 or float64, bfloat16, or codes (uint8)
  at::Tensor scales_;              // int8: a block's largest magnitude
  at::Tensor levels_, midpoints_;  // int8: what the codes mean, and the borders between them
};

}  // namespace zebra
