// Training spread over ranks against training in one process: losses and weights, for every way of
// sharing.
#include "train/shards.h"

#include <algorithm>
#include <map>

#include "support/close_to.h"
#include "support/group_ranks.h"
#include "support/temp_dir.h"
#include "train/block_runner.h"
#include "train/optimizer.h"
#include "train/small_hybrid.h"

namespace zebra::testing {

namespace {

constexpr int64_t kRows = 8;
constexpr double kRate = 1e-3;

struct Layout {
  int64_t ranks = 1;
  Sharding sharding = Sharding::kNone;
  Recompute recompute = Recompute::kNone;
  int64_t micro_batches = 1;
  bool exact_sums = false;
  MomentFormat moments = MomentFormat::kFp32;
};

std::string name_of(const Layout& layout) {
  return str(layout.ranks, " ranks, ", enum_name(layout.sharding), ", recompute ",
             enum_name(layout.recompute), ", ", layout.micro_batches, " micro-batches");
}

struct Trained {
  std::vector<double> losses;
  std::map<std::string, at::Tensor> weights;
};

OptimizerOptions optimizer_options(MomentFormat moments = MomentFormat::kFp32) {
  OptimizerOptions options;
  options.moments = moments;
  options.weight_decay = 0.1;
  // AdamW divides a gradient by its own size: one that is rounding alone (that of a key's bias,
  // which no softmax sees) would move its weight as far as any other, to where rounding says.
  options.eps = 1e-5;
  return options;
}

// A model with its optimiser as one rank of a job has them.
class Student {
 public:
  Student(Group& group, const Layout& layout, at::ScalarType dtype = at::kFloat)
      : group_(group), layout_(layout), model_(small_hybrid()) {
    model_->to(dtype);
    optimizer_ =
        std::make_unique<AdamW>(trainable(*model_), optimizer_options(layout.moments), group,
                                ShardOptions{.sharding = layout.sharding,
                                             .micro_batches = layout.micro_batches,
                                             .exact_sums = layout.exact_sums});
    model_->set_block_runner(std::make_shared<TrainingBlocks>(
        &optimizer_->shards(), BlockRunOptions{.recompute = layout.recompute}));
  }

  // Returns the loss of the global batch.
  double step(int64_t index) {
    const auto batch = small_batch(index, kRows, /*packed=*/index % 2 == 0);
    const int64_t own = kRows / group_.size(), micro = own / layout_.micro_batches;
    double loss = 0;
    for (int64_t i = 0; i < layout_.micro_batches; ++i) {
      const auto rows = [&](const at::Tensor& all) {
        return all.defined() ? all.narrow(0, group_.rank() * own + i * micro, micro) : all;
      };
      const auto part = small_loss(model_, {rows(batch.ids), rows(batch.segments)},
                                   static_cast<double>(batch.ids.numel()));
      part.backward();
      loss += part.item<double>();
    }
    optimizer_->step(kRate);
    return group_.sum({loss})[0];
  }

  std::map<std::string, at::Tensor> weights() {
    optimizer_->shards().materialize();
    std::map<std::string, at::Tensor> result;
    for (const auto& item : model_->named_parameters()) {
      result[item.key()] = item.value().detach().clone();
    }
    return result;
  }

  AdamW& optimizer() { return *optimizer_; }

