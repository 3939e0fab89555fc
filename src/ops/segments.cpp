#include "zebra/ops.h"

namespace zebra {

at::Tensor segment_positions(const at::Tensor& segments) {
  TORCH_CHECK(segments.dim() == 2 && segments.scalar_type() == at::kLong,
              "segment_positions segments: expected shape (B, T) int64, got ", segments.sizes(),
              " ", segments.scalar_type());
  const int64_t T = segments.size(1);
  const at::Tensor index = at::arange(T, segments.options());
  if (T == 0) return at::zeros_like(segments);
  const at::Tensor changed =
      segments.narrow(1, 1, T - 1).ne(segments.narrow(1, 0, T - 1));  // (B, T - 1)
  const at::Tensor start_here = at::constant_pad_nd(changed * index.narrow(0, 1, T - 1), {1, 0});
  const at::Tensor start = std::get<0>(start_here.cummax(1));  // (B, T)
  return index - start;
}

}  // namespace zebra
