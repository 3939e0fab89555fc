// report.html of a run folder: one page without scripts or other files.
#pragma once

#include <filesystem>

namespace zebra {

// Makes report.html from summary.json, metrics.jsonl, recipe.resolved.yaml and init_report.json of
// the folder; what is missing leaves its section out. Replaces the page in one go.
void write_report(const std::filesystem::path& run_folder);

}  // namespace zebra
