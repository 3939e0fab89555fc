#include "dist/backend.h"
#include "zebra/error.h"

#ifdef ZEBRA_CUDA
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>
#endif

namespace zebra {

#ifdef ZEBRA_CUDA

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                            const BackendOptions& options) {
  // Small collectives of the next layer should not queue behind the kernels of this one.
  auto nccl = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  nccl->timeout = options.timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, static_cast<int>(options.rank),
                                                     static_cast<int>(options.world), nccl);
}

#else

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& /*store*/,
                                            const BackendOptions& /*options*/) {
  throw ConfigError("device: cuda was asked for with several ranks, but this build has no CUDA");
}

#endif

}  // namespace zebra
