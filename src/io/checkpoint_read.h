// What the store needs of the reading side.
#pragma once

#include <cstdint>
#include <filesystem>

#include "io/checkpoint_files.h"

namespace zebra {

// Reads the manifest and checks those of its files whose number is `rank` modulo `world`.
// DamagedCheckpoint names what is wrong.
Manifest verify_part(const std::filesystem::path& folder, int64_t rank, int64_t world);

}  // namespace zebra
