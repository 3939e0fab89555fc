#include "base/watchdog.h"

#include <cxxabi.h>
#include <execinfo.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <memory>

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/signals.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr int kGaveUp = 70;
constexpr int kMaxDepth = 64;
constexpr auto kTick = std::chrono::milliseconds(200);

// One thread at a time writes its stack here, from a signal handler: addresses only, for nothing
// else may be done there.
struct Sample {
  std::array<void*, kMaxDepth> frames{};
  std::atomic<int> depth{0};
  std::atomic<bool> done{false};
};
Sample sample;
std::atomic<bool> asked_for_stacks{false};

int sample_signal() { return SIGRTMIN + 5; }

extern "C" void sample_stack(int) {
  sample.depth.store(::backtrace(sample.frames.data(), kMaxDepth));
  sample.done.store(true);
}

extern "C" void ask_for_stacks(int) { asked_for_stacks.store(true); }

void install(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

// "zebra(_ZN5zebra3runEv+0x12) [0x55..]" with the name as it stands in the source
std::string readable(const std::string& symbol) {
  const auto open = symbol.find('('), plus = symbol.find('+', open);
  if (open == std::string::npos || plus == std::string::npos || plus == open + 1) return symbol;
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> name(
      abi::__cxa_demangle(symbol.substr(open + 1, plus - open - 1).c_str(), nullptr, nullptr,
                          &status),
      std::free);
  return status == 0 ? symbol.substr(0, open + 1) + name.get() + symbol.substr(plus) : symbol;
}

std::string frames_text(void* const* frames, int depth) {
  const std::unique_ptr<char*, void (*)(void*)> symbols(::backtrace_symbols(frames, depth),
                                                        std::free);
  std::string text;
  for (int i = 0; i < depth; ++i) {
    text += str("    ", symbols ? readable(symbols.get()[i]) : "?", "\n");
  }
  return text;
}

std::string name_of_thread(pid_t thread) {
  std::ifstream in(str("/proc/self/task/", thread, "/comm"));
  std::string name;
  std::getline(in, name);
  return name;
}

// Asks a thread for its stack and waits a second; a thread in the middle of a system call that
// cannot be disturbed does not answer.
std::string stack_of(pid_t thread) {
  constexpr int kMilliseconds = 1000;
  sample.done.store(false);
  if (::syscall(SYS_tgkill, ::getpid(), thread, sample_signal()) != 0) return "";  // has ended
  for (int waited = 0; waited < kMilliseconds && !sample.done.load(); ++waited) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  if (!sample.done.load()) return "    no answer: waits inside the system\n";
  return frames_text(sample.frames.data(), sample.depth.load());
}

}  // namespace

std::string stacks_of_all_threads() {
  static std::mutex one_at_a_time;
  const std::lock_guard lock(one_at_a_time);
  void* warm_up[1];
  ::backtrace(warm_up, 1);  // loads what it needs, which a handler must not
  install(sample_signal(), sample_stack);
  std::string text;
  for (const auto& item : fs::directory_iterator("/proc/self/task")) {
    const auto thread = static_cast<pid_t>(std::stol(item.path().filename().string()));
    const auto name = name_of_thread(thread);  // before it may end
    text += str("  thread ", thread, " (", name, ")\n", stack_of(thread));
  }
  return text;
}

Watchdog::Watchdog(WatchdogOptions options) : options_(std::move(options)) {
  if (!options_.on_hang) options_.on_hang = [] { std::_Exit(kGaveUp); };
  install(SIGQUIT, ask_for_stacks);
  stop_requested();  // the silence counts from here
  thread_ = std::thread([this] { watch(); });
}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    end_ = true;
  }
  wake_.notify_all();
  thread_.join();
  std::signal(SIGQUIT, SIG_DFL);
}

void Watchdog::doing(const std::string& what) {
  const std::lock_guard lock(mutex_);
  doing_ = what;
}

void Watchdog::write_heartbeat() const {
  const auto time = std::chrono::system_clock::now().time_since_epoch();
  const json sign = {{"unix_time", std::chrono::duration<double>(time).count()},
                     {"pid", ::getpid()},
                     {"doing", doing_},
                     {"silent_seconds", seconds_since_asked()}};
  std::error_code ignored;  // a full disk stops the job elsewhere, with a better message
  const fs::path temporary = options_.heartbeat.string() + ".tmp";
  std::ofstream(temporary) << sign.dump() << "\n";
  fs::rename(temporary, options_.heartbeat, ignored);
}

void Watchdog::watch() {
  using Clock = std::chrono::steady_clock;
  auto next = Clock::now();
  std::unique_lock lock(mutex_);
  while (!wake_.wait_for(lock, kTick, [this] { return end_; })) {
    const auto now = Clock::now();
    if (options_.heartbeat_seconds > 0 && now >= next) {
      write_heartbeat();
      next = now + std::chrono::duration_cast<Clock::duration>(
                       std::chrono::duration<double>(options_.heartbeat_seconds));
    }
    const double silent = seconds_since_asked();
    const bool hangs = options_.hang_seconds > 0 && silent > options_.hang_seconds;
    if (!hangs && !asked_for_stacks.exchange(false)) continue;
    const std::string where = str(options_.who, options_.who.empty() ? "" : ", ", doing_);
    const std::string stacks = stacks_of_all_threads();
    if (!hangs) {
      log_info(str(where, ": stacks of all threads\n", stacks));
      continue;
    }
    log_warning(str(where, ": hangs: nothing moved for ", static_cast<int64_t>(silent),
                    " s; stacks of all threads\n", stacks));
    options_.on_hang();
    return;
  }
}

}  // namespace zebra
