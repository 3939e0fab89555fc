#include "zebra/checkpoint.h"

#include "support/close_to.h"
#include "support/file_limit.h"
#include "support/temp_dir.h"
#include "support/testing.h"

#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <fstream>
#include <random>
#include <set>

#include "zebra/error.h"

using zebra::Checkpoint;
using zebra::CheckpointStore;
using zebra::testing::check_equal;
using zebra::testing::ContainsSubstring;
using zebra::testing::FileSizeLimit;
using zebra::testing::TempDir;
namespace fs = std::filesystem;

namespace {

// Its contents follow from the step. Small enough that no thread is started to copy them.
Checkpoint checkpoint_of(int64_t step) {
  Checkpoint checkpoint;
  checkpoint.step = step;
  checkpoint.tensors["a/parameter.weight"] = at::arange(10000, at::kFloat).view({100, 100}) + step;
  checkpoint.tensors["b"] = at::full({3}, step, at::kLong);
  checkpoint.state["position"] = std::to_string(1000 * step);
  return checkpoint;
}

void check_same(const std::optional<Checkpoint>& actual, const Checkpoint& expected) {
  REQUIRE(actual.has_value());
  CHECK(actual->step == expected.step);
  CHECK(actual->state == expected.state);
  CHECK(actual->tensors.size() == expected.tensors.size());
  for (const auto& [name, tensor] : expected.tensors) {
    REQUIRE(actual->tensors.contains(name));
    CHECK(actual->tensors.at(name).dtype() == tensor.dtype());
    check_equal(actual->tensors.at(name), tensor, name);
  }
}

std::set<std::string> names_in(const fs::path& folder) {
  std::set<std::string> names;
  for (const auto& item : fs::directory_iterator(folder)) names.insert(item.path().filename());
  return names;
}

using Names = std::set<std::string>;

const Names kFiles = {"COMMIT", "manifest.json", "state.json", "tensors.safetensors"};

void flip_bit(const fs::path& path, uint64_t at) {
  std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
  file.seekg(static_cast<int64_t>(at));
  const char byte = static_cast<char>(file.get() ^ 0x10);
  file.seekp(static_cast<int64_t>(at));
  file.put(byte);
}

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
  CheckpointStore store(folder.path(), 2);
  Checkpoint checkpoint = checkpoint_of(7);
  checkpoint.tensors["half"] = at::randn({5, 3}).to(at::kBFloat16);
  checkpoint.tensors["double"] = at::randn({2, 3, 4}, at::kDouble).transpose(0, 2);
  checkpoint.tensors["bytes"] = at::arange(5, at::kByte);
  checkpoint.tensors["scalar"] = at::full({}, 2.5F);
  checkpoint.tensors["empty"] = at::empty({0, 4});
  checkpoint.state["text"] = "line\nquote \" \xc3\xa9 end";
  checkpoint.state["nothing"] = "";
  store.save(checkpoint);
  check_same(store.load_newest(), checkpoint);
  check_same(CheckpointStore(folder.path(), 1).load_newest(), checkpoint);
  CHECK(names_in(folder.path()) == Names{"step-00000007"});
  CHECK(names_in(folder.path() / "step-00000007") == kFiles);
}

TEST_CASE("checkpoint: none was ever saved") {
  const TempDir folder;
  CheckpointStore store(folder.path() / "deep" / "er", 2);
  CHECK_FALSE(store.load_newest().has_value());
  CHECK(store.steps().empty());
  store.clear();
  CHECK(names_in(folder.path()).empty());
}

TEST_CASE("checkpoint: the newest is loaded and those beyond keep are removed") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 3);
  for (const int64_t step : {5, 10, 15, 20, 123456789}) store.save(checkpoint_of(step));
  CHECK(store.steps() == std::vector<int64_t>{15, 20, 123456789});
  CHECK(names_in(folder.path()) == Names{"step-00000015", "step-00000020", "step-123456789"});
  check_same(store.load_newest(), checkpoint_of(123456789));
  CheckpointStore(folder.path(), 1).save(checkpoint_of(123456790));
  CHECK(store.steps() == std::vector<int64_t>{123456790});
  store.clear();
  CHECK(names_in(folder.path()).empty());
  CHECK_FALSE(store.load_newest().has_value());
}

