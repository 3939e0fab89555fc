#include <cstdio>
#include <map>
#include <tuple>

#include "cli/bench/generate.h"
#include "train/report_style.h"
#include "train/report_svg.h"

namespace zebra {

namespace {

std::string fixed(double value, int decimals) {
  char text[48];
  std::snprintf(text, sizeof text, "%.*f", decimals, value);
  return text;
}

double place(const GenerationSweep& sweep, const GenerationPoint& point) {
  return static_cast<double>(sweep.varied == "batch" ? point.speed.batch
                                                     : point.load.prompt_tokens);
}

std::string chart(const GenerationSweep& sweep, const std::string& title,
                  double (*value)(const GenerationPoint&)) {
  std::map<std::string, Series> series;
  for (const auto& point : sweep.points) {
    auto& own = series[point.model];
    own.name = point.model;
    if (value(point) > 0) own.points.push_back({place(sweep, point), value(point)});
  }
  Chart drawing{.title = title, .x_label = sweep.varied, .series = {}, .may_be_logarithmic = true};
  for (auto& [name, own] : series) {
    if (!own.points.empty()) drawing.series.push_back(std::move(own));
  }
  return line_chart(drawing);
}

std::string row(const GenerationPoint& point) {
  const auto& [load, speed] = std::tie(point.load, point.speed);
  std::string cells = "<td>" + escape_html(point.model) + "</td>";
  const double mib = static_cast<double>(speed.cache_bytes) / (1024.0 * 1024.0);
  for (const auto& cell :
       {std::to_string(speed.batch), std::to_string(load.prompt_tokens),
        fixed(speed.prefill_tokens_per_second, 1), fixed(speed.decode_tokens_per_second, 1),
        speed.cache_bytes > 0 ? fixed(mib, 2) : std::string("-")}) {
    cells += "<td>" + cell + "</td>";
  }
  return "<tr>" + cells + "</tr>\n";
}

std::string table(const GenerationSweep& sweep) {
  std::string rows;
  for (const auto& point : sweep.points) rows += row(point);
  return "<div class=\"scroll\"><table><thead><tr><th>model</th><th>batch</th><th>context</th>"
         "<th>prefill tokens/s</th><th>decode tokens/s</th><th>cache MiB</th></tr></thead><tbody>" +
         rows + "</tbody></table></div>\n";
}

}  // namespace

std::string generation_page(const std::vector<GenerationSweep>& sweeps, const std::string& about) {
  std::string page =
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
      "<title>zebra bench generate</title><style>" +
      std::string(kReportStyle) +
      "</style></head><body>\n<h1>Generation</h1>\n<p class=\"about\">" + escape_html(about) +
      "</p>\n";
  for (const auto& sweep : sweeps) {
    page += "<h2>" + escape_html(sweep.title) + "</h2>\n<div class=\"charts\">\n";
    page += chart(sweep, "decode, tokens/s",
                  [](const GenerationPoint& p) { return p.speed.decode_tokens_per_second; });
    page += chart(sweep, "prefill of a row, tokens/s",
                  [](const GenerationPoint& p) { return p.speed.prefill_tokens_per_second; });
    page += chart(sweep, "caches, bytes", [](const GenerationPoint& p) {
      return static_cast<double>(p.speed.cache_bytes);
    });
    page += "</div>\n" + table(sweep);
  }
  return page + "</body></html>\n";
}

}  // namespace zebra
