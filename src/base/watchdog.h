// Notices that a job hangs, and tells where.
#pragma once

#include <condition_variable>
#include <filesystem>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace zebra {

// The call stack of every thread of this process, newest call first, as text.
std::string stacks_of_all_threads();

struct WatchdogOptions {
  double hang_seconds = 0;          // silence after which the process counts as hanging; 0: never
  double heartbeat_seconds = 0;     // between two signs of life in the file; 0: none
  std::filesystem::path heartbeat;  // file, replaced each time
  std::string who;                  // "rank 3", for the messages
  // What to do about a hang, once it has been told; by default the process ends with code 70.
  std::function<void()> on_hang = {};
};

// A thread that watches whether this process's loops still ask if they are to stop (signals.h).
// When none has for `hang_seconds` it logs the stacks of all threads and ends the process: what
// hangs cannot be asked to. It also leaves a sign of life in a file, and answers SIGQUIT with the
// stacks, after which the job goes on.
class Watchdog {
 public:
  explicit Watchdog(WatchdogOptions options);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // What the job is doing, for the sign of life and the messages.
  void doing(const std::string& what);

 private:
  void watch();
  void write_heartbeat() const;

  WatchdogOptions options_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::string doing_;
  bool end_ = false;
  std::thread thread_;
};

}  // namespace zebra
