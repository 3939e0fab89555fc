// Times of the basic operations and losses against the plain LibTorch composition, forward and
// forward with backward. ops_bench [repeats [part of a name]]; the best of the repeats counts.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "ops/basic.h"
#include "zebra/losses.h"
#include "zebra/ops.h"

namespace {

using Inputs = std::vector<at::Tensor>;
using Function = std::function<at::Tensor(const Inputs&)>;

double seconds_of(const std::function<void()>& work, int repeats) {
  double best = 1e9;
  for (int i = 0; i < repeats; ++i) {
    const auto start = std::chrono::steady_clock::now();
    work();
    const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
    best = std::min(best, time.count());
  }
  return best;
}

struct Times {
  double forward, both;  // milliseconds
};

Times times_of(const Function& function, const Inputs& inputs, int repeats) {
  Inputs leaves;
  for (const at::Tensor& input : inputs) leaves.push_back(input.clone().requires_grad_(true));
  const auto forward = [&] {
    const at::NoGradGuard no_grad;
    function(inputs);
  };
  const auto both = [&] {
    const at::Tensor y = function(leaves);
    torch::autograd::grad({y}, leaves, {at::ones_like(y)});
  };
  return {1e3 * seconds_of(forward, repeats), 1e3 * seconds_of(both, repeats)};
}

struct Case {
  std::string name;
  Function ours, plain;
  Inputs inputs;
};

void print(const Case& c, int repeats) {
  const Times ours = times_of(c.ours, c.inputs, repeats);
  const Times plain = times_of(c.plain, c.inputs, repeats);
  std::printf("%-44s %8.2f %8.2f %8.2f %8.2f %7.1fx\n", c.name.c_str(), ours.forward, ours.both,
              plain.forward, plain.both, plain.both / ours.both);
}

Case rms_norm_case(int64_t rows, int64_t D) {
  return {
      "rms_norm " + std::to_string(rows) + " x " + std::to_string(D),
      [](const Inputs& x) { return zebra::rms_norm(x[0], x[1], 1e-5); },
      [](const Inputs& x) { return x[0] * (x[0].square().mean(-1, true) + 1e-5).rsqrt() * x[1]; },
      {at::randn({rows, D}), at::randn({D})}};
}

Case swiglu_case(int64_t rows, int64_t F) {
  return {"swiglu " + std::to_string(rows) + " x " + std::to_string(F),
          [](const Inputs& x) { return zebra::swiglu(x[0], x[1]); },
          [](const Inputs& x) { return at::silu(x[0]) * x[1]; },
          {at::randn({rows, F}), at::randn({rows, F})}};
}

Case rope_case(int64_t B, int64_t T, int64_t N, int64_t H) {
  const at::Tensor angle = at::randn({1, T, H / 2});
  const zebra::RopeTable table{angle.cos(), angle.sin()};
  return {"apply_rope heads " + std::to_string(N) + " x " + std::to_string(H),
          [table](const Inputs& x) {
            return zebra::apply_rope(x[0], table, zebra::RopePairing::kHalfSplit);
          },
          [table](const Inputs& x) {
            return zebra::detail::rope_aten(x[0], table, zebra::RopePairing::kHalfSplit);
          },
          {at::randn({B, T, N, H})}};
}

struct AttentionShape {
  int64_t B, T, N, G, H;
};

Case attention_case(const AttentionShape& s, const at::Tensor& segments) {
  const auto name = "attention B " + std::to_string(s.B) + " T " + std::to_string(s.T) + " N " +
                    std::to_string(s.N) + " G " + std::to_string(s.G) + " H " +
                    std::to_string(s.H) + (segments.defined() ? " packed" : "");
  return {name,
          [segments](const Inputs& x) {
            return zebra::detail::attention_small_heads(x[0], x[1], x[2], 0.35, segments);
          },
          [segments](const Inputs& x) {
            return zebra::detail::attention_sdpa(x[0], x[1], x[2], 0.35, segments);
          },
          {at::randn({s.B, s.T, s.N, s.H}), at::randn({s.B, s.T, s.G, s.H}),
           at::randn({s.B, s.T, s.G, s.H})}};
}

struct HeadShape {
  int64_t M, V, D;
};

Case distill_case(const HeadShape& s, zebra::KlDirection direction, const char* suffix) {
  const at::Tensor teacher_hidden = at::randn({s.M, s.D}), teacher_head = at::randn({s.V, s.D});
  const at::Tensor weights = at::full({s.M}, 1.0 / static_cast<double>(s.M));
  return {"distill_loss M " + std::to_string(s.M) + " V " + std::to_string(s.V) + suffix,
          [=](const Inputs& x) {
            zebra::DistillLossOptions options;
            options.direction = direction;
            return zebra::distill_loss({x[0], x[1], teacher_hidden, teacher_head, {}, weights, {}},
                                       options)
                .loss;
          },
          [=](const Inputs& x) {  // forward divergence
            const at::Tensor s_log = at::mm(x[0], x[1].t()).log_softmax(-1);
            const at::Tensor t_log = at::mm(teacher_hidden, teacher_head.t()).log_softmax(-1);
            return ((t_log.exp() * (t_log - s_log)).sum(-1) * weights).sum();
          },
          {at::randn({s.M, s.D}), at::randn({s.V, s.D})}};
}

Case token_nll_case(const HeadShape& s) {
  const at::Tensor targets = at::randint(s.V, {s.M}, at::kLong);
  return {"token_nll M " + std::to_string(s.M) + " V " + std::to_string(s.V),
          [=](const Inputs& x) { return zebra::token_nll(x[0], x[1], targets, 1024); },
          [=](const Inputs& x) {
            return -at::mm(x[0], x[1].t()).log_softmax(-1).gather(1, targets.unsqueeze(1));
          },
          {at::randn({s.M, s.D}), at::randn({s.V, s.D})}};
}

}  // namespace

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::atoi(argv[1]) : 10;
  const std::string wanted = argc > 2 ? argv[2] : "";
  const at::Tensor packed = at::arange(256).div(50, "floor").to(at::kLong).expand({16, 256});
  const std::vector<Case> cases{
      rms_norm_case(4096, 64),
      swiglu_case(4096, 172),
      rope_case(16, 256, 8, 8),
      attention_case({16, 256, 8, 4, 8}, {}),
      attention_case({16, 256, 8, 4, 8}, packed.contiguous()),
      attention_case({16, 256, 8, 4, 16}, {}),
      attention_case({16, 256, 8, 4, 32}, {}),
      attention_case({16, 256, 8, 4, 32}, packed.contiguous()),
      attention_case({4, 1024, 8, 4, 32}, {}),
      distill_case({4096, 512, 64}, zebra::KlDirection::kForward, ""),
      distill_case({4096, 512, 64}, zebra::KlDirection::kReverse, " reverse"),
      distill_case({4096, 512, 64}, zebra::KlDirection::kJs, " js"),
      distill_case({128, 128256, 64}, zebra::KlDirection::kForward, ""),
      token_nll_case({4096, 512, 64}),
  };
  std::printf("%-44s %8s %8s %8s %8s %8s\n", "milliseconds, best of the repeats", "forward", "both",
              "plain", "both", "ratio");
  for (const Case& c : cases) {
    if (c.name.find(wanted) != std::string::npos) print(c, repeats);
  }
  return 0;
}
