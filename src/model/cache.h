// What the mixers' caches have in common.
#pragma once

#include <ATen/ATen.h>

#include "zebra/mixers.h"

namespace zebra {

inline int64_t bytes_of(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
}

// The layer's own cache, or an error: a cache of another kind of layer is a bug of the caller.
template <class Cache>
Cache& cache_of(LayerCache* cache, const char* mixer) {
  auto* own = dynamic_cast<Cache*>(cache);
  TORCH_CHECK(own != nullptr, mixer, ": the cache was made by a mixer of another kind");
  return *own;
}

// (B, ...) -> (rows, ...); undefined stays so.
inline at::Tensor rows_of(const at::Tensor& tensor, const std::vector<int64_t>& rows) {
  if (!tensor.defined()) return {};
  return tensor.index_select(0, at::tensor(rows, at::kLong).to(tensor.device()));
}

inline at::Tensor joined(const at::Tensor& above, const at::Tensor& below) {
  if (!above.defined()) return below;
  return below.defined() ? at::cat({above, below}, 0) : above;
}

// What numbers are stored as that the model has in type `model`.
inline at::ScalarType stored_type(CacheDtype wanted, at::ScalarType model) {
  switch (wanted) {
    case CacheDtype::kModel:
      return model;
    case CacheDtype::kFloat32:
      return at::kFloat;
    case CacheDtype::kBfloat16:
      return at::kBFloat16;
    case CacheDtype::kInt8:
      return at::kChar;
  }
  return model;
}

}  // namespace zebra
