// Ranks of a job as threads of the test, for code that only needs to be told who it is.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "zebra/checkpoint.h"

namespace zebra::testing {

class ThreadRanks {
 public:
  explicit ThreadRanks(int64_t world) : texts_(world), world_(world) {}

  RankExchange of(int64_t rank) {
    return {.rank = rank, .world = world_, .exchange = [this, rank](const std::string& text) {
              return meet(rank, text);
            }};
  }

  // Runs `body(exchange)` on every rank and returns what each threw.
  std::vector<std::exception_ptr> run(const std::function<void(const RankExchange&)>& body) {
    std::vector<std::exception_ptr> thrown(static_cast<size_t>(world_));
    std::vector<std::thread> threads;
    for (int64_t rank = 0; rank < world_; ++rank) {
      threads.emplace_back([&, rank] {
        try {
          body(of(rank));
        } catch (...) {
          thrown[static_cast<size_t>(rank)] = std::current_exception();
        }
      });
    }
    for (auto& thread : threads) thread.join();
    return thrown;
  }

 private:
  std::vector<std::string> meet(int64_t rank, const std::string& text) {
    std::unique_lock lock(mutex_);
    texts_[static_cast<size_t>(rank)] = text;
    const int64_t round = round_;
    if (++here_ == world_) {
      told_ = texts_;
      here_ = 0;
      ++round_;
      all_here_.notify_all();
    } else {
      all_here_.wait(lock, [&] { return round_ != round; });
    }
    return told_;
  }

  std::mutex mutex_;
  std::condition_variable all_here_;
  std::vector<std::string> texts_, told_;
  int64_t world_, here_ = 0, round_ = 0;
};

// Runs without an exception on every rank, or throws the first.
inline void run_ranks(int64_t world, const std::function<void(const RankExchange&)>& body) {
  for (const auto& thrown : ThreadRanks(world).run(body)) {
    if (thrown) std::rethrow_exception(thrown);
  }
}

}  // namespace zebra::testing
