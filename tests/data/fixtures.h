// Files and a tokenizer for the tests of src/data.
#pragma once

#include <unistd.h>

#include <fstream>
#include <string>

#include "support/testing.h"
#include "zebra/dataset.h"
#include "zebra/error.h"

namespace zebra::testing {

// A folder that goes away with its object.
class Folder {
 public:
  Folder() {
    std::string name = (std::filesystem::temp_directory_path() / "zebra-data-XXXXXX").string();
    TORCH_CHECK(mkdtemp(name.data()) != nullptr, "no folder for a test");
    path_ = name;
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string path(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& content) const {
    std::ofstream(path(name), std::ios::binary) << content;
    return path(name);
  }

 private:
  std::filesystem::path path_;
};

// One id a byte, its value + 3; 0 is unknown, 1 BOS, 2 EOS.
class ByteTokenizer : public Tokenizer {
 public:
  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int64_t> ids;
    for (const char c : text) ids.push_back(static_cast<unsigned char>(c) + 3);
    return ids;
  }
  Encoding encode_with_spans(std::string_view text) const override {
    Encoding result{.ids = encode(text), .spans = {}};
    for (size_t i = 0; i < text.size(); ++i) result.spans.push_back({i, i + 1});
    return result;
  }
  std::string decode(const std::vector<int64_t>& ids) const override {
    std::string text;
    for (const auto id : ids) {
      if (id >= 3) text += static_cast<char>(id - 3);
    }
    return text;
  }
  std::string decode_with_special(const std::vector<int64_t>& ids) const override {
    return decode(ids);
  }
  int64_t vocab_size() const override { return 259; }
  int64_t bos_id() const override { return 1; }
  int64_t eos_id() const override { return 2; }
  bool adds_bos() const override { return bos_id() >= 0; }
  bool adds_eos() const override { return false; }
  std::string piece(int64_t id) const override { return decode({id}); }
  int64_t id_of(std::string_view piece) const override {
    return piece.size() == 1 ? encode(piece)[0] : -1;
  }
  bool is_special(int64_t id) const override { return id < 3; }
  uint64_t hash() const override { return 1; }
};

inline std::vector<int64_t> values(const torch::Tensor& tensor) {
  const auto flat = tensor.to(torch::kInt64).contiguous();
  return {flat.data_ptr<int64_t>(), flat.data_ptr<int64_t>() + flat.numel()};
}

// The text of the ConfigError that `action` throws, or "" if it throws none.
template <class Action>
std::string config_error(Action&& action) {
  try {
    action();
  } catch (const ConfigError& error) {
    return error.what();
  }
  return "";
}

}  // namespace zebra::testing
