#include "zebra/checkpoint.h"

#include "io/checkpoint_support.h"
#include "support/capture.h"
#include "support/file_limit.h"
#include "support/temp_dir.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <random>

#include "zebra/error.h"
#include "zebra/safetensors.h"

using zebra::Checkpoint;
using zebra::CheckpointStore;
using zebra::SavedCheckpoint;
using namespace zebra::testing;
namespace fs = std::filesystem;

namespace {

const std::string kShard = "rank-00000-of-00001.safetensors";
const Names kFiles = {"COMMIT", "manifest.json", "state.json", kShard};

std::string refusal_of(CheckpointStore& store, const Checkpoint& checkpoint) {
  try {
    store.save(checkpoint);
  } catch (const zebra::ConfigError& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("checkpoint: what was saved comes back bit for bit") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  Tensors tensors = tensors_of(7);
  tensors["half"] = at::randn({5, 3}).to(at::kBFloat16);
  tensors["double"] = at::randn({2, 3, 4}, at::kDouble).transpose(0, 2);
  tensors["bytes"] = at::arange(5, at::kByte);
  tensors["scalar"] = at::full({}, 2.5F);
  tensors["empty"] = at::empty({0, 4});
  Checkpoint checkpoint = make_checkpoint(7, tensors);
  checkpoint.state["text"] = "line\nquote \" \xc3\xa9 end";
  checkpoint.state["nothing"] = "";
  store.save(checkpoint);
  const auto saved = store.load_newest();
  REQUIRE(saved.has_value());
  CHECK(saved->step() == 7);
  CHECK(saved->world() == 1);
  CHECK(saved->state() == checkpoint.state);
  check_tensors(*saved, tensors);
  check_tensors(SavedCheckpoint(folder.path() / "step-00000007"), tensors);
  CHECK(names_in(folder.path()) == Names{"step-00000007"});
  CHECK(names_in(folder.path() / "step-00000007") == kFiles);
}

TEST_CASE("checkpoint: one without tensors is as good as any") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {});
  store.save({.step = 3, .pieces = {}, .state = {{"position", "3000"}}});
  const auto saved = store.load_newest();
  REQUIRE(saved.has_value());
  CHECK(saved->tensors().empty());
  CHECK(saved->state("position") == "3000");
}

TEST_CASE("checkpoint: none was ever saved") {
  const TempDir folder;
  CheckpointStore store(folder.path() / "deep" / "er", {.keep = 2});
  CHECK_FALSE(store.load_newest().has_value());
  CHECK(store.steps().empty());
  store.clear();
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("checkpoint: the newest is loaded and those beyond keep are removed") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 3});
  for (const int64_t step : {5, 10, 15, 20, 123456789}) store.save(checkpoint_of(step));
  CHECK(store.steps() == std::vector<int64_t>{15, 20, 123456789});
  CHECK(names_in(folder.path()) == Names{"step-00000015", "step-00000020", "step-123456789"});
  check_same(store.load_newest(), 123456789);
  CheckpointStore(folder.path(), {.keep = 1}).save(checkpoint_of(123456790));
  CHECK(store.steps() == std::vector<int64_t>{123456790});
  store.clear();
  CHECK(names_in(folder.path()).empty());
  CHECK_FALSE(store.load_newest().has_value());
}

TEST_CASE("checkpoint: keep is at least one") {
  CHECK_THROWS_AS(CheckpointStore("x", {.keep = 0}), zebra::ConfigError);
}

TEST_CASE("checkpoint: a step that is saved again replaces the earlier one") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  for (int64_t round = 0; round < 3; ++round) {
    Checkpoint checkpoint = checkpoint_of(4);
    checkpoint.state["round"] = std::to_string(round);
    store.save(checkpoint);
    CHECK(store.load_newest()->state() == checkpoint.state);
    CHECK(store.steps() == std::vector<int64_t>{4});
    CHECK(names_in(folder.path()).size() == 1);
  }
  store.save(checkpoint_of(5));
  CHECK(store.steps() == std::vector<int64_t>{4, 5});
}