TEST_CASE("checkpoint: keep is at least one") {
  CHECK_THROWS_AS(CheckpointStore("x", 0), zebra::ConfigError);
}

TEST_CASE("checkpoint: a step that is saved again replaces the earlier one") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 2);
  for (int64_t round = 0; round < 3; ++round) {
    Checkpoint checkpoint = checkpoint_of(4);
    checkpoint.state["round"] = std::to_string(round);
    store.save(checkpoint);
    check_same(store.load_newest(), checkpoint);
    CHECK(store.steps() == std::vector<int64_t>{4});
    CHECK(names_in(folder.path()).size() == 1);
  }
  store.save(checkpoint_of(5));
  CHECK(store.steps() == std::vector<int64_t>{4, 5});
}

TEST_CASE("checkpoint: later steps of a future that was given up are removed") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 2);
  store.save(checkpoint_of(10));
  store.save(checkpoint_of(20));
  fs::remove(folder.path() / "step-00000020" / "COMMIT");
  check_same(store.load_newest(), checkpoint_of(10));
  store.save(checkpoint_of(15));
  CHECK(store.steps() == std::vector<int64_t>{10, 15});
  check_same(store.load_newest(), checkpoint_of(15));
}

TEST_CASE("checkpoint: leftovers of crashes are not seen and go with the next save") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 2);
  fs::create_directories(folder.path() / "tmp-step-00000009" / "x");
  fs::create_directories(folder.path() / "tmp-step-00000001-old");
  CHECK_FALSE(store.load_newest().has_value());
  CHECK(store.steps().empty());
  fs::create_directories(folder.path() / "step-7.bak");  // someone's own
  fs::create_directories(folder.path() / "step-7");
  store.save(checkpoint_of(1));
  CHECK(names_in(folder.path()) == Names{"step-00000001", "step-7", "step-7.bak"});
  CHECK(store.steps() == std::vector<int64_t>{1});
  check_same(store.load_newest(), checkpoint_of(1));
}

TEST_CASE("checkpoint: any file missing, cut short or changed falls back to the older one") {
  const TempDir folder;
  for (const std::string& name : kFiles) {
    for (const std::string how : {"remove", "empty", "cut", "grow", "first", "middle", "last"}) {
      INFO(name << ": " << how);
      CheckpointStore store(folder.path(), 2);
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
      check_same(store.load_newest(), checkpoint_of(10));
      CHECK(store.steps() == std::vector<int64_t>{10, 20});
    }
  }
}

TEST_CASE("checkpoint: every byte of the small files counts") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 1);
  for (const char* name : {"COMMIT", "manifest.json", "state.json"}) {
    store.save(checkpoint_of(1));
    const fs::path file = folder.path() / *names_in(folder.path()).begin() / name;
    for (uint64_t at = 0; at < fs::file_size(file); ++at) {
      INFO(name << " byte " << at);
      flip_bit(file, at);
      REQUIRE_THROWS_AS(store.load_newest(), zebra::GaveUpError);
      flip_bit(file, at);
    }
    check_same(store.load_newest(), checkpoint_of(1));
  }
}

TEST_CASE("checkpoint: when all are damaged, every one is named") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 2);
  store.save(checkpoint_of(10));
  store.save(checkpoint_of(20));
  fs::remove(folder.path() / "step-00000010" / "manifest.json");
  fs::resize_file(folder.path() / "step-00000020" / "tensors.safetensors", 17);
  CHECK_THROWS_AS(store.load_newest(), zebra::GaveUpError);
  CHECK_THROWS_WITH(store.load_newest(),
                    ContainsSubstring("step-00000010: manifest.json: missing") &&
                        ContainsSubstring("step-00000020: tensors.safetensors: expected ") &&
                        ContainsSubstring("got 17"));
}

