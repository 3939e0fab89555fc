#include "train/report_svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <sstream>

#include "zebra/error.h"

namespace zebra {

namespace {

constexpr size_t kBuckets = 72, kWideBuckets = 150;
constexpr double kLogarithmicFrom = 20.0;  // greatest over least value

// printf for one number.
std::string number(const char* format, double value) {
  char text[48];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

std::string px(double value) { return number("%.1f", value); }

// Neighbouring points, by x.
struct Bucket {
  double x = 0, mean = 0, low = 0, high = 0;
};

std::vector<Bucket> bucketed(const std::vector<Point>& points, size_t most) {
  std::vector<Bucket> buckets;
  const size_t count = std::min(most, points.size());
  for (size_t i = 0; i < count; ++i) {
    const size_t begin = i * points.size() / count, end = (i + 1) * points.size() / count;
    Bucket bucket{.low = points[begin].y, .high = points[begin].y};
    for (size_t p = begin; p < end; ++p) {
      bucket.x += points[p].x;
      bucket.mean += points[p].y;
      bucket.low = std::min(bucket.low, points[p].y);
      bucket.high = std::max(bucket.high, points[p].y);
    }
    bucket.x /= static_cast<double>(end - begin);
    bucket.mean /= static_cast<double>(end - begin);
    buckets.push_back(bucket);
  }
  return buckets;
}

// 1, 2 or 5 times a power of ten, so that a range has about `count` steps.
double nice_step(double range, int count) {
  const double rough = range / count;
  const double power = std::pow(10.0, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough * 0.999) return factor * power;
  }
  return 10 * power;
}

// Maps values to pixels and knows where the ticks are.
struct Axis {
  double low = 0, high = 1;  // of the values
  double from = 0, to = 1;   // pixels at low and high
  bool logarithmic = false;

  double place(double value) const {
    const auto f = [&](double v) { return logarithmic ? std::log10(v) : v; };
    return from + (f(value) - f(low)) / (f(high) - f(low)) * (to - from);
  }

