// The progress line of a long loop.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>

namespace zebra {

// What a progress line shows. Rates and times are negative where they are not known yet.
struct ProgressFacts {
  std::string title;
  int64_t step = 0, total_steps = 0;
  double tokens_per_second = -1;  // recent average
  double elapsed = 0;             // seconds
  double left = -1;               // seconds
  std::string detail;
};

// "distill  42% 105/250  8,812 tok/s  1:02 elapsed, 1:25 left  loss 1.234"
std::string progress_text(const ProgressFacts& facts);

// Shows how far a loop is: on a terminal one line that is rewritten at most ten times a second,
// else a log line every ten seconds, also of a rank that logs to its file only. `update` is cheap
// enough for every step. Not thread-safe.
class Progress {
 public:
  // `tokens_per_step` 0: no tokens/s is shown.
  Progress(std::string title, int64_t total_steps, double tokens_per_step);
  ~Progress();  // takes away a line that was not finished: the loop's news is elsewhere
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `step` steps are done. A loop that was resumed starts its first update above zero; the rate
  // counts from there.
  void update(int64_t step, const std::string& detail);

  // Shows the last state, whatever the time, and ends the line.
  void finish();

 private:
  using Clock = std::chrono::steady_clock;

  ProgressFacts facts(Clock::time_point now) const;
  void show(Clock::time_point now);

  std::string title_, detail_;
  int64_t total_steps_;
  double tokens_per_step_;
  bool terminal_;
  bool open_ = false;  // the terminal's line is not ended
  int64_t step_ = 0;
  Clock::time_point start_, shown_;
  // (time, step) of the last half minute
  std::deque<std::pair<Clock::time_point, int64_t>> recent_;
};

}  // namespace zebra
