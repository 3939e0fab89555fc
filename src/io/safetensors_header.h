// The header of a safetensors file: read with suspicion, written sorted.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "zebra/safetensors.h"

namespace zebra {

using NamedInfos = std::vector<std::pair<std::string, TensorInfo>>;

struct SafetensorsHeader {
  std::map<std::string, TensorInfo> tensors;
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // of the data part in the file
};

// `bytes` is the whole file; `where` begins the text of a ConfigError. Everything is checked
// against the file's size: afterwards each tensor's bytes lie within it.
SafetensorsHeader parse_safetensors(std::string_view bytes, const std::string& where);

// The bytes before the data part of a file that holds these tensors one after another in this
// order.
std::string make_safetensors_header(const NamedInfos& tensors,
                                    const std::map<std::string, std::string>& metadata);

// Bytes of a tensor's data. REQUIRES: a shape that was checked or is a tensor's.
uint64_t data_bytes(const TensorInfo& info);

// "BF16"; ConfigError for a dtype that the format or this program lacks, `where` before it.
std::string dtype_name(at::ScalarType dtype, const std::string& where);
at::ScalarType dtype_of_name(const std::string& text, const std::string& where);

}  // namespace zebra
