// Times of the Mamba2 operations on this CPU: the kernels beside LibTorch's operations.
//   ssd_bench [threads]
#include "ops/mamba2.h"
#include "ops/ssd.h"
#include "zebra/ops.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <vector>

namespace {

double milliseconds(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

// Median over enough repetitions for half a second.
double median(const std::function<void()>& work) {
  work();
  const double once = milliseconds(work);
  const auto repetitions = static_cast<size_t>(std::clamp(500.0 / (once + 1e-3), 3.0, 300.0));
  std::vector<double> times(repetitions);
  for (double& time : times) time = milliseconds(work);
  std::nth_element(times.begin(), times.begin() + times.size() / 2, times.end());
  return times[times.size() / 2];
}

struct Time {
  double forward, both;
};

// `run` makes an output from leaves that require a gradient.
Time time_of(const std::vector<at::Tensor>& leaves,
             const std::function<at::Tensor(const std::vector<at::Tensor>&)>& run) {
  Time time{};
  {
    const at::NoGradGuard no_grad;
    time.forward = median([&] { run(leaves); });
  }
  const at::Tensor gradient = at::randn(run(leaves).sizes());
  time.both = median([&] { torch::autograd::grad({run(leaves)}, leaves, {gradient}); });
  return time;
}

void print(const char* name, const Time& ours, const Time& plain) {
  std::printf("%-46s %8.3f %8.3f   %8.3f %8.3f   %5.1fx %5.1fx\n", name, ours.forward, ours.both,
              plain.forward, plain.both, plain.forward / ours.forward, plain.both / ours.both);
}

at::Tensor leaf(at::IntArrayRef sizes) { return at::randn(sizes).requires_grad_(true); }

void bench_ssd(int64_t B, int64_t T, int64_t G, int64_t N, int64_t P, int64_t Z) {
  const std::vector<at::Tensor> leaves = {leaf({B, T, G, P}), leaf({B, T, N}),    leaf({N}),
                                          leaf({B, T, G, Z}), leaf({B, T, N, Z}), leaf({N}),
                                          leaf({N})};
  const auto with = [](zebra::SsdOutput (*form)(const zebra::SsdInput&)) {
    return [form](const std::vector<at::Tensor>& values) {
      std::vector<at::Tensor> tensors = values;
      tensors.resize(9);
      return form(zebra::detail::ssd_input(tensors, 64)).y;
    };
  };
  char name[128];
  std::snprintf(name, sizeof(name), "ssd B%ld T%ld G%ld N%ld P%ld Z%ld", B, T, G, N, P, Z);
  print(name, time_of(leaves, with(zebra::detail::ssd_scan)),
        time_of(leaves, with(zebra::detail::ssd_chunked)));
}

void bench_conv(int64_t B, int64_t T, int64_t C) {
  const std::vector<at::Tensor> leaves = {leaf({B, T, C}), leaf({C, 4}), leaf({C})};
  const auto with = [](auto form) {
    return [form](const std::vector<at::Tensor>& v) { return form(v[0], v[1], v[2], {}, {}).y; };
  };
  char name[128];
  std::snprintf(name, sizeof(name), "causal_conv1d B%ld T%ld C%ld", B, T, C);
  print(name, time_of(leaves, with(zebra::detail::causal_conv1d_cpu)),
        time_of(leaves, with(zebra::detail::causal_conv1d_any)));
}

void bench_norm(int64_t rows, int64_t D, int64_t group) {
  const std::vector<at::Tensor> leaves = {leaf({rows, D}), leaf({rows, D}), leaf({D})};
  const auto with = [group](auto form) {
    return [form, group](const std::vector<at::Tensor>& v) {
      return form(v[0], v[1], v[2], group, 1e-5);
    };
  };
  char name[128];
  std::snprintf(name, sizeof(name), "gated_rms_norm rows %ld D%ld group %ld", rows, D, group);
  print(name, time_of(leaves, with(zebra::detail::gated_rms_norm_cpu)),
        time_of(leaves, with(zebra::detail::gated_rms_norm_any)));
}

}  // namespace

int main(int argc, char** argv) {
  at::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 2);
  std::printf("%d threads, %s; milliseconds\n", at::get_num_threads(),
              at::get_cpu_capability().c_str());
  std::printf("%-46s %8s %8s   %8s %8s\n", "", "forward", "+back", "plain f", "plain +b");
  bench_ssd(16, 256, 4, 8, 8, 8);
  bench_ssd(8, 256, 4, 8, 16, 16);
  bench_ssd(1, 1024, 8, 32, 64, 64);
  bench_ssd(1, 256, 8, 32, 128, 128);
  bench_ssd(1, 1, 4, 8, 8, 8);
  bench_ssd(1, 1, 8, 32, 64, 64);
  bench_conv(16, 256, 128);
  bench_conv(1, 2048, 3072);
  bench_conv(1, 1, 3072);
  bench_norm(4096, 64, 8);
  bench_norm(2048, 2048, 64);
  return 0;
}
