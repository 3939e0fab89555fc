#include "train/block_runner.h"

#include "support/close_to.h"
#include "support/group_ranks.h"
#include "train/small_hybrid.h"

namespace zebra::testing {

namespace {

using Gradients = std::map<std::string, at::Tensor>;

Gradients gradients_of(CausalLm& model) {
  Gradients result;
  for (const auto& item : model->named_parameters())
    result[item.key()] = item.value().grad().clone();
  return result;
}

void check_same_bits(const Gradients& got, const Gradients& expected) {
  REQUIRE(got.size() == expected.size());
  for (const auto& [name, gradient] : expected) {
    INFO(name);
    CHECK(at::equal(got.at(name), gradient));
  }
}

Gradients after_backward(const BlockRunOptions& options, bool tied, bool packed) {
  auto model = small_hybrid(tied);
  model->set_block_runner(std::make_shared<TrainingBlocks>(nullptr, options));
  for (int64_t micro = 0; micro < 2; ++micro) {
    small_loss(model, small_batch(micro, 3, packed), 144).backward();
  }
  return gradients_of(model);
}

}  // namespace

TEST_CASE("recompute: smart and full give the bits of the plain gradients") {
  for (const bool tied : {true, false}) {
    for (const bool packed : {true, false}) {
      INFO("tied " << tied << ", packed " << packed);
      const auto plain = after_backward({}, tied, packed);
      check_same_bits(after_backward({.recompute = Recompute::kFull}, tied, packed), plain);
      check_same_bits(after_backward({.recompute = Recompute::kSmart}, tied, packed), plain);
    }
  }
}

TEST_CASE("recompute: inputs that wait in host memory give the same bits") {
  const auto plain = after_backward({}, true, true);
  for (const auto recompute : {Recompute::kSmart, Recompute::kFull}) {
    check_same_bits(after_backward({.recompute = recompute, .offload_inputs = true}, true, true),
                    plain);
  }
}

TEST_CASE("recompute: a block whose input wants no gradient still trains, both outputs counting") {
  const auto run = [](Recompute recompute) {
    auto model = small_hybrid();
    model->set_block_runner(
        std::make_shared<TrainingBlocks>(nullptr, BlockRunOptions{.recompute = recompute}));
    const auto batch = small_batch(1, 2, false);
    const auto context = model->context(batch.ids, batch.segments, 0);
    torch::manual_seed(3);
    const auto input = torch::randn({2, 24, 32});
    for (int64_t layer = 0; layer < 4; ++layer) {
      const auto out = model->run_block(layer, input, context);
      (out.hidden.square().sum() + out.mixer_out.sin().sum()).backward();
    }
    Gradients result;
    for (const auto& item : model->named_parameters()) {
      if (item.value().grad().defined()) result[item.key()] = item.value().grad().clone();
    }
    return result;
  };
  const auto plain = run(Recompute::kNone);
  CHECK(plain.size() > 40);
  check_same_bits(run(Recompute::kSmart), plain);
  check_same_bits(run(Recompute::kFull), plain);
}

TEST_CASE("recompute: without gradients nothing is kept and the values are the same") {
  auto model = small_hybrid();
  const auto batch = small_batch(1, 2, true);
  const torch::NoGradGuard no_grad;
  const auto plain = model->forward(batch.ids, batch.segments);
  model->set_block_runner(
      std::make_shared<TrainingBlocks>(nullptr, BlockRunOptions{.recompute = Recompute::kSmart}));
  CHECK(at::equal(model->forward(batch.ids, batch.segments), plain));
}

TEST_CASE("teacher: blocks shared out over ranks compute the same bits in a part of the memory",
          "[dist]") {
  auto whole = small_hybrid();
  const auto batch = small_batch(4, 2, true);
  const torch::NoGradGuard no_grad;
  const auto expected = whole->forward(batch.ids, batch.segments);
  run_ranks(4, [&](Group& group) {
    const torch::NoGradGuard of_thread;
    auto model = small_hybrid();
    for (auto& parameter : model->parameters()) parameter.set_requires_grad(false);
    share_frozen_blocks(model, group);
    for (int i = 0; i < 2; ++i) {
      TORCH_CHECK(at::equal(model->forward(batch.ids, batch.segments), expected), "forward ", i);
    }
    // Nothing of a block is left between its turns.
    for (const auto& parameter : model->block(1)->parameters()) {
      TORCH_CHECK(parameter.storage().nbytes() == 0, "a block's memory was not given back");
    }
  });
}

}  // namespace zebra::testing