TEST_CASE("checkpoint: a folder under another step's name is not taken") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 2);
  store.save(checkpoint_of(10));
  fs::rename(folder.path() / "step-00000010", folder.path() / "step-00000011");
  CHECK_THROWS_WITH(store.load_newest(), ContainsSubstring("expected step 11, got 10"));
}

TEST_CASE("checkpoint: a full disk names the file, leaves nothing half-made and the older good") {
  const TempDir folder;
  CheckpointStore store(folder.path(), 1);
  store.save(checkpoint_of(1));
  Checkpoint long_state = checkpoint_of(2);
  long_state.tensors.clear();
  long_state.state["long"] = std::string(10000, 'x');
  for (const auto& [checkpoint, name] :
       {std::pair<Checkpoint, std::string>{checkpoint_of(2), "tensors.safetensors"},
        {long_state, "state.json"}}) {
    std::string refusal;
    {
      const FileSizeLimit limit(4096);
      refusal = refusal_of(store, checkpoint);
    }
    CHECK_THAT(refusal, ContainsSubstring(name));
    CHECK(names_in(folder.path()) == Names{"step-00000001"});
    check_same(store.load_newest(), checkpoint_of(1));
  }
  store.save(checkpoint_of(2));
  check_same(store.load_newest(), checkpoint_of(2));
}

TEST_CASE("checkpoint: a full file system leaves the older one good") {
  const TempDir folder;
  if (::mount("tmpfs", folder.path().c_str(), "tmpfs", 0, "size=128k") != 0) {
    ZEBRA_SKIP("a file system can be mounted by root only");
  }
  CheckpointStore store(folder.path(), 2);
  store.save(checkpoint_of(1));  // 40 kB of tensors
  store.save(checkpoint_of(2));
  const std::string refusal = refusal_of(store, checkpoint_of(3));
  const auto names = names_in(folder.path());
  const auto newest = store.load_newest();
  ::umount(folder.path().c_str());
  CHECK_THAT(refusal, ContainsSubstring(folder.path().string()));
  CHECK_THAT(refusal, ContainsSubstring("No space left on device"));
  CHECK(names == Names{"step-00000001", "step-00000002"});
  check_same(newest, checkpoint_of(2));
}

TEST_CASE("checkpoint: a folder that cannot be written is the user's to mend") {
  const TempDir folder;
  std::ofstream(folder / "file") << "in the way";
  CheckpointStore store(folder / "file" / "checkpoints", 1);
  CHECK_THAT(refusal_of(store, checkpoint_of(1)), ContainsSubstring((folder / "file").string()));
}

namespace {

// Saves one step after another until it is killed. Runs in a child process.
[[noreturn]] void save_for_ever(const fs::path& folder) {
  try {
    CheckpointStore store(folder, 2);
    const auto newest = store.load_newest();
    for (int64_t step = newest ? newest->step + 1 : 1;; ++step) store.save(checkpoint_of(step));
  } catch (...) {
    ::_exit(1);
  }
}

// Kills a saving child `rounds` times at random moments; true when every one was found saving.
void kill_while_saving(int rounds) {
  const TempDir folder;
  CheckpointStore store(folder.path(), 2);
  std::mt19937 random(2026);
  int64_t reached = 0;
  for (int round = 0; round < rounds; ++round) {
    const pid_t child = ::fork();
    if (child == 0) save_for_ever(folder.path());
    // Long enough for some saves, and different every time.
    const auto microseconds = std::uniform_int_distribution<int>(500, 40000)(random);
    ::usleep(static_cast<useconds_t>(microseconds));
    ::kill(child, SIGKILL);
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));  // else the child met an error of its own
    const auto newest = store.load_newest();
    if (!newest) {
      REQUIRE(reached == 0);
      continue;
    }
    REQUIRE(newest->step >= reached);
    REQUIRE(newest->step == store.steps().back());  // none is damaged, however it ended
    check_same(newest, checkpoint_of(newest->step));
    reached = newest->step;
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
