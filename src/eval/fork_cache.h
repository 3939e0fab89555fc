// Several sequences out of one: a cache whose rows are copies of another's.
#pragma once

#include <cstdint>
#include <vector>

#include "zebra/model.h"

namespace zebra {

// Row i of the result is row rows[i] of `cache`.
ModelCache fork_cache(const ModelCache& cache, const std::vector<int64_t>& rows);

}  // namespace zebra