TEST_CASE("checkpoint: later steps of a future that was given up are removed") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  store.save(checkpoint_of(10));
  store.save(checkpoint_of(20));
  fs::remove(folder.path() / "step-00000020" / "COMMIT");
  check_same(store.load_newest(), 10);
  store.save(checkpoint_of(15));
  CHECK(store.steps() == std::vector<int64_t>{10, 15});
  check_same(store.load_newest(), 15);
}

TEST_CASE("checkpoint: leftovers of crashes are not seen and go with the next save") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  fs::create_directories(folder.path() / "tmp-step-00000009" / "x");
  fs::create_directories(folder.path() / "tmp-step-00000001-old");
  CHECK_FALSE(store.load_newest().has_value());
  CHECK(store.steps().empty());
  fs::create_directories(folder.path() / "step-7.bak");  // someone's own
  fs::create_directories(folder.path() / "step-7");
  store.save(checkpoint_of(1));
  CHECK(names_in(folder.path()) == Names{"step-00000001", "step-7", "step-7.bak"});
  CHECK(store.steps() == std::vector<int64_t>{1});
  check_same(store.load_newest(), 1);
}

TEST_CASE("checkpoint: any file missing, cut short or changed falls back to the older one") {
  const TempDir folder;
  for (const std::string& name : kFiles) {
    for (const std::string how : {"remove", "empty", "cut", "grow", "first", "middle", "last"}) {
      INFO(name << ": " << how);
      CheckpointStore store(folder.path(), {.keep = 2});
      store.clear();
      store.save(checkpoint_of(10));
      store.save(checkpoint_of(20));
      const fs::path file = folder.path() / "step-00000020" / name;
      const uint64_t size = fs::file_size(file);
      if (how == "remove") fs::remove(file);
      if (how == "empty") fs::resize_file(file, 0);
      if (how == "cut") fs::resize_file(file, size - 1);
      if (how == "grow") std::ofstream(file, std::ios::app) << '\n';
      if (how == "first") flip_bit(file, 0);
      if (how == "middle") flip_bit(file, size / 2);
      if (how == "last") flip_bit(file, size - 1);
      check_same(store.load_newest(), 10);
      CHECK(store.steps() == std::vector<int64_t>{10, 20});
    }
  }
}

TEST_CASE("checkpoint: one that was found damaged goes before a good one") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  store.save(checkpoint_of(10));
  store.save(checkpoint_of(20));
  flip_bit(folder.path() / "step-00000020" / kShard, 300);
  check_same(store.load_newest(), 10);
  store.save(checkpoint_of(30));
  CHECK(store.steps() == std::vector<int64_t>{10, 30});
}

TEST_CASE("checkpoint: every byte of the small files counts") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 1});
  for (const char* name : {"COMMIT", "manifest.json", "state.json"}) {
    store.save(checkpoint_of(1));
    const fs::path file = folder.path() / *names_in(folder.path()).begin() / name;
    for (uint64_t at = 0; at < fs::file_size(file); ++at) {
      INFO(name << " byte " << at);
      flip_bit(file, at);
      REQUIRE_THROWS_AS(store.load_newest(), zebra::GaveUpError);
      flip_bit(file, at);
    }
    check_same(store.load_newest(), 1);
  }
}

TEST_CASE("checkpoint: when all are damaged, every one is named") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  store.save(checkpoint_of(10));
  store.save(checkpoint_of(20));
  fs::remove(folder.path() / "step-00000010" / "manifest.json");
  fs::resize_file(folder.path() / "step-00000020" / kShard, 17);
  CHECK_THROWS_AS(store.load_newest(), zebra::GaveUpError);
  CHECK_THROWS_WITH(store.load_newest(),
                    ContainsSubstring("step-00000010: manifest.json: missing") &&
                        ContainsSubstring("step-00000020: " + kShard + ": expected ") &&
                        ContainsSubstring("got 17"));
}

TEST_CASE("checkpoint: a folder under another step's name is not taken") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  store.save(checkpoint_of(10));
  fs::rename(folder.path() / "step-00000010", folder.path() / "step-00000011");
  CHECK_THROWS_WITH(store.load_newest(), ContainsSubstring("expected step 11, got 10"));
}

