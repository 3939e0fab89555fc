// The two forms of cached_attention(), for tests and benchmarks.
#pragma once

#include "zebra/cached_attention.h"

namespace zebra::detail {

// One for the CPU in float32 and float64, one for any device and dtype.
at::Tensor cached_attention_cpu(const CachedAttentionInput& in);
at::Tensor cached_attention_any(const CachedAttentionInput& in);

}  // namespace zebra::detail
