// SHA-256, where others' hashes are to be compared with.
#pragma once

#include <string>
#include <string_view>

namespace zebra {

std::string sha256_hex(std::string_view bytes);  // 64 lower-case digits

}  // namespace zebra
