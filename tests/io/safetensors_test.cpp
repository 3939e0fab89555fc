#include "zebra/safetensors.h"

#include "support/testing.h"

#include <cstring>
#include <fstream>

#include "base/file.h"
#include "support/close_to.h"
#include "support/file_limit.h"
#include "support/temp_dir.h"
#include "zebra/error.h"

namespace fs = std::filesystem;
using namespace zebra;
using zebra::testing::ContainsSubstring;
using zebra::testing::TempDir;

namespace {

using Tensors = std::map<std::string, at::Tensor>;

std::string with_length(const std::string& header, const std::string& data = "") {
  std::string bytes(8, '\0');
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<char>(header.size() >> (8 * i));
  return bytes + header + data;
}

// One float32 tensor 'w' of shape [2] whose description is `fields`.
std::string with_fields(const std::string& fields) {
  return with_length("{\"w\":{" + fields + "}}", std::string(8, '\0'));
}

void check_refused(const std::string& bytes, const std::string& text) {
  const TempDir folder;
  write_file_atomic(folder / "bad.safetensors", bytes);
  INFO(bytes.substr(0, 200));
  CHECK_THROWS_WITH(
      SafetensorsFile(folder / "bad.safetensors"),
      ContainsSubstring((folder / "bad.safetensors").string()) && ContainsSubstring(text));
  CHECK_THROWS_AS(SafetensorsFile(folder / "bad.safetensors"), ConfigError);
}

void check_same(const at::Tensor& actual, const at::Tensor& expected) {
  REQUIRE(actual.scalar_type() == expected.scalar_type());
  REQUIRE(actual.sizes() == expected.sizes());
  if (expected.numel() == 0) return;
  CHECK(std::memcmp(actual.contiguous().data_ptr(), expected.contiguous().data_ptr(),
                    expected.nbytes()) == 0);
}

}  // namespace

TEST_CASE("safetensors: every dtype and odd shapes come back to the same bits") {
  const TempDir folder;
  Tensors tensors;
  for (const auto dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt,
                           at::kShort, at::kChar, at::kByte, at::kBool}) {
    tensors[std::string("t.") + c10::toString(dtype)] = (torch::randn({3, 5}) * 50).abs().to(dtype);
  }
  tensors["scalar"] = torch::tensor(2.5);
  tensors["empty"] = torch::empty({0, 7});
  tensors["transposed"] = torch::randn({4, 6}).t();
  tensors["nan"] = torch::tensor({NAN, INFINITY, -0.0f});
  tensors["name with \"quotes\", \xc3\xa4 and \n"] = torch::ones({1, 1, 1, 1, 1});
  const std::map<std::string, std::string> metadata = {{"format", "pt"}, {"note", "a\"b"}};
  write_safetensors(folder / "t.safetensors", tensors, metadata);

  const SafetensorsFile file(folder / "t.safetensors");
  CHECK(file.metadata() == metadata);
  CHECK(file.tensors().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    INFO(name);
    check_same(file.read(name), tensor);
  }
  CHECK_THROWS_WITH(file.read("none"), ContainsSubstring("t.safetensors: expected tensor 'none'"));
}

TEST_CASE("safetensors: the data part of a written file begins at a multiple of eight") {
  const TempDir folder;
  for (int length = 1; length < 20; ++length) {
    write_safetensors(folder / "t.safetensors", {{std::string(length, 'n'), torch::ones({3})}});
    const std::string bytes = read_file(folder / "t.safetensors");
    CHECK((bytes.size() - 12) % 8 == 0);
    CHECK(static_cast<uint8_t>(bytes[0]) % 8 == 0);
  }
}

TEST_CASE("safetensors: a file without tensors is valid") {
  const TempDir folder;
  write_safetensors(folder / "t.safetensors", {});
  CHECK(SafetensorsFile(folder / "t.safetensors").tensors().empty());
  write_file_atomic(folder / "spaces.safetensors", with_length("{}     "));
  CHECK(SafetensorsFile(folder / "spaces.safetensors").tensors().empty());
}

TEST_CASE("safetensors: unaligned data of other writers is read") {
  const TempDir folder;
  const float values[2] = {1.5f, -2.0f};
  const std::string data(reinterpret_cast<const char*>(values), sizeof values);
  write_file_atomic(
      folder / "t.safetensors",
      with_length(R"({"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}} )", data));
  check_same(SafetensorsFile(folder / "t.safetensors").read("w"), torch::tensor({1.5f, -2.0f}));
}

TEST_CASE("safetensors: a bool byte other than 0 and 1 reads as true") {
  const TempDir folder;
  write_file_atomic(folder / "t.safetensors",
                    with_length(R"({"w":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}})",
                                std::string("\0\x01\x07", 3)));
  check_same(SafetensorsFile(folder / "t.safetensors").read("w"),
             torch::tensor({false, true, true}));
}

