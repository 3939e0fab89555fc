#include "train/flops.h"

#include "support/testing.h"

using zebra::forward_flops;
using zebra::MixerKind;
using zebra::ModelOptions;
using zebra::testing::Approx;

namespace {

ModelOptions options_of(MixerKind kind) {
  ModelOptions options;
  options.vocab_size = 100;
  options.hidden_size = 16;
  options.intermediate_size = 24;
  options.num_heads = 4;
  options.num_kv_heads = 2;
  options.head_dim = 4;
  options.layers = {kind, kind};
  options.mla = {.hidden_size = 16,
                 .num_heads = 4,
                 .num_kv_heads = 2,
                 .q_lora_rank = 8,
                 .kv_lora_rank = 8,
                 .qk_nope_head_dim = 2,
                 .qk_rope_head_dim = 2,
                 .v_head_dim = 4};
  options.mamba2 = {.hidden_size = 16, .num_heads = 4, .num_kv_heads = 2, .head_dim = 4};
  return options;
}

}  // namespace

TEST_CASE("flops: attention, counted by hand") {
  const auto flops = forward_flops(options_of(MixerKind::kAttention), /*sequence_length=*/31);
  const double projections = 16 * 16 + 2 * 8 * 16 + 16 * 16;  // q, k and v, o
  const double mlp = 3 * 16 * 24;
  const double scores_and_values = 2 * 4 * (4 + 4) * 16.0;  // 16 tokens seen on average
  CHECK(flops.layers == Approx(2 * (2 * (projections + mlp) + scores_and_values)));
  CHECK(flops.head == Approx(2 * 100 * 16));
  CHECK(flops.total() == Approx(flops.layers + flops.head));
}

TEST_CASE("flops: MLA, counted by hand") {
  const auto flops = forward_flops(options_of(MixerKind::kMla), /*sequence_length=*/31);
  const double projections = 8 * 16 + 4 * 4 * 8  // q_a, q_b
                             + (8 + 2) * 16      // kv_a
                             + 2 * (2 + 4) * 8   // kv_b
                             + 16 * 4 * 4;       // out
  const double scores_and_values = 2 * 4 * (4 + 4) * 16.0;
  CHECK(flops.layers == Approx(2 * (2 * (projections + 3 * 16 * 24) + scores_and_values)));
}

TEST_CASE("flops: Mamba2, counted by hand; the length does not matter") {
  const auto options = options_of(MixerKind::kMamba2);
  const auto flops = forward_flops(options, /*sequence_length=*/31);
  const double projections = (2 * 16 + 2 * 8 + 4) * 16 + 16 * 16;  // in, out
  const double convolution = (16 + 2 * 8) * 4;
  const double state = 5 * 4 * 4 * 4;
  CHECK(flops.layers == Approx(2 * (2 * (projections + convolution + 3 * 16 * 24) + state)));
  CHECK(forward_flops(options, 4096).layers == Approx(flops.layers));
}

TEST_CASE("flops: peaks of GPUs by name") {
  CHECK(zebra::peak_flops_of_gpu("NVIDIA H100 80GB HBM3", at::kBFloat16) == Approx(989.4e12));
  CHECK(zebra::peak_flops_of_gpu("NVIDIA H100 PCIe", at::kBFloat16) == Approx(756e12));
  CHECK(zebra::peak_flops_of_gpu("NVIDIA A100-SXM4-80GB", at::kFloat) == Approx(156e12));
  CHECK(zebra::peak_flops_of_gpu("a toy", at::kBFloat16) == 0);
  CHECK(zebra::peak_flops(2.5, at::kCPU, at::kFloat) == Approx(2.5e12));
  CHECK(zebra::peak_flops(0, at::kCPU, at::kFloat) == 0);
}