 private:
  Group& group_;
  Layout layout_;
  CausalLm model_;
  std::unique_ptr<AdamW> optimizer_;
};

// What rank 0 has in the end; every rank must have the same.
Trained train(const Layout& layout, int64_t steps, at::ScalarType dtype = at::kFloat) {
  Trained of_first;
  std::mutex mutex;
  run_ranks(layout.ranks, [&](Group& group) {
    Student student(group, layout, dtype);
    Trained own;
    for (int64_t i = 0; i < steps; ++i) own.losses.push_back(student.step(i));
    own.weights = student.weights();
    if (group.leads()) of_first = own;
    group.barrier();
    const std::lock_guard lock(mutex);
    for (const auto& [name, weight] : own.weights) {
      TORCH_CHECK(at::equal(weight, of_first.weights.at(name)), name, " differs between ranks");
    }
  });
  return of_first;
}

void check_near(const Trained& got, const Trained& expected) {
  REQUIRE(got.losses.size() == expected.losses.size());
  for (size_t i = 0; i < got.losses.size(); ++i) {
    INFO("step " << i << ": " << got.losses[i] << " and " << expected.losses[i]);
    CHECK(std::abs(got.losses[i] - expected.losses[i]) <= 1e-6 * expected.losses[i]);
  }
  for (const auto& [name, weight] : expected.weights) {
    check_close(got.weights.at(name), weight, 1e-5, name);
  }
}

void check_same(const Trained& got, const Trained& expected) {
  CHECK(got.losses == expected.losses);
  for (const auto& [name, weight] : expected.weights) {
    INFO(name);
    CHECK(at::equal(got.weights.at(name), weight));
  }
}

}  // namespace

TEST_CASE("shards: any number of ranks, sharding and recomputation trains like one process",
          "[dist]") {
  constexpr int64_t kSteps = 20;
  const auto one = train({}, kSteps);
  CHECK(one.losses.back() < one.losses.front());
  for (const int64_t ranks : {2, 4}) {
    for (const auto sharding :
         {Sharding::kNone, Sharding::kZero1, Sharding::kZero2, Sharding::kFull}) {
      for (const auto recompute : {Recompute::kNone, Recompute::kSmart, Recompute::kFull}) {
        const int64_t micro = recompute == Recompute::kSmart ? 2 : 1;
        const Layout layout{ranks, sharding, recompute, micro};
        INFO(name_of(layout));
        check_near(train(layout, kSteps), one);
      }
    }
  }
}

TEST_CASE("shards: the same layout gives the same bits, whatever is recomputed", "[dist]") {
  for (const auto sharding :
       {Sharding::kNone, Sharding::kZero1, Sharding::kZero2, Sharding::kFull}) {
    const auto first = train({2, sharding, Recompute::kNone, 2}, 6);
    for (const auto recompute : {Recompute::kNone, Recompute::kSmart, Recompute::kFull}) {
      INFO(name_of({2, sharding, recompute, 2}));
      check_same(train({2, sharding, recompute, 2}, 6), first);
    }
  }
}

TEST_CASE("shards: how the state is shared out does not change a bit of two ranks' sums",
          "[dist]") {
  // A sum of two numbers has one order only.
  const auto none = train({2, Sharding::kNone, Recompute::kNone, 1}, 4);
  for (const auto sharding : {Sharding::kZero2, Sharding::kFull}) {
    const auto other = train({2, sharding, Recompute::kNone, 1}, 4);
    CHECK(other.losses[0] == none.losses[0]);
    check_near(other, none);
  }
}

TEST_CASE("shards: with exact sums every layout has the same bits, rows being computed alone",
          "[dist]") {
  constexpr int64_t kSteps = 10;
  using enum MomentFormat;
  for (const auto& [dtype, moments] : {std::pair{at::kFloat, kFp32},
                                       {at::kFloat, kBf16},
                                       {at::kFloat, kInt8},
                                       {at::kBFloat16, kFp32}}) {
    const auto alone = [&](int64_t ranks, Sharding sharding) {
      return train({ranks, sharding, Recompute::kNone, kRows / ranks, /*exact_sums=*/true, moments},
                   kSteps, dtype);
    };
    const auto one = alone(1, Sharding::kNone);
    CHECK(one.losses.back() != one.losses.front());
    for (const int64_t ranks : {2, 4, 8}) {
      for (const auto sharding :
           {Sharding::kNone, Sharding::kZero1, Sharding::kZero2, Sharding::kFull}) {
        INFO(at::toString(dtype) << ", moments " << enum_name(moments) << ", " << ranks
                                 << " ranks, " << enum_name(sharding));
        check_same(alone(ranks, sharding), one);
      }
    }
  }
}

TEST_CASE("shards: exact sums are those of float32 but for rounding", "[dist]") {
  auto options = Layout{.ranks = 2, .sharding = Sharding::kFull, .micro_batches = 2};
  const auto rounded = train(options, 1);
  options.exact_sums = true;
  check_near(train(options, 1), rounded);
}

TEST_CASE("shards: bf16 parameters are summed in float32 and equal on all ranks", "[dist]") {
  const auto one = train({}, 6, at::kBFloat16);
  for (const auto sharding :
       {Sharding::kNone, Sharding::kZero1, Sharding::kZero2, Sharding::kFull}) {
    const Layout layout{2, sharding, Recompute::kNone, 1};
    INFO(name_of(layout));
    const auto two = train(layout, 6, at::kBFloat16);
    for (size_t i = 0; i < one.losses.size(); ++i) {
      CHECK(std::abs(two.losses[i] - one.losses[i]) < 0.01 * one.losses[i]);
    }
  }
}

TEST_CASE("shards: each rank holds the share that was promised", "[dist]") {
  int64_t parameters = 0, shell = 0;
  const auto model = small_hybrid();
  for (const auto& item : model->named_parameters()) {
    parameters += item.value().numel();
    if (item.key().find("layers.") == std::string::npos) shell += item.value().numel();
  }
  const auto P = 4.0 * static_cast<double>(parameters), S = 4.0 * static_cast<double>(shell);
  struct Expected {
    Sharding sharding;
    double parameters, gradients, moments;
    bool exact_sums = false;
  };
  const std::vector<Expected> all = {{Sharding::kNone, P, P, 2 * P},
                                     {Sharding::kZero1, P + P / 4, P + P / 4, P / 2},
                                     {Sharding::kZero2, P + P / 4, P / 4, P / 2},
                                     {Sharding::kFull, S + P / 4, P / 4, P / 2},
                                     {Sharding::kNone, P, 2 * P, 2 * P, /*exact_sums=*/true},
                                     {Sharding::kFull, S + P / 4, P / 2, P / 2, true}};
  for (const auto& expected : all) {
    INFO(enum_name(expected.sharding));
    run_ranks(4, [&](Group& group) {
      Student student(
          group, {.ranks = 4, .sharding = expected.sharding, .exact_sums = expected.exact_sums});
      student.step(0);
      const auto bytes = student.optimizer().bytes();
      // Rounded up to whole rows: 4 KiB for each rank's part of a block and group.
      constexpr double kSlack = 12 * 4096;
      const auto near = [&](int64_t got, double wanted, double copies) {
        TORCH_CHECK(static_cast<double>(got) >= wanted &&
                        static_cast<double>(got) <= wanted + copies * kSlack,
                    "expected ", wanted, " bytes, got ", got);
      };
      near(bytes.parameters, expected.parameters, 5);
      near(bytes.gradients, expected.gradients, 5);
      near(bytes.moments, expected.moments, 2);
    });
  }
}

TEST_CASE("shards: a checkpoint of four ranks is continued by two and by one", "[dist]") {
  const auto straight = train({}, 8);
  for (const auto from : {Sharding::kNone, Sharding::kFull}) {
    std::vector<TensorPiece> pieces;
    std::map<std::string, std::string> state;
    std::mutex mutex;
    run_ranks(4, [&](Group& group) {
      Student student(group, {4, from});
      for (int64_t i = 0; i < 4; ++i) student.step(i);
      Checkpoint part;
      student.optimizer().save("s/", part);
      const std::lock_guard lock(mutex);
      for (auto& piece : part.pieces) {
        piece.values = piece.values.clone();
        pieces.push_back(piece);
      }
      state = part.state;
    });
    const TempDir folder;
    CheckpointStore store(folder.path(), {});
    store.save({.step = 4, .pieces = pieces, .state = state});  // refuses gaps and overlaps
    for (const Layout& layout :
         {Layout{2, Sharding::kZero1}, Layout{1}, Layout{4, Sharding::kFull}}) {
      INFO(name_of(layout));
      Trained resumed;
      run_ranks(layout.ranks, [&](Group& group) {
        Student student(group, layout);
        const auto saved = CheckpointStore(folder.path(), {}).load_newest();
        student.optimizer().load("s/", *saved);
        Trained own;
        for (int64_t i = 4; i < 8; ++i) own.losses.push_back(student.step(i));
        own.weights = student.weights();
        if (group.leads()) resumed = own;
      });
      auto expected = straight;
      expected.losses.erase(expected.losses.begin(), expected.losses.begin() + 4);
      check_near(resumed, expected);
    }
  }
}

TEST_CASE("shards: a gradient that is not finite on one rank is skipped by all", "[dist]") {
  for (const auto sharding :
       {Sharding::kNone, Sharding::kZero1, Sharding::kZero2, Sharding::kFull}) {
    run_ranks(2, [&](Group& group) {
      auto model = small_hybrid();
      AdamW optimizer(trainable(*model), optimizer_options(), group, {.sharding = sharding});
      model->set_block_runner(
          std::make_shared<TrainingBlocks>(&optimizer.shards(), BlockRunOptions{}));
      const auto batch = small_batch(0, 1, false);
      auto loss = small_loss(model, batch, 24);
      if (group.rank() == 1) loss = loss * std::numeric_limits<double>::quiet_NaN();
      loss.backward();
      const auto result = optimizer.step(kRate);
      TORCH_CHECK(!result.finite && optimizer.steps() == 0, "rank ", group.rank(), " did not skip");
      small_loss(model, batch, 24).backward();
      TORCH_CHECK(optimizer.step(kRate).finite, "the next step is not finite");
    });
  }
}

}  // namespace zebra::testing
