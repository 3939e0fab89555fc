// metrics.jsonl as curves.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "train/report_svg.h"

namespace zebra {

// What one stage wrote. "ild.mla" and "ild.mamba2" are variants "mla" and "mamba2" of "ild".
struct StageCurves {
  std::string stage;
  std::vector<std::string> variants;  // "" when there is only one
  std::vector<std::string> keys;      // loss, learning rate, gradient norm first; speed last
  // curves[key][variant]: values over steps; values that are not finite are left out
  std::map<std::string, std::map<std::string, std::vector<Point>>> curves;
};

// Stages in the order of their first line. A missing file is empty. A last line without its end is
// left out (the run is being written or was killed); any other bad line is a ConfigError.
std::vector<StageCurves> read_metrics(const std::filesystem::path& path);

}  // namespace zebra