TEST_CASE("safetensors: a header that lies is refused with file, tensor and numbers") {
  const std::string good = R"("dtype":"F32","shape":[2],"data_offsets":[0,8])";
  {
    const TempDir folder;  // the bad ones below differ from this one
    write_file_atomic(folder / "g.safetensors", with_fields(good));
    CHECK(SafetensorsFile(folder / "g.safetensors").tensors().size() == 1);
  }
  check_refused("", "got 0 bytes");
  check_refused("1234567", "got 7 bytes");
  check_refused(with_length("{}").substr(0, 9), "expected a header of 2 bytes, got 1");
  check_refused(std::string(8, '\xff'), "at most 100000000 bytes, got 18446744073709551615");
  check_refused(with_length("{"), "header");
  check_refused(with_length("[]"), "expected an object, got array");
  check_refused(with_length(""), "header");
  check_refused(with_length("{\"\xff\":1}"), "header");
  check_refused(with_length("{\"w\":3}"), "tensor 'w': expected an object");
  check_refused(with_length("{\"w\":" + std::string(1000, '[') + "}"), "nested deeper");
  check_refused(with_fields(good + ",\"dtype\":\"F32\""), "'dtype' stands there twice");
  check_refused(with_length("{\"w\":{" + good + "},\"w\":{" + good + "}}", std::string(8, ' ')),
                "'w' stands there twice");
  check_refused(with_fields(R"("shape":[2],"data_offsets":[0,8])"),
                "'w': expected the key 'dtype'");
  check_refused(with_fields(R"("dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8])"), "F8_E4M3");
  check_refused(with_fields(R"("dtype":32,"shape":[2],"data_offsets":[0,8])"), "dtype");
  check_refused(with_fields(R"("dtype":"F32","shape":[2.0],"data_offsets":[0,8])"), "shape");
  check_refused(with_fields(R"("dtype":"F32","shape":[-2],"data_offsets":[0,8])"), "shape");
  check_refused(with_fields(R"("dtype":"F32","shape":2,"data_offsets":[0,8])"), "shape");
  check_refused(with_fields(R"("dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,8])"),
                "too large");
  check_refused(
      with_fields(R"("dtype":"F32","shape":[4294967296,4294967297],"data_offsets":[0,8])"),
      "too large");
  check_refused(with_fields(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])"),
                "tensor 'w': data_offsets: expected 12 bytes for shape [3] of F32, got 8");
  check_refused(with_fields(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])"), "data_offsets");
  check_refused(with_fields(R"("dtype":"F32","shape":[2],"data_offsets":[0,16])"),
                "expected at most 8");
  check_refused(with_fields(R"("dtype":"F32","shape":[2],"data_offsets":[0])"), "data_offsets");
  check_refused(with_fields(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"),
                "expected 4 bytes of data, got 8");
  check_refused(with_fields(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), "a gap");
  check_refused(with_length(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
                            R"("b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})",
                            std::string(8, ' ')),
                "'b': expected data from byte 8, got 4 (an overlap)");
  check_refused(with_length(R"({"__metadata__":{"a":1}})"), "__metadata__: a: expected a string");
  check_refused(with_length(R"({"__metadata__":[]})"), "__metadata__");
}

// Opens and, where that succeeds, reads everything. Anything but success and ConfigError fails.
void exercise(const fs::path& path) {
  try {
    const SafetensorsFile file(path);
    for (const auto& [name, info] : file.tensors()) file.read(name);
  } catch (const ConfigError&) {
  }
}

TEST_CASE("safetensors: a file cut at any byte is refused") {
  const TempDir folder;
  write_safetensors(folder / "t.safetensors",
                    {{"a", torch::randn({2, 3})}, {"b", torch::ones({5})}}, {{"format", "pt"}});
  const std::string bytes = read_file(folder / "t.safetensors");
  for (size_t length = 0; length < bytes.size(); ++length) {
    INFO("cut to " << length);
    std::ofstream(folder / "cut", std::ios::binary) << bytes.substr(0, length);
    CHECK_THROWS_AS(SafetensorsFile(folder / "cut"), ConfigError);
  }
  std::ofstream(folder / "long", std::ios::binary) << bytes << 'x';
  CHECK_THROWS_AS(SafetensorsFile(folder / "long"), ConfigError);
}

TEST_CASE("safetensors: any byte of the header changed gives an error or a file that can be read") {
  const TempDir folder;
  write_safetensors(
      folder / "t.safetensors",
      {{"a", torch::ones({2, 3}).to(at::kHalf)}, {"b", torch::ones({4}).to(at::kBool)}},
      {{"k", "v"}});
  const std::string bytes = read_file(folder / "t.safetensors");
  const size_t header = bytes.size() - 12 - 4;
  for (size_t at = 0; at < header; ++at) {
    for (const int change : {0x01, 0x04, 0x20, 0x80, 0xff}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ change);
      std::ofstream(folder / "changed", std::ios::binary) << changed;
      INFO("byte " << at << " changed by " << change);
      CHECK_NOTHROW(exercise(folder / "changed"));
    }
    for (const char digit : {'9', '-', '"', '}', '{', '['}) {
      std::string changed = bytes;
      changed[at] = digit;
      std::ofstream(folder / "changed", std::ios::binary) << changed;
      CHECK_NOTHROW(exercise(folder / "changed"));
    }
  }
}

TEST_CASE("safetensors: a full disk is a ConfigError and the old file stays") {
  const TempDir folder;
  write_safetensors(folder / "t.safetensors", {{"old", torch::ones({4})}});
  {
    const testing::FileSizeLimit limit(4096);
    CHECK_THROWS_WITH(write_safetensors(folder / "t.safetensors", {{"new", torch::ones({5000})}}),
                      ContainsSubstring((folder / "t.safetensors").string()));
  }
  CHECK(SafetensorsFile(folder / "t.safetensors").tensors().contains("old"));
  CHECK(!fs::exists(folder / "t.safetensors.tmp"));
}

TEST_CASE("safetensors: a dtype that the format lacks is refused with the tensor's name") {
  const TempDir folder;
  CHECK_THROWS_WITH(write_safetensors(folder / "t", {{"z", torch::zeros({2}, at::kComplexFloat)}}),
                    ContainsSubstring("'z'"));
}