  std::vector<double> ticks(int count) const {
    std::vector<double> values;
    if (!logarithmic) {
      const double step = nice_step(high - low, count);
      for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i) {
        values.push_back(i * step);
      }
      return values;
    }
    const bool narrow = std::log10(high / low) < 2.5;
    for (double power = std::pow(10.0, std::floor(std::log10(low))); power <= high; power *= 10) {
      for (const double factor : {1.0, 2.0, 5.0}) {
        const double value = factor * power;
        if ((narrow || factor == 1.0) && value >= low && value <= high) values.push_back(value);
      }
    }
    return values;
  }
};

struct Frame {
  double width = 340, height = 196;
  double left = 46, right = 10, top = 34, bottom = 30;
};

Frame frame_of(const Chart& chart) {
  Frame frame;
  if (chart.wide) frame.width = 700;
  return frame;
}

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void add(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
};

// Room above and below the values; a constant gets an axis too.
Axis value_axis(Range range, bool may_be_logarithmic, const Frame& frame) {
  Axis axis{.from = frame.height - frame.bottom, .to = frame.top};
  axis.logarithmic =
      may_be_logarithmic && range.low > 0 && range.high / range.low > kLogarithmicFrom;
  if (axis.logarithmic) {
    axis.low = range.low / 1.1;
    axis.high = range.high * 1.1;
    return axis;
  }
  const bool flat = range.high <= range.low;
  const double room =
      flat ? std::max(std::abs(range.high) * 0.1, 1e-9) : (range.high - range.low) * 0.05;
  axis.high = range.high + room;
  axis.low = range.low >= 0 ? std::max(0.0, range.low - room) : range.low - room;
  return axis;
}

std::string text_at(double x, double y, const char* css_class, const std::string& text) {
  return str("<text class=\"", css_class, "\" x=\"", px(x), "\" y=\"", px(y), "\">",
             escape_html(text), "</text>");
}

std::string grid(const Axis& x, const Axis& y, const Frame& frame) {
  std::string out;
  const double right = frame.width - frame.right, bottom = frame.height - frame.bottom;
  for (const double value : y.ticks(4)) {
    const auto at = px(y.place(value));
    out += str("<line class=\"grid\" x1=\"", px(frame.left), "\" x2=\"", px(right), "\" y1=\"", at,
               "\" y2=\"", at, "\"/>");
    out += text_at(frame.left - 6, y.place(value) + 3.5, "tick end", short_number(value));
  }
  for (const double value : x.ticks(frame.width > 500 ? 8 : 4)) {
    out += text_at(x.place(value), bottom + 14, "tick middle", short_number(value));
  }
  out += str("<line class=\"axis\" x1=\"", px(frame.left), "\" x2=\"", px(right), "\" y1=\"",
             px(bottom), "\" y2=\"", px(bottom), "\"/>");
  return out;
}

// A kind of layer keeps its colour; c0 is Mamba2's and c1 is MLA's.
std::string colour_of(const std::string& name, size_t index) {
  if (name == "mamba2" || name == "mla") return name == "mla" ? "c1" : "c0";
  return str("c", index % 4);
}

std::string curve(const std::vector<Bucket>& buckets, const Axis& x, const Axis& y,
                  const std::string& colour) {
  std::string line, upper, lower;
  bool spread = false;
  for (size_t i = 0; i < buckets.size(); ++i) {
    const auto at = px(x.place(buckets[i].x));
    const auto& back = buckets[buckets.size() - 1 - i];
    line += at + "," + px(y.place(buckets[i].mean)) + " ";
    upper += at + "," + px(y.place(buckets[i].high)) + " ";
    lower += px(x.place(back.x)) + "," + px(y.place(back.low)) + " ";
    spread = spread || buckets[i].high > buckets[i].low;
  }
  std::string out;
  if (spread) out += str("<polygon class=\"band ", colour, "\" points=\"", upper, lower, "\"/>");
  return out + str("<polyline class=\"line ", colour, "\" points=\"", line, "\"/>");
}

struct Curve {
  std::string name, colour;
  std::vector<Bucket> buckets;
};

// Names and latest values, from the right end of the title's line.
std::string legend(const std::vector<Curve>& curves, const Frame& frame) {
  std::string out;
  double at = frame.width - frame.right;
  for (size_t i = curves.size(); i-- > 0;) {
    const auto value = short_number(curves[i].buckets.back().mean);
    const auto text = curves.size() > 1 ? curves[i].name + " " + value : value;
    out += text_at(at, 14, ("end key " + curves[i].colour).c_str(), text);
    at -= 7.0 * static_cast<double>(text.size()) + 16;
  }
  return out;
}

}  // namespace

