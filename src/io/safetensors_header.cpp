#include "io/safetensors_header.h"

#include <algorithm>
#include <array>
#include <limits>
#include <set>

#include "base/json.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeader = 100'000'000;  // the reference implementation's bound
constexpr int kMaxDepth = 3;                  // of {"name": {"shape": [1]}}
constexpr size_t kMaxDims = 64;               // LibTorch's bound
constexpr size_t kAlignment = 8;              // of the data part in files that we write
constexpr const char* kMetadata = "__metadata__";

constexpr std::array<std::pair<at::ScalarType, const char*>, 10> kDtypes = {{
    {at::kDouble, "F64"},
    {at::kFloat, "F32"},
    {at::kHalf, "F16"},
    {at::kBFloat16, "BF16"},
    {at::kLong, "I64"},
    {at::kInt, "I32"},
    {at::kShort, "I16"},
    {at::kChar, "I8"},
    {at::kByte, "U8"},
    {at::kBool, "BOOL"},
}};

// One thing of a file that is being read, for the text of its errors.
struct Place {
  std::string text;

  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw ConfigError(zebra::str(text, ": ", parts...));  // c10 has a str too
  }
};

uint64_t little_endian(std::string_view bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) {
    value |= static_cast<uint64_t>(static_cast<uint8_t>(bytes[i])) << (8 * i);
  }
  return value;
}

// nlohmann's parser keeps the last of two equal keys and follows any depth; neither is wanted.
class StrictParser {
 public:
  explicit StrictParser(const Place& place) : place_(place) {}

  json parse(std::string_view text) {
    const auto watch = [this](int depth, json::parse_event_t event, json& value) {
      return see(depth, event, value);
    };
    try {
      return json::parse(text, watch);
    } catch (const json::exception& error) {
      place_.fail("header: ", error.what());
    }
  }

 private:
  bool see(int depth, json::parse_event_t event, const json& value) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
      if (depth >= kMaxDepth) place_.fail("header: nested deeper than ", kMaxDepth, " levels");
      keys_.resize(static_cast<size_t>(depth) + 1);
      keys_.back().clear();
    } else if (event == json::parse_event_t::key) {
      const auto& key = value.get_ref<const std::string&>();
      if (!keys_.back().insert(key).second) place_.fail("header: '", key, "' stands there twice");
    } else if (event == json::parse_event_t::object_end ||
               event == json::parse_event_t::array_end) {
      keys_.resize(static_cast<size_t>(depth));
    }
    return true;
  }

  const Place& place_;
  std::vector<std::set<std::string>> keys_;  // of the objects that are open
};

at::ScalarType parse_dtype(const json& value, const Place& place) {
  if (!value.is_string()) place.fail("dtype: expected a string, got ", value.dump());
  return dtype_of_name(value.get_ref<const std::string&>(), place.text);
}

uint64_t parse_number(const json& value, const char* what, const Place& place) {
  if (!value.is_number_unsigned()) {
    place.fail(what, ": expected integers that are not negative, got ", value.dump());
  }
  return value.get<uint64_t>();
}

std::vector<int64_t> parse_shape(const json& value, const Place& place) {
  if (!value.is_array() || value.size() > kMaxDims) {
    place.fail("shape: expected a list of at most ", kMaxDims, " sizes, got ",
               value.is_array() ? std::to_string(value.size()) : value.dump());
  }
  std::vector<int64_t> shape;
  for (const auto& item : value) {
    const uint64_t size = parse_number(item, "shape", place);
    if (!std::in_range<int64_t>(size)) place.fail("shape: size ", size, " is too large");
    shape.push_back(static_cast<int64_t>(size));
  }
  return shape;
}

// Shape times size of an element, or an error where that is beyond 63 bits.
uint64_t checked_bytes(const TensorInfo& info, const Place& place) {
  uint64_t bytes = c10::elementSize(info.dtype);
  for (const int64_t size : info.shape) {
    if (__builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes) ||
        !std::in_range<int64_t>(bytes)) {
      place.fail("shape ", at::IntArrayRef(info.shape), " is too large");
    }
  }
  return bytes;
}

TensorInfo parse_tensor(const json& value, uint64_t data_size, const Place& place) {
  if (!value.is_object()) place.fail("expected an object, got ", value.dump());
  for (const char* key : {"dtype", "shape", "data_offsets"}) {
    if (!value.contains(key)) place.fail("expected the key '", key, "', got none");
  }
  TensorInfo info;
  info.dtype = parse_dtype(value["dtype"], place);
  info.shape = parse_shape(value["shape"], place);
  const auto& offsets = value["data_offsets"];
  if (!offsets.is_array() || offsets.size() != 2) {
    place.fail("data_offsets: expected two integers, got ", offsets.dump());
  }
  info.begin = parse_number(offsets[0], "data_offsets", place);
  info.end = parse_number(offsets[1], "data_offsets", place);
  if (info.begin > info.end || info.end > data_size) {
    place.fail("data_offsets: expected at most ", data_size, " (the size of the data part), got ",
               offsets.dump());
  }
  const uint64_t bytes = checked_bytes(info, place);
  if (info.end - info.begin != bytes) {
    place.fail("data_offsets: expected ", bytes, " bytes for shape ", at::IntArrayRef(info.shape),
               " of ", value["dtype"].get_ref<const std::string&>(), ", got ",
               info.end - info.begin);
  }
  return info;
}

