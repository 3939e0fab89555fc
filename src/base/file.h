// Files and folders that appear whole or not at all. Whatever the system refuses (no such file, no
// permission, a full disk) is a ConfigError that names the file and the system's reason.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace zebra {

// A whole file as bytes.
std::string read_file(const std::filesystem::path& path);

// Writes under a temporary name beside `path`, fsyncs, renames, and fsyncs the folder: after a
// crash `path` holds the old bytes or the new ones.
void write_file_atomic(const std::filesystem::path& path, std::string_view bytes);

// The same from a file.
void copy_file_atomic(const std::filesystem::path& from, const std::filesystem::path& to);

// Makes the names in a folder durable.
void fsync_folder(const std::filesystem::path& folder);

// Makes a folder and those above it.
void make_folders(const std::filesystem::path& folder);

// A file mapped for reading; it must not shrink while it is mapped.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const uint8_t* data() const { return data_; }  // null for an empty file
  uint64_t size() const { return size_; }
  const std::filesystem::path& path() const { return path_; }
  // Takes these bytes out of this process's memory; the next look at them maps them again.
  void release(uint64_t begin, uint64_t end) const;

 private:
  std::filesystem::path path_;
  const uint8_t* data_ = nullptr;
  uint64_t size_ = 0;
};

constexpr size_t kDirectAlignment = 4096;  // of memory and sizes

// A file written piece by piece that appears under its name at commit(). Without it nothing is
// left.
class OutputFile {
 public:
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void write(const void* bytes, size_t count);
  void write(std::string_view bytes) { write(bytes.data(), bytes.size()); }
  // The whole file at once, past the page cache where the file system has a way: a third of the
  // processor time, and what others keep in memory stays there. REQUIRES: nothing was written, and
  // `bytes` lies at a multiple of kDirectAlignment.
  void write_direct(const void* bytes, size_t count);
  void commit();  // fsync, rename, fsync of the folder

 private:
  std::filesystem::path path_, temporary_;
  int file_ = -1;
};

// A folder that is filled under a temporary name beside `target` and takes its place at commit().
// What lay at `target` is removed only then; without commit() it stays as it was.
class StagedFolder {
 public:
  explicit StagedFolder(const std::filesystem::path& target);
  ~StagedFolder();
  StagedFolder(const StagedFolder&) = delete;
  StagedFolder& operator=(const StagedFolder&) = delete;

  const std::filesystem::path& path() const { return staged_; }  // where to write
  void commit();

 private:
  std::filesystem::path target_, staged_;
};

}  // namespace zebra