std::string escape_html(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string short_number(double value) {
  const double size = std::abs(value);
  if (!std::isfinite(value)) return "nan";
  if (size < 1e-15) return "0";
  if (size >= 1e9) return number("%.3g", value / 1e9) + "G";
  if (size >= 1e6) return number("%.3g", value / 1e6) + "M";
  if (size >= 1e4) return number("%.3g", value / 1e3) + "k";
  if (size >= 1e3) return number("%.0f", value);
  if (size >= 1e-3) return number("%.3g", value);
  auto text = number("%.1e", value);  // 2.0e-05
  if (const auto zero = text.find(".0e"); zero != std::string::npos) text.erase(zero, 2);
  if (const auto power = text.find("e-0"); power != std::string::npos) text.erase(power + 2, 1);
  return text;
}

std::string line_chart(const Chart& chart) {
  const Frame frame = frame_of(chart);
  std::vector<Curve> curves;
  Range xs, ys;
  for (const auto& series : chart.series) {
    if (series.points.empty()) continue;
    curves.push_back({.name = series.name,
                      .colour = colour_of(series.name, curves.size()),
                      .buckets = bucketed(series.points, chart.wide ? kWideBuckets : kBuckets)});
    for (const auto& bucket : curves.back().buckets) {
      xs.add(bucket.x);
      ys.add(bucket.low);
      ys.add(bucket.high);
    }
  }
  if (curves.empty()) return "";
  const Axis y = value_axis(ys, chart.may_be_logarithmic, frame);
  const double x_low = std::min(0.0, xs.low), x_high = std::max(xs.high, x_low + 1);
  const Axis x{.low = x_low, .high = x_high, .from = frame.left, .to = frame.width - frame.right};
  std::string out =
      str("<svg class=\"chart", chart.wide ? " wide" : "", "\" viewBox=\"0 0 ", frame.width, " ",
          frame.height, "\" role=\"img\" aria-label=\"", escape_html(chart.title), "\">");
  out += text_at(0, 14, "title", chart.title + (y.logarithmic ? " (log)" : ""));
  out += (chart.shows_latest ? legend(curves, frame) : "") + grid(x, y, frame);
  for (const auto& one : curves) out += curve(one.buckets, x, y, one.colour);
  out += text_at(frame.width - frame.right, frame.height - 3, "tick end", chart.x_label);
  return out + "</svg>\n";
}

std::string column_chart(const std::string& title, const std::vector<Bar>& bars) {
  if (bars.empty()) return "";
  Frame frame;
  frame.width = 700;
  Range range;
  range.add(0);
  for (const auto& bar : bars) range.add(bar.value);
  Axis y = value_axis(range, /*may_be_logarithmic=*/false, frame);
  if (range.low >= 0) y.low = 0;
  const double step = (frame.width - frame.left - frame.right) / static_cast<double>(bars.size());
  const double width = std::min(step * 0.7, 48.0), zero = y.place(0);
  std::string out = str("<svg class=\"chart wide\" viewBox=\"0 0 ", frame.width, " ", frame.height,
                        "\" role=\"img\" aria-label=\"", escape_html(title), "\">");
  out += text_at(0, 14, "title", title);
  out += grid(Axis{.low = 2, .high = 1, .from = 0, .to = 1}, y, frame);  // no ticks along x
  for (size_t i = 0; i < bars.size(); ++i) {
    const double middle = frame.left + (static_cast<double>(i) + 0.5) * step;
    const double end = y.place(bars[i].value);
    out += str("<rect class=\"", bars[i].marked ? "mla" : "quiet", "\" x=\"",
               px(middle - width / 2), "\" y=\"", px(std::min(end, zero)), "\" width=\"", px(width),
               "\" height=\"", px(std::max(std::abs(end - zero), 0.5)), "\"><title>",
               escape_html(bars[i].label + ": " + short_number(bars[i].value)), "</title></rect>");
    out += text_at(middle, frame.height - frame.bottom + 14, "tick middle", bars[i].label);
  }
  return out + "</svg>\n";
}

std::string bar_chart(const std::vector<Measure>& measures) {
  constexpr double kWidth = 700, kRow = 30, kLabel = 70, kLongest = 440;
  double greatest = 0;
  for (const auto& measure : measures) greatest = std::max(greatest, measure.value);
  if (!(greatest > 0)) return "";
  std::string out = str("<svg class=\"chart wide\" viewBox=\"0 0 ", kWidth, " ",
                        px(kRow * static_cast<double>(measures.size())), "\" role=\"img\">");
  for (size_t i = 0; i < measures.size(); ++i) {
    const double top = kRow * static_cast<double>(i);
    const double length = std::max(1.0, measures[i].value / greatest * kLongest);
    out += text_at(0, top + 19, "label", measures[i].label);
    out += str("<rect class=\"", measures[i].css_class, "\" x=\"", px(kLabel), "\" y=\"",
               px(top + 5), "\" width=\"", px(length), "\" height=\"", px(kRow - 10), "\"/>");
    out += text_at(kLabel + length + 8, top + 19, "label", measures[i].text);
  }
  return out + "</svg>\n";
}

std::string layer_map(const std::vector<std::string>& kinds) {
  std::string out = "<div class=\"layers\">";
  for (size_t i = 0; i < kinds.size(); ++i) {
    const auto kind = escape_html(kinds[i]);
    out += str("<span class=\"box ", kind, "\"><b>", i, "</b>", kind, "</span>");
  }
  return out + "</div>\n";
}

}  // namespace zebra
