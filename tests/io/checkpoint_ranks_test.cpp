#include "io/checkpoint_support.h"
#include "support/capture.h"
#include "support/temp_dir.h"
#include "support/thread_ranks.h"

#include "zebra/error.h"

using zebra::Checkpoint;
using zebra::CheckpointStore;
using zebra::RankExchange;
using zebra::SavedCheckpoint;
using namespace zebra::testing;
namespace fs = std::filesystem;

namespace {

// The part of a step's checkpoint that one rank holds: tensor "a" is dealt out in uneven runs, "b"
// is held by all and shared evenly.
Checkpoint part_of(int64_t step, const RankExchange& ranks) {
  Checkpoint checkpoint{.step = step, .pieces = {}, .state = {}};
  const auto tensors = tensors_of(step);
  for (const auto& [name, tensor] : tensors) {
    if (name == "b") {
      checkpoint.pieces.push_back(zebra::share_of_tensor(name, tensor, ranks.rank, ranks.world));
      continue;
    }
    const int64_t count = tensor.numel(), run = 777;
    for (int64_t begin = ranks.rank * run; begin < count; begin += ranks.world * run) {
      checkpoint.pieces.push_back({.name = name,
                                   .shape = tensor.sizes().vec(),
                                   .begin = begin,
                                   .values = tensor.view({-1}).slice(0, begin, begin + run)});
    }
  }
  if (ranks.rank == 0) checkpoint.state["position"] = std::to_string(1000 * step);
  return checkpoint;
}

std::string text_of_error(const std::exception_ptr& thrown) {
  if (!thrown) return "";
  try {
    std::rethrow_exception(thrown);
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace

TEST_CASE("checkpoint: any number of ranks reads what any other number wrote") {
  for (const int64_t writers : {1, 2, 4, 5}) {
    const TempDir folder;
    run_ranks(writers, [&](const RankExchange& ranks) {
      CheckpointStore store(folder.path(), {.keep = 2}, ranks);
      store.save(part_of(3, ranks));
      store.save(part_of(4, ranks));
    });
    CHECK(names_in(folder.path()) == Names{"step-00000003", "step-00000004"});
    for (const int64_t readers : {1, 3, 4}) {
      std::atomic<int> same{0};
      run_ranks(readers, [&](const RankExchange& ranks) {
        const auto saved = CheckpointStore(folder.path(), {}, ranks).load_newest();
        const auto all = tensors_of(4).at("a/parameter.weight").view({-1});
        const int64_t begin = all.numel() * ranks.rank / ranks.world;
        const int64_t end = all.numel() * (ranks.rank + 1) / ranks.world;
        const bool good =
            saved && saved->world() == writers && saved->step() == 4 &&
            saved->state("position") == "4000" &&
            at::equal(saved->read("b"), tensors_of(4).at("b")) &&
            at::equal(saved->read("a/parameter.weight", begin, end), all.slice(0, begin, end));
        if (good) ++same;
      });
      CHECK(same == readers);
    }
  }
}

TEST_CASE("checkpoint: a share for every rank covers a tensor once, also when there are few") {
  for (const int64_t elements : {0, 1, 3, 8, 1000}) {
    const auto tensor = at::arange(elements, at::kFloat);
    std::vector<at::Tensor> parts;
    int64_t next = 0;
    for (int64_t rank = 0; rank < 4; ++rank) {
      const auto piece = zebra::share_of_tensor("t", tensor, rank, 4);
      CHECK(piece.begin == next);
      next += piece.values.numel();
      parts.push_back(piece.values);
    }
    check_equal(at::cat(parts), tensor);
  }
}

TEST_CASE("checkpoint: pieces with a gap, an overlap or other shapes are refused by name") {
  const auto ten = at::arange(10, at::kFloat);
  const auto piece = [&](int64_t begin, int64_t end, int64_t size) {
    return zebra::TensorPiece{
        .name = "t", .shape = {size}, .begin = begin, .values = ten.slice(0, begin, end)};
  };
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 1});
  store.save(checkpoint_of(1));
  using Pieces = std::vector<zebra::TensorPiece>;
  for (const auto& pieces :
       {Pieces{piece(0, 4, 10), piece(5, 10, 10)}, Pieces{piece(0, 6, 10), piece(5, 10, 10)},
        Pieces{piece(0, 9, 10)}, Pieces{piece(0, 5, 10), piece(5, 10, 11)}}) {
    CHECK_THROWS_WITH(store.save({.step = 2, .pieces = pieces, .state = {}}),
                      ContainsSubstring("tensor 't'"));
  }
  CHECK(names_in(folder.path()) == Names{"step-00000001"});
}

TEST_CASE("checkpoint: a rank that cannot write is named on all, and nothing is left") {
  const TempDir folder;
  run_ranks(3, [&](const RankExchange& ranks) {
    CheckpointStore(folder.path(), {}, ranks).save(part_of(1, ranks));
  });
  zebra::testing::ThreadRanks three(3);
  const auto thrown = three.run([&](const RankExchange& ranks) {
    auto part = part_of(2, ranks);
    // The name of a tensor cannot be stored twice by one rank.
    if (ranks.rank == 1) part.pieces.push_back(part.pieces.front());
    CheckpointStore(folder.path(), {}, ranks).save(part);
  });
  CHECK_THAT(text_of_error(thrown[0]), ContainsSubstring("rank 1: "));
  CHECK_THAT(text_of_error(thrown[2]), ContainsSubstring("rank 1: "));
  CHECK_THAT(text_of_error(thrown[1]), ContainsSubstring("stands there twice"));
  CHECK(names_in(folder.path()) == Names{"step-00000001"});
}

TEST_CASE("checkpoint: damage in the shard of any rank falls back on all ranks") {
  for (int64_t rank = 0; rank < 3; ++rank) {
    const TempDir folder;
    run_ranks(3, [&](const RankExchange& ranks) {
      CheckpointStore store(folder.path(), {}, ranks);
      store.save(part_of(1, ranks));
      store.save(part_of(2, ranks));
    });
    const auto name = "rank-0000" + std::to_string(rank) + "-of-00003.safetensors";
    const auto shard = folder.path() / "step-00000002" / name;
    flip_bit(shard, fs::file_size(shard) - 1);
    std::atomic<int> first{0};
    run_ranks(2, [&](const RankExchange& ranks) {
      const auto saved = CheckpointStore(folder.path(), {}, ranks).load_newest();
      if (saved && saved->step() == 1) ++first;
    });
    CHECK(first == 2);
  }
}

TEST_CASE("checkpoint: the loss of a rank is left to the training to tell") {
  const TempDir folder;
  const auto lost = [](const std::string&) -> std::vector<std::string> {
    throw std::runtime_error("lost another rank");
  };
  const StderrCapture captured;
  const auto train = [&](bool fails) {
    CheckpointStore store(folder.path(), {.keep = 2, .keep_every = 0, .asynchronous = true},
                          {.rank = 1, .world = 2, .exchange = lost});
    store.save(checkpoint_of(1));
    if (fails) throw std::runtime_error("lost another rank");
  };
  CHECK_THROWS(train(true));
  CHECK(captured.text().empty());
  train(false);
  CHECK_THAT(captured.text(), ContainsSubstring("lost another rank"));
}
