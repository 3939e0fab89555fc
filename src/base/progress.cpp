#include "base/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/log.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr auto kTerminalPeriod = std::chrono::milliseconds(100);
constexpr auto kPlainPeriod = std::chrono::seconds(10);
constexpr auto kRecent = std::chrono::seconds(30);  // what the rate is averaged over
constexpr auto kSample = std::chrono::milliseconds(100);

double seconds(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

// 8812.4 -> "8,812"
std::string grouped(double value) {
  std::string digits = std::to_string(std::llround(value));
  for (auto at = static_cast<int64_t>(digits.size()) - 3; at > 0; at -= 3) {
    digits.insert(static_cast<size_t>(at), 1, ',');
  }
  return digits;
}

// 62 -> "1:02", 3662 -> "1:01:02"
std::string clock_text(double value) {
  const int64_t total = std::llround(value);
  char text[32];
  if (total < 3600) {
    std::snprintf(text, sizeof text, "%d:%02d", static_cast<int>(total / 60),
                  static_cast<int>(total % 60));
  } else {
    std::snprintf(text, sizeof text, "%lld:%02d:%02d", static_cast<long long>(total / 3600),
                  static_cast<int>(total / 60 % 60), static_cast<int>(total % 60));
  }
  return text;
}

}  // namespace

std::string progress_text(const ProgressFacts& facts) {
  const auto total = std::max<int64_t>(facts.total_steps, 1);
  const auto percent = std::clamp<int64_t>(100 * facts.step / total, 0, 100);
  std::string text = str(facts.title,
                         percent < 10    ? "   "
                         : percent < 100 ? "  "
                                         : " ",
                         percent, "% ", facts.step, "/", facts.total_steps);
  if (facts.tokens_per_second >= 0) text += str("  ", grouped(facts.tokens_per_second), " tok/s");
  text += str("  ", clock_text(facts.elapsed), " elapsed");
  if (facts.left >= 0) text += str(", ", clock_text(facts.left), " left");
  if (!facts.detail.empty()) text += "  " + facts.detail;
  return text;
}

Progress::Progress(std::string title, int64_t total_steps, double tokens_per_step)
    : title_(std::move(title)),
      total_steps_(total_steps),
      tokens_per_step_(tokens_per_step),
      terminal_(::isatty(STDERR_FILENO) == 1 && logs_to_stderr()),
      start_(Clock::now()),
      shown_(start_) {}

Progress::~Progress() {
  if (open_) std::fputs("\r\x1b[K", stderr);
}

void Progress::update(int64_t step, const std::string& detail) {
  const auto now = Clock::now();
  step_ = step;
  if (recent_.empty()) {
    // The first step of a resumed loop: the one before it was done when this loop began.
    recent_.emplace_back(start_, std::max<int64_t>(step - 1, 0));
  }
  if (recent_.size() < 2 || now - recent_.back().first >= kSample) recent_.emplace_back(now, step);
  while (recent_.size() > 2 && now - recent_[1].first > kRecent) recent_.pop_front();
  detail_ = detail;
  const Clock::duration period = terminal_ ? Clock::duration(kTerminalPeriod) : kPlainPeriod;
  if (now - shown_ >= period) show(now);
}

void Progress::finish() {
  show(Clock::now());
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

ProgressFacts Progress::facts(Clock::time_point now) const {
  ProgressFacts facts{.title = title_,
                      .step = step_,
                      .total_steps = total_steps_,
                      .elapsed = seconds(now - start_),
                      .detail = detail_};
  if (recent_.empty()) return facts;
  const double time = seconds(now - recent_.front().first);
  const auto steps = static_cast<double>(step_ - recent_.front().second);
  if (time <= 0 || steps <= 0) return facts;
  if (tokens_per_step_ > 0) facts.tokens_per_second = steps * tokens_per_step_ / time;
  facts.left = static_cast<double>(std::max<int64_t>(total_steps_ - step_, 0)) * time / steps;
  return facts;
}

void Progress::show(Clock::time_point now) {
  shown_ = now;
  const std::string text = progress_text(facts(now));
  if (!terminal_) {
    log_info(text);
    return;
  }
  std::fprintf(stderr, "\r%s\x1b[K", text.c_str());
  std::fflush(stderr);
  open_ = true;
}

}  // namespace zebra
