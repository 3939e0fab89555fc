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

// cached: (B, S, ...) or undefined, fresh: (B, T, ...) -> (B, S + T, ...)
inline at::Tensor append_tokens(const at::Tensor& cached, const at::Tensor& fresh) {
  return cached.defined() ? at::cat({cached, fresh}, 1) : fresh.contiguous();
}

}  // namespace zebra
