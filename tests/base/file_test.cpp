#include "base/file.h"

#include "support/testing.h"

#include "support/file_limit.h"
#include "support/temp_dir.h"
#include "zebra/error.h"

namespace fs = std::filesystem;
using namespace zebra;
using zebra::testing::ContainsSubstring;
using zebra::testing::TempDir;

namespace {

size_t count_entries(const fs::path& folder) {
  return static_cast<size_t>(
      std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
}

}  // namespace

TEST_CASE("file: what is written is read back, zero bytes and the empty file included") {
  const TempDir folder;
  const std::string bytes("a\0b\n\xff", 5);
  for (const std::string& text : {bytes, std::string(), std::string(3'000'000, 'x')}) {
    write_file_atomic(folder / "f", text);
    CHECK(read_file(folder / "f") == text);
    const MappedFile mapped(folder / "f");
    CHECK(std::string(reinterpret_cast<const char*>(mapped.data()), mapped.size()) == text);
    copy_file_atomic(folder / "f", folder / "g");
    CHECK(read_file(folder / "g") == text);
  }
  CHECK(count_entries(folder.path()) == 2);  // no temporary file is left
}

TEST_CASE("file: a missing file, a folder and a path through a file are errors with the name") {
  const TempDir folder;
  write_file_atomic(folder / "plain", "x");
  CHECK_THROWS_WITH(read_file(folder / "none"), ContainsSubstring((folder / "none").string()));
  CHECK_THROWS_AS(read_file(folder / "none"), ConfigError);
  CHECK_THROWS_AS(read_file(folder.path()), ConfigError);
  CHECK_THROWS_AS(MappedFile(folder / "none"), ConfigError);
  CHECK_THROWS_AS(write_file_atomic(folder / "plain/below", "x"), ConfigError);
  CHECK_THROWS_AS(make_folders(folder / "plain/below"), ConfigError);
  CHECK_THROWS_AS(make_folders(folder / "plain"), ConfigError);
}

TEST_CASE("file: a full disk is a ConfigError with the file's name, and the old file stays") {
  const TempDir folder;
  write_file_atomic(folder / "f", "old");
  fs::create_symlink("/dev/full", folder / "f.tmp");  // where the new bytes go first
  CHECK_THROWS_WITH(
      write_file_atomic(folder / "f", "new"),
      ContainsSubstring((folder / "f").string()) && ContainsSubstring("No space left"));
  CHECK(read_file(folder / "f") == "old");

  const testing::FileSizeLimit limit(4096);
  CHECK_THROWS_AS(write_file_atomic(folder / "f", std::string(10'000, 'x')), ConfigError);
  CHECK(read_file(folder / "f") == "old");
  CHECK(count_entries(folder.path()) == 1);
}

TEST_CASE("file: released pages of a mapped file are mapped again") {
  const TempDir folder;
  const std::string text(100'000, 'x');
  write_file_atomic(folder / "f", text);
  const MappedFile file(folder / "f");
  for (const uint64_t begin : {0u, 5000u, 99'999u, 100'000u}) {
    file.release(begin, file.size());
    CHECK(std::string(reinterpret_cast<const char*>(file.data()), file.size()) == text);
  }
}

TEST_CASE("file: a mapped file moves") {
  const TempDir folder;
  write_file_atomic(folder / "a", "first");
  write_file_atomic(folder / "b", "second!");
  MappedFile one(folder / "a");
  MappedFile two(folder / "b");
  one = std::move(two);
  CHECK(one.size() == 7);
  const MappedFile three(std::move(one));
  CHECK(three.data()[0] == 's');
}

TEST_CASE("staged folder: nothing changes before commit and all of it at commit") {
  const TempDir parent;
  const fs::path target = parent / "deep/er/model";
  {
    StagedFolder staged(target);
    write_file_atomic(staged.path() / "a", "1");
    CHECK(!fs::exists(target));
  }
  CHECK(count_entries(target.parent_path()) == 0);  // given up without a trace
  for (const std::string round : {"1", "2"}) {
    StagedFolder staged(target / "");  // a trailing slash means the same folder
    write_file_atomic(staged.path() / ("file" + round), round);
    staged.commit();
    CHECK(read_file(target / ("file" + round)) == round);
    CHECK(count_entries(target) == 1);
    CHECK(count_entries(target.parent_path()) == 1);
  }
}

TEST_CASE("staged folder: what a killed attempt left does not get in") {
  const TempDir parent;
  fs::create_directories(parent / ".model.partial");
  write_file_atomic(parent / ".model.partial/stale", "x");
  StagedFolder staged(parent / "model");
  write_file_atomic(staged.path() / "fresh", "y");
  staged.commit();
  CHECK(count_entries(parent / "model") == 1);
}