// Every byte of the data part belongs to one tensor.
void check_cover(const std::map<std::string, TensorInfo>& tensors, uint64_t data_size,
                 const Place& place) {
  std::vector<std::pair<const TensorInfo*, const std::string*>> order;
  for (const auto& [name, info] : tensors) order.emplace_back(&info, &name);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::tie(a.first->begin, a.first->end) < std::tie(b.first->begin, b.first->end);
  });
  uint64_t at = 0;
  for (const auto& [info, name] : order) {
    if (info->begin != at) {
      place.fail("tensor '", *name, "': expected data from byte ", at, ", got ", info->begin,
                 info->begin < at ? " (an overlap)" : " (a gap)");
    }
    at = info->end;
  }
  if (at != data_size) {
    place.fail("expected ", at, " bytes of data, got ", data_size);
  }
}

std::map<std::string, std::string> parse_metadata(const json& value, const Place& place) {
  if (!value.is_object()) place.fail(kMetadata, ": expected an object, got ", value.dump());
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string())
      place.fail(kMetadata, ": ", key, ": expected a string, got ", text.dump());
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

}  // namespace

SafetensorsHeader parse_safetensors(std::string_view bytes, const std::string& where) {
  const Place place{where};
  if (bytes.size() < kLengthBytes) {
    place.fail("expected a safetensors file, got ", bytes.size(), " bytes");
  }
  const uint64_t length = little_endian(bytes);
  const uint64_t after = bytes.size() - kLengthBytes;
  if (length > kMaxHeader) {
    place.fail("expected a header of at most ", kMaxHeader, " bytes, got ", length);
  }
  if (length > after)
    place.fail("expected a header of ", length, " bytes, got ", after, " (truncated)");

  SafetensorsHeader header;
  header.data_begin = kLengthBytes + length;
  const uint64_t data_size = after - length;
  const json root = StrictParser(place).parse(bytes.substr(kLengthBytes, length));
  if (!root.is_object()) place.fail("header: expected an object, got ", root.type_name());
  for (const auto& [name, value] : root.items()) {
    if (name == kMetadata) {
      header.metadata = parse_metadata(value, place);
    } else {
      const Place tensor{str(where, ": tensor '", name, "'")};
      header.tensors[name] = parse_tensor(value, data_size, tensor);
    }
  }
  check_cover(header.tensors, data_size, place);
  return header;
}

std::string make_safetensors_header(const NamedInfos& tensors,
                                    const std::map<std::string, std::string>& metadata) {
  json root = json::object();
  if (!metadata.empty()) root[kMetadata] = metadata;
  uint64_t at = 0;
  for (const auto& [name, info] : tensors) {
    TORCH_CHECK(name != kMetadata && !root.contains(name), "safetensors: tensor name '", name,
                "' is reserved or stands there twice");
    const uint64_t end = at + data_bytes(info);
    root[name] = {{"dtype", dtype_name(info.dtype, "tensor '" + name + "'")},
                  {"shape", info.shape},
                  {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = root.dump();
  text.resize((text.size() + kAlignment - 1) / kAlignment * kAlignment, ' ');
  std::string length(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) {
    length[i] = static_cast<char>(static_cast<uint64_t>(text.size()) >> (8 * i));
  }
  return length + text;
}

uint64_t data_bytes(const TensorInfo& info) {
  uint64_t bytes = c10::elementSize(info.dtype);
  for (const int64_t size : info.shape) bytes *= static_cast<uint64_t>(size);
  return bytes;
}

at::ScalarType dtype_of_name(const std::string& text, const std::string& where) {
  for (const auto& [dtype, name] : kDtypes) {
    if (text == name) return dtype;
  }
  Place{where}.fail("dtype: expected F64, F32, F16, BF16, I64, I32, I16, I8, U8 or BOOL, got ",
                    text);
}

std::string dtype_name(at::ScalarType dtype, const std::string& where) {
  for (const auto& [candidate, name] : kDtypes) {
    if (candidate == dtype) return name;
  }
  throw ConfigError(
      str(where, ": dtype ", c10::toString(dtype), " cannot be stored in safetensors"));
}

}  // namespace zebra
