// The drawings of report.html: text of SVG and HTML, coloured by the classes of its style sheet.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace zebra {

// Text that is safe inside elements and quoted attributes.
std::string escape_html(const std::string& text);

// A number as short as a label wants it: 0.0042, 1.25, 12,400, 3.1M, 2e-5.
std::string short_number(double value);

struct Point {
  double x = 0, y = 0;
};

struct Series {
  std::string name;  // shown when a chart has more than one
  std::vector<Point> points;
};

struct Chart {
  std::string title;
  std::string x_label;
  std::vector<Series> series;
  bool may_be_logarithmic = false;  // then a range of more than a factor 20 makes it so
  bool shows_latest = true;  // the names of the series and their latest values, in the corner
  bool wide = false;
};

// Lines over shared axes. Many points become the mean of a bucket with a band from its least to
// its greatest value.
std::string line_chart(const Chart& chart);

struct Bar {
  std::string label;
  double value = 0;
  bool marked = false;
};

// One upright bar a value, from a common zero line.
std::string column_chart(const std::string& title, const std::vector<Bar>& bars);

// One lying bar a value, none negative; `text` of each is written behind it.
struct Measure {
  std::string label, text, css_class;
  double value = 0;
};
std::string bar_chart(const std::vector<Measure>& measures);

// A box a layer, in their order.
std::string layer_map(const std::vector<std::string>& kinds);

}  // namespace zebra
