// TensorBoard's event files: records of protocol buffers, written by hand.
#pragma once

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace zebra {

// CRC-32C (Castagnoli) of bytes, and TensorFlow's masked form of it.
uint32_t crc32c(std::string_view bytes);
uint32_t masked_crc32c(std::string_view bytes);

// One record of a TFRecord file: length, its checksum, the bytes, their checksum.
std::string tf_record(std::string_view bytes);

// Serialised tensorflow.Event messages. Times are seconds since 1970.
std::string version_event(double wall_time);
std::string scalars_event(double wall_time, int64_t step,
                          const std::vector<std::pair<std::string, double>>& values);
// Tells TensorBoard to forget what it has of `step` and later.
std::string restart_event(double wall_time, int64_t step);

// An event file of its own in `folder`, which TensorBoard shows as one run.
class EventWriter {
 public:
  // Whatever earlier files of the folder hold of step `first_step` and later counts no more.
  EventWriter(const std::filesystem::path& folder, int64_t first_step);

  // One point on the curve of each name. Values that are not finite are written as they are.
  void write(int64_t step, const std::vector<std::pair<std::string, double>>& values);

 private:
  struct Close {
    void operator()(std::FILE* file) const { std::fclose(file); }
  };

  void put(const std::string& event);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

}  // namespace zebra