TEST_CASE("checkpoint: a full disk names the file, leaves nothing half-made and the older good") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 1});
  store.save(checkpoint_of(1));
  Checkpoint long_state = checkpoint_of(2);
  long_state.pieces.clear();
  long_state.state["long"] = std::string(10000, 'x');
  for (const auto& [checkpoint, name] :
       {std::pair<Checkpoint, std::string>{checkpoint_of(2), kShard}, {long_state, "state.json"}}) {
    std::string refusal;
    {
      const FileSizeLimit limit(4096);
      refusal = refusal_of(store, checkpoint);
    }
    CHECK_THAT(refusal, ContainsSubstring(name));
    CHECK(names_in(folder.path()) == Names{"step-00000001"});
    check_same(store.load_newest(), 1);
  }
  store.save(checkpoint_of(2));
  check_same(store.load_newest(), 2);
}

TEST_CASE("checkpoint: a full file system leaves the older one good") {
  const TempDir folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=128k") != 0) {
    ZEBRA_SKIP("a file system can be mounted by root only");
  }
  CheckpointStore store(folder.path(), {.keep = 2});
  store.save(checkpoint_of(1));  // 40 kB of tensors
  store.save(checkpoint_of(2));
  const std::string refusal = refusal_of(store, checkpoint_of(3));
  const auto names = names_in(folder.path());
  const auto newest = store.load_newest();
  ::umount(folder.path().c_str());
  CHECK_THAT(refusal, ContainsSubstring(folder.path().string()));
  CHECK_THAT(refusal, ContainsSubstring("No space left on device"));
  CHECK(names == Names{"step-00000001", "step-00000002"});
  check_same(newest, 2);
}

TEST_CASE("checkpoint: a folder that cannot be written is the user's to mend") {
  const TempDir folder;
  std::ofstream(folder / "file") << "in the way";
  CheckpointStore store(folder / "file" / "checkpoints", {.keep = 1});
  CHECK_THAT(refusal_of(store, checkpoint_of(1)), ContainsSubstring((folder / "file").string()));
}

namespace {

// Saves one step after another until it is killed. Runs in a child process.
[[noreturn]] void save_for_ever(const fs::path& folder) {
  at::set_num_threads(1);  // the parent's others are not in a forked process
  try {
    CheckpointStore store(folder, {.keep = 2});
    const auto newest = store.load_newest();
    for (int64_t step = newest ? newest->step() + 1 : 1;; ++step) store.save(checkpoint_of(step));
  } catch (...) {
    ::_exit(1);
  }
}

// Kills a saving child `rounds` times at random moments; true when every one was found saving.
void kill_while_saving(int rounds) {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2});
  std::mt19937 random(2026);
  int64_t reached = 0;
  // A save takes a millisecond or, where the disk is busy, a second.
  const auto began = std::chrono::steady_clock::now();
  store.save(checkpoint_of(0));
  const std::chrono::duration<double, std::micro> save = std::chrono::steady_clock::now() - began;
  const int longest = std::max(40000, static_cast<int>(4 * save.count()));
  for (int round = 0; round < rounds; ++round) {
    const pid_t child = ::fork();
    if (child == 0) save_for_ever(folder.path());
    // Long enough for some saves, and different every time.
    const auto microseconds = std::uniform_int_distribution<int>(500, longest)(random);
    ::usleep(static_cast<useconds_t>(microseconds));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));  // else the child met an error of its own
    const auto newest = store.load_newest();
    REQUIRE(newest.has_value());
    REQUIRE(newest->step() >= reached);
    REQUIRE(newest->step() == store.steps().back());  // none is damaged, however it ended
    check_same(newest, newest->step());
    reached = newest->step();
  }
  REQUIRE(reached > 0);
  store.save(checkpoint_of(reached + 1));  // a save that is not disturbed cleans up
  CHECK(names_in(folder.path()).size() == 2);
}

}  // namespace

TEST_CASE("checkpoint: a process that is killed while saving leaves a good newest checkpoint") {
  kill_while_saving(40);
}

TEST_CASE("checkpoint: the same, a thousand times", "[.slow]") { kill_while_saving(1000); }

