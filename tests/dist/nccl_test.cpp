// Collectives of tensors on GPUs: a group of one rank, and of a rank for each GPU.
#include "support/group_ranks.h"
#include "support/testing.h"

namespace zebra::testing {

namespace {

void check_collectives(Group& group) {
  const int64_t W = group.size(), n = 1024;
  const auto device = at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(group.rank()));
  const at::DeviceGuard guard(device);
  const auto options = at::TensorOptions(at::kFloat).device(device);
  const auto value = static_cast<double>(group.rank() + 1);
  const auto total = static_cast<double>(W * (W + 1) / 2);
  const auto all = at::full({n}, value, options);
  group.all_reduce(all).wait();
  TORCH_CHECK(all.eq(total).all().item<bool>(), "all_reduce");
  const auto part = at::empty({n}, options);
  group.reduce_scatter(part, at::full({W * n}, value, options)).wait();
  TORCH_CHECK(part.eq(total).all().item<bool>(), "reduce_scatter");
  const auto gathered = at::empty({W * n}, options.dtype(at::kBFloat16));
  group.all_gather(gathered, at::full({n}, value, options.dtype(at::kBFloat16))).wait();
  for (int64_t r = 0; r < W; ++r) {
    TORCH_CHECK(gathered.narrow(0, r * n, n).eq(r + 1).all().item<bool>(), "all_gather of ", r);
  }
}

}  // namespace

TEST_CASE("nccl: a group of one rank and a group of all GPUs add up and gather", "[cuda]") {
  if (!torch::cuda::is_available()) ZEBRA_SKIP("no GPU");
  run_ranks(1, check_collectives);
  run_ranks(static_cast<int64_t>(torch::cuda::device_count()), check_collectives);
}

}  // namespace zebra::testing
