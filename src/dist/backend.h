// The c10d backends behind a group. Only their two sources see the headers of Gloo and NCCL.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include <chrono>
#include <string>

namespace zebra {

struct BackendOptions {
  int64_t rank = 0, world = 1;
  std::string address;  // of the store; on the loopback interface the backend stays there
  std::chrono::milliseconds timeout{600000};
};

c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store,
                                            const BackendOptions& options);

// ConfigError in a build without CUDA.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store,
                                            const BackendOptions& options);

}  // namespace zebra
