#include "base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr size_t kPiece = 1 << 20;  // bytes copied at a time

[[noreturn]] void fail(const fs::path& path, const char* what, int reason) {
  throw ConfigError(str(path.string(), ": cannot be ", what, ": ", std::strerror(reason)));
}

// A descriptor that is closed at the end of the scope.
struct Descriptor {
  ~Descriptor() {
    if (number >= 0) ::close(number);
  }
  int number = -1;
};

uint64_t open_for_reading(const fs::path& path, Descriptor& file) {
  file.number = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file.number < 0) fail(path, "read", errno);
  struct stat facts {};
  if (::fstat(file.number, &facts) != 0) fail(path, "read", errno);
  if (S_ISDIR(facts.st_mode)) fail(path, "read", EISDIR);
  return static_cast<uint64_t>(facts.st_size);
}

// Up to `count` bytes; 0 at the end of the file.
size_t read_some(const fs::path& path, int file, char* bytes, size_t count) {
  while (true) {
    const ssize_t got = ::read(file, bytes, count);
    if (got >= 0) return static_cast<size_t>(got);
    if (errno != EINTR) fail(path, "read", errno);
  }
}

fs::path folder_of(const fs::path& path) {
  return path.has_parent_path() ? path.parent_path() : fs::path(".");
}

// The folder itself, links resolved and without a trailing slash.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  fs::path full = fs::weakly_canonical(fs::absolute(path), error);
  if (error) fail(path, "resolved", error.value());
  return full.has_filename() ? full : full.parent_path();
}

void rename_or_fail(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) fail(to, "written", errno);
}

}  // namespace

std::string read_file(const fs::path& path) {
  Descriptor file;
  std::string bytes(open_for_reading(path, file), '\0');
  size_t filled = 0;
  while (filled < bytes.size()) {
    const size_t got = read_some(path, file.number, &bytes[filled], bytes.size() - filled);
    if (got == 0) break;  // shrank meanwhile
    filled += got;
  }
  bytes.resize(filled);
  char more[4096];  // files of /proc and pipes say that they have no size
  while (const size_t got = read_some(path, file.number, more, sizeof more))
    bytes.append(more, got);
  return bytes;
}

void write_file_atomic(const fs::path& path, std::string_view bytes) {
  OutputFile file(path);
  file.write(bytes);
  file.commit();
}

void copy_file_atomic(const fs::path& from, const fs::path& to) {
  Descriptor source;
  open_for_reading(from, source);
  OutputFile file(to);
  std::string piece(kPiece, '\0');
  while (const size_t got = read_some(from, source.number, piece.data(), piece.size())) {
    file.write(piece.data(), got);
  }
  file.commit();
}

void fsync_folder(const fs::path& folder) {
  Descriptor file{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (file.number < 0) fail(folder, "synced", errno);
  // Some network file systems cannot sync folders and say EINVAL; there is nothing to be done then.
  if (::fsync(file.number) != 0 && errno != EINVAL) fail(folder, "synced", errno);
}

void make_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error && !fs::is_directory(folder)) error = std::make_error_code(std::errc::not_a_directory);
  if (error) fail(folder, "made", error.value());
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  Descriptor file;
  size_ = open_for_reading(path, file);
  if (size_ == 0) return;
  void* const at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (at == MAP_FAILED) fail(path, "mapped", errno);
  data_ = static_cast<const uint8_t*>(at);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<uint8_t*>(data_), size_);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

void MappedFile::release(uint64_t begin, uint64_t end) const {
  if (begin >= end) return;
  const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
  const uint64_t first = begin / page * page;
  // Only advice: a kernel that does not take it keeps the pages.
  (void)::madvise(const_cast<uint8_t*>(data_) + first, end - first, MADV_DONTNEED);
}

OutputFile::OutputFile(const fs::path& path) : path_(path), temporary_(path) {
  temporary_ += ".tmp";
  file_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (file_ < 0) fail(path_, "written", errno);
}

OutputFile::~OutputFile() {
  if (file_ < 0) return;
  ::close(file_);
  ::unlink(temporary_.c_str());
}

void OutputFile::write(const void* bytes, size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t done = ::write(file_, at, count);
    if (done < 0) {
      if (errno == EINTR) continue;
      fail(path_, "written", errno);
    }
    at += done;
    count -= static_cast<size_t>(done);
  }
}

void OutputFile::write_direct(const void* bytes, size_t count) {
  const char* at = static_cast<const char*>(bytes);
  const int usual = ::fcntl(file_, F_GETFL);
  if (::fcntl(file_, F_SETFL, usual | O_DIRECT) == 0) {
    // What is refused here (a full disk, a file system that cannot after all) is written or told
    // by the usual way below.
    while (count >= kDirectAlignment) {
      const ssize_t done = ::write(file_, at, count / kDirectAlignment * kDirectAlignment);
      if (done < 0 && errno == EINTR) continue;
      if (done <= 0) break;
      at += done;
      count -= static_cast<size_t>(done);
      if (static_cast<size_t>(done) % kDirectAlignment != 0) break;
    }
    if (::fcntl(file_, F_SETFL, usual) != 0) fail(path_, "written", errno);
  }
  write(at, count);
}

void OutputFile::commit() {
  if (::fsync(file_) != 0) fail(path_, "written", errno);
  rename_or_fail(temporary_, path_);
  ::close(std::exchange(file_, -1));
  fsync_folder(folder_of(path_));
}

StagedFolder::StagedFolder(const fs::path& target) : target_(resolved(target)) {
  staged_ = target_.parent_path() / ("." + target_.filename().string() + ".partial");
  make_folders(target_.parent_path());
  std::error_code error;
  fs::remove_all(staged_, error);  // of an earlier attempt that was killed
  if (error) fail(staged_, "removed", error.value());
  make_folders(staged_);
}

StagedFolder::~StagedFolder() {
  std::error_code ignored;  // nothing can be done about it here
  if (!staged_.empty()) fs::remove_all(staged_, ignored);
}

void StagedFolder::commit() {
  fsync_folder(staged_);
  const int here = AT_FDCWD;
  if (!fs::exists(target_)) {
    rename_or_fail(staged_, target_);
  } else if (::renameat2(here, staged_.c_str(), here, target_.c_str(), RENAME_EXCHANGE) != 0) {
    // A file system that cannot exchange two names: for a moment there is no target.
    const fs::path old = staged_.parent_path() / (staged_.filename().string() + ".old");
    std::error_code ignored;
    fs::remove_all(old, ignored);
    rename_or_fail(target_, old);
    rename_or_fail(staged_, target_);
    fs::remove_all(old, ignored);
  }
  fsync_folder(target_.parent_path());
  std::error_code ignored;
  fs::remove_all(std::exchange(staged_, {}), ignored);  // what lay at the target before
}

}  // namespace zebra