TEST_CASE("checkpoint: steps that are kept for good outlive newer ones and the stage") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2, .keep_every = 20});
  for (int64_t step = 10; step <= 70; step += 10) store.save(checkpoint_of(step));
  CHECK(store.steps() == std::vector<int64_t>{20, 40, 50, 60, 70});
  store.retire();
  CHECK(store.steps() == std::vector<int64_t>{20, 40, 60});
  check_same(store.load_newest(), 60);
}

TEST_CASE("checkpoint: an asynchronous save is of the moment it was asked for") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 2, .keep_every = 0, .asynchronous = true});
  auto tensors = tensors_of(1);
  for (int64_t step = 1; step <= 5; ++step) {
    tensors["a/parameter.weight"].copy_(tensors_of(step).at("a/parameter.weight"));
    tensors["b"].fill_(step);
    store.save(make_checkpoint(step, tensors));
    tensors["a/parameter.weight"].fill_(-1);  // what training does meanwhile
    tensors["b"].fill_(-1);
  }
  store.wait();
  CHECK_FALSE(store.writing());
  CHECK(store.steps() == std::vector<int64_t>{4, 5});
  check_same(store.load_newest(), 5);
  check_tensors(SavedCheckpoint(folder.path() / "step-00000004"), tensors_of(4));
}

TEST_CASE("checkpoint: what it counts on is made durable before the commit, or there is none") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.keep = 3});
  auto checkpoint = checkpoint_of(1);
  std::vector<int64_t> committed = {-1};
  checkpoint.sync = [&] { committed = store.steps(); };
  store.save(checkpoint);
  CHECK(committed.empty());
  CHECK(store.steps() == std::vector<int64_t>{1});

  checkpoint = checkpoint_of(2);
  checkpoint.sync = [] { throw zebra::ConfigError("metrics.jsonl: cannot be written"); };
  CHECK_THROWS_WITH(store.save(checkpoint), "metrics.jsonl: cannot be written");
  CHECK(names_in(folder.path()) == Names{"step-00000001"});
}

TEST_CASE("checkpoint: the writing thread takes only what others leave of the processor") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {.asynchronous = true});
  auto checkpoint = checkpoint_of(1);
  int policy = -1;
  checkpoint.sync = [&] { policy = ::sched_getscheduler(0); };
  store.save(checkpoint);
  store.wait();
  CHECK(policy == SCHED_IDLE);
  CHECK(::sched_getscheduler(0) != SCHED_IDLE);
}

TEST_CASE("checkpoint: an asynchronous save that fails is told at the next call") {
  const TempDir folder;
  std::ofstream(folder / "file") << "in the way";
  CheckpointStore store(folder / "file" / "checkpoints",
                        {.keep = 2, .keep_every = 0, .asynchronous = true});
  const auto again = [&] { store.save(checkpoint_of(2)); };
  store.save(checkpoint_of(1));
  CHECK_THROWS_WITH(again(), ContainsSubstring((folder / "file").string()));
  store.save(checkpoint_of(3));
  CHECK_THROWS_AS(store.wait(), zebra::ConfigError);
  store.poll();  // told once
}

TEST_CASE("checkpoint: a missing tensor, text or element is named") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {});
  store.save(checkpoint_of(1));
  const auto saved = store.load_newest();
  CHECK_THROWS_WITH(saved->read("c"), ContainsSubstring("'c'"));
  CHECK_THROWS_WITH(saved->state("key"), ContainsSubstring("'key'"));
  CHECK_THROWS_WITH(saved->read("b", 1, 4), ContainsSubstring("'b'"));
  check_equal(saved->read("b", 1, 1), at::empty({0}, at::kLong));
}

TEST_CASE("checkpoint: a shard is a safetensors file of flat pieces") {
  const TempDir folder;
  CheckpointStore store(folder.path(), {});
  store.save(checkpoint_of(1));
  const zebra::SafetensorsFile shard(folder.path() / "step-00000001" / kShard);
  check_equal(shard.read("a/parameter.weight@0"), tensors_of(1).at("a/parameter.weight").view(-1));
  CHECK(shard.tensors().size() == 2);
}
