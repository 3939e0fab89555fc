#include <c10/util/Logging.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <future>
#include <mutex>
#include <nlohmann/json.hpp>
#include <thread>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "base/signals.h"
#include "dist/backend.h"
#include "zebra/dist.h"
#include "zebra/error.h"

namespace zebra {

namespace {

using std::chrono::milliseconds;
using Json = nlohmann::json;

constexpr milliseconds kPoll{20}, kHeartbeat{1000};
constexpr milliseconds kAttempt{5000};         // to reach the store
constexpr milliseconds kStorePatience{3000};   // with a store, when the job has failed already
constexpr const char* kAlive = "alive";        // counts up while rank 0 works and others wait
constexpr const char* kFailures = "failures";  // how many ranks have failed
constexpr const char* kFailure = "failure";    // what the first of them said
constexpr const char* kProgress = "progress";  // steps made

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

std::string first_line(const std::string& text) { return text.substr(0, text.find('\n')); }

// c10d reports a lost peer in several types; all of them are std::exceptions.
template <class Call>
auto guarded(int64_t rank, const char* what, const Call& call) {
  try {
    return call();
  } catch (const PeerError&) {
    throw;
  } catch (const c10::OutOfMemoryError&) {
    throw;
  } catch (const std::exception& error) {
    throw PeerError(
        str("rank ", rank, ": lost another rank during ", what, ": ", first_line(error.what())));
  }
}

// What `call` gives; nullopt when it takes longer than `patience`, as a store in a process that is
// frozen never answers. Its thread is then left behind, for a process that is about to end.
template <class Call>
auto within(milliseconds patience, Call call) -> std::optional<decltype(call())> {
  std::packaged_task<decltype(call())()> task(std::move(call));
  auto result = task.get_future();
  std::thread(std::move(task)).detach();
  if (result.wait_for(patience) != std::future_status::ready) return std::nullopt;
  return result.get();
}

// Raises the store's counter kAlive every second, from a thread of its own.
class SignsOfLife {
 public:
  explicit SignsOfLife(c10::intrusive_ptr<c10d::Store> store) {
    thread_ = std::jthread([store = std::move(store)](const std::stop_token& stop) {
      std::mutex mutex;
      std::condition_variable_any stopped;
      std::unique_lock lock(mutex);
      try {
        while (!stopped.wait_for(lock, stop, kHeartbeat, [] { return false; }) &&
               !stop.stop_requested()) {
          store->add(kAlive, 1);
        }
      } catch (const std::exception&) {
        // The store is gone: the others will notice it by themselves.
      }
    });
  }

 private:
  std::jthread thread_;
};

c10::intrusive_ptr<c10d::Store> try_to_connect(const RankInfo& info, milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(info.port);
  options.isServer = info.rank == 0 && !info.agent_store;
  options.numWorkers = static_cast<size_t>(info.world);
  options.waitWorkers = false;
  options.timeout = timeout;
  return c10::make_intrusive<c10d::PrefixStore>(
      str("zebra/", info.restart), c10::make_intrusive<c10d::TCPStore>(info.address, options));
}

// In short attempts: c10d's own pauses between its attempts double beyond any deadline.
c10::intrusive_ptr<c10d::Store> connect(const RankInfo& info, milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  const std::string place = str(info.address, ":", info.port);
  while (true) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(deadline - std::chrono::steady_clock::now());
    try {
      const auto store = try_to_connect(info, std::clamp(left, kPoll, kAttempt));
      store->setTimeout(timeout);  // for what is asked of it from now on
      return store;
    } catch (const std::exception& error) {
      const std::string reason = first_line(error.what());
      if (reason.find("EADDRINUSE") != std::string::npos) {
        throw ConfigError(str("rank ", info.rank, ": ", place, ": expected a free port, got one ",
                              "that another program listens on"));
      }
      if (std::chrono::steady_clock::now() + kPoll >= deadline) {
        throw ConfigError(str("rank ", info.rank, ": the job's store at ", place,
                              " was not reached within ", timeout.count() / 1000, " s: ", reason));
      }
    }
    std::this_thread::sleep_for(kPoll);
  }
}

at::Tensor host_tensor(const std::vector<double>& values) {
  return at::tensor(values, at::TensorOptions(at::kDouble));
}

std::vector<double> host_values(const at::Tensor& tensor) {
  const auto* data = tensor.const_data_ptr<double>();
  return {data, data + tensor.numel()};
}

// Texts of any length: first the lengths, then all texts in rows of the longest one's.
std::vector<std::string> exchange_texts(c10d::Backend& backend, const std::string& text) {
  const int64_t world = backend.getSize();
  auto length = at::full({1}, static_cast<int64_t>(text.size()), at::kLong);
  auto lengths = at::empty({world}, at::kLong);
  backend._allgather_base(lengths, length, {})->wait();
  const int64_t row = std::max<int64_t>(1, lengths.max().item<int64_t>());
  auto bytes = at::zeros({row}, at::kByte), all = at::empty({world * row}, at::kByte);
  std::copy(text.begin(), text.end(), bytes.data_ptr<uint8_t>());
  backend._allgather_base(all, bytes, {})->wait();
  std::vector<std::string> texts;
  for (int64_t r = 0; r < world; ++r) {
    const auto* begin = all.const_data_ptr<uint8_t>() + r * row;
    texts.emplace_back(begin, begin + lengths[r].item<int64_t>());
  }
  return texts;
}

}  // namespace

struct Group::Connections {
  RankInfo info;
  milliseconds timeout;
  c10::intrusive_ptr<c10d::Store> store;
  c10::intrusive_ptr<c10d::Backend> cpu, cuda;  // cuda: made by its first collective

  BackendOptions backend_options() const {
    return {.rank = info.rank, .world = info.world, .address = info.address, .timeout = timeout};
  }

  c10d::Backend& backend(const at::Tensor& tensor) {
    if (tensor.device().is_cpu()) return *cpu;
    if (!cuda) {
      cuda = make_nccl(c10::make_intrusive<c10d::PrefixStore>("nccl", store), backend_options());
    }
    return *cuda;
  }

  template <class Begin>
  Pending start(const char* what, const Begin& begin) {
    auto work = guarded(info.rank, what, begin);
    return Pending([work, what, rank = info.rank] { guarded(rank, what, [&] { work->wait(); }); });
  }

  std::vector<double> reduce(const std::vector<double>& values, c10d::ReduceOp::RedOpType op) {
    std::vector<at::Tensor> tensors = {host_tensor(values)};
    c10d::AllreduceOptions options;
    options.reduceOp = op;
    start("all-reduce", [&] { return cpu->allreduce(tensors, options); }).wait();
    return host_values(tensors[0]);
  }

  // What the store answers. It may live in a rank that is frozen: PeerError when it gives no answer
  // for the time-out. `call` holds copies alone, as it may outlive this.
  template <class Call>
  auto ask(const char* what, const Call& call) {
    return guarded(info.rank, what, [&] {
      const auto answer = within(timeout, [store = store, call] { return call(*store); });
      if (answer) return *answer;
      throw PeerError(str("rank ", info.rank, ": the job's store gave no answer for ",
                          timeout.count() / 1000, " s"));
    });
  }

  bool has(const std::string& key) {
    return ask("a look at the store", [key](c10d::Store& store) { return store.check({key}); });
  }
};

Group::Group() = default;
Group::~Group() = default;

Group::Group(const RankInfo& info, std::chrono::seconds timeout) : info_(info) {
  if (info.world == 1 && info.port == 0) return;
  // What c10d would say of a lost peer, with stack traces, this program says in one line.
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = c10::GLOG_FATAL;
  connections_ = std::make_unique<Connections>();
  auto& own = *connections_;
  own.info = info;
  own.timeout = timeout;
  own.store = connect(info, timeout);
  try {
    own.cpu =
        make_gloo(c10::make_intrusive<c10d::PrefixStore>("gloo", own.store), own.backend_options());
  } catch (const std::exception& error) {
    throw ConfigError(str("rank ", info.rank, ": expected ", info.world,
                          " ranks, but not all came within ", timeout.count(),
                          " s: ", first_line(error.what())));
  }
}

void Group::set_timeout(std::chrono::seconds timeout) {
  if (!connections_) return;
  connections_->timeout = timeout;
  connections_->cpu->setTimeout(timeout);
  if (connections_->cuda) connections_->cuda->setTimeout(timeout);
}

Pending Group::all_reduce(const at::Tensor& flat) {
  if (!connections_) return {};
  return connections_->start("all-reduce", [&] {
    std::vector<at::Tensor> tensors = {flat};
    return connections_->backend(flat).allreduce(tensors, {});
  });
}

Pending Group::reduce_scatter(const at::Tensor& out, const at::Tensor& in) {
  if (!connections_) {
    out.copy_(in);
    return {};
  }
  return connections_->start("reduce-scatter", [&] {
    at::Tensor to = out, from = in;
    return connections_->backend(in)._reduce_scatter_base(to, from, {});
  });
}

Pending Group::all_gather(const at::Tensor& out, const at::Tensor& in) {
  if (!connections_) {
    if (out.data_ptr() != in.data_ptr()) out.copy_(in);
    return {};
  }
  return connections_->start("all-gather", [&] {
    at::Tensor to = out, from = in;
    return connections_->backend(in)._allgather_base(to, from, {});
  });
}

std::vector<double> Group::sum(const std::vector<double>& values) {
  return size() == 1 ? values : connections_->reduce(values, c10d::ReduceOp::SUM);
}

std::vector<double> Group::max(const std::vector<double>& values) {
  return size() == 1 ? values : connections_->reduce(values, c10d::ReduceOp::MAX);
}

std::vector<std::vector<double>> Group::gather(const std::vector<double>& values) {
  if (size() == 1) return {values};
  const auto count = static_cast<int64_t>(values.size());
  const auto all = at::empty({size() * count}, at::kDouble);
  all_gather(all, host_tensor(values)).wait();
  std::vector<std::vector<double>> result;
  for (int64_t r = 0; r < size(); ++r)
    result.push_back(host_values(all.narrow(0, r * count, count)));
  return result;
}

void Group::barrier() { sum({0.0}); }

Group::Exchange Group::open_channel(const std::string& name) {
  if (size() == 1) return [](const std::string& text) { return std::vector{text}; };
  const auto& own = *connections_;
  const auto store = c10::make_intrusive<c10d::PrefixStore>("channel/" + name, own.store);
  const auto backend =
      guarded(rank(), "opening a channel", [&] { return make_gloo(store, own.backend_options()); });
  return [this, backend](const std::string& text) {
    return guarded(rank(), "an exchange", [&] { return exchange_texts(*backend, text); });
  };
}

std::string Group::led_text(const std::function<std::string()>& work) {
  const std::string key = str("turn/", turns_++);
  if (!connections_ || size() == 1) return work();
  auto& own = *connections_;
  if (leads()) {
    const std::string text = [&] {
      const SignsOfLife signs(own.store);
      return work();
    }();
    guarded(rank(), "a message to the others", [&] { own.store->set(key, bytes_of(text)); });
    return text;
  }
  wait_for_leader(key);
  const auto bytes =
      own.ask("a message from rank 0", [key](c10d::Store& store) { return store.get(key); });
  return {bytes.begin(), bytes.end()};
}

// As long as rank 0 shows that it lives.
void Group::wait_for_leader(const std::string& key) {
  using Clock = std::chrono::steady_clock;
  auto& own = *connections_;
  int64_t beats = -1;
  auto seen = Clock::now(), looked = Clock::time_point();
  while (!own.has(key)) {
    if (own.has(kFailure)) throw PeerError(str("rank ", rank(), ": another rank has failed"));
    (void)stop_requested();  // a sign of life for the watchdog
    if (Clock::now() - looked > kHeartbeat) {
      looked = Clock::now();
      const auto now =
          own.ask("a look at the store", [](c10d::Store& store) { return store.add(kAlive, 0); });
      if (now != beats) seen = looked;
      beats = now;
    }
    if (Clock::now() - seen > own.timeout + kHeartbeat) {
      throw PeerError(str("rank ", rank(), ": rank 0 gave no sign of life for ",
                          own.timeout.count() / 1000, " s"));
    }
    std::this_thread::sleep_for(kPoll);
  }
}

void Group::led(const std::function<void()>& work) {
  led_text([&] {
    work();
    return std::string("done");
  });
}

bool Group::publish_failure(const Failure& failure) {
  if (!connections_) return true;
  const Json json = {
      {"rank", failure.rank}, {"exit_code", failure.exit_code}, {"message", failure.message}};
  const auto tell = [store = connections_->store,
                     text = json.dump(-1, ' ', false, Json::error_handler_t::replace)] {
    try {
      if (store->add(kFailures, 1) != 1) return false;
      store->set(kFailure, bytes_of(text));
    } catch (const std::exception&) {
      // Without a store nobody else can speak for this rank, so that it must speak itself.
    }
    return true;
  };
  return within(kStorePatience, tell).value_or(true);
}

std::optional<Failure> Group::first_failure(milliseconds patience) {
  if (!connections_) return std::nullopt;
  const auto look = [store = connections_->store, patience]() -> std::optional<Failure> {
    try {
      store->wait({kFailure}, patience);
      const auto bytes = store->get(kFailure);
      const auto json = Json::parse(bytes.begin(), bytes.end());
      return Failure{.rank = json.at("rank").get<int64_t>(),
                     .exit_code = json.at("exit_code").get<int>(),
                     .message = json.at("message").get<std::string>()};
    } catch (const std::exception&) {
      return std::nullopt;  // nobody has said anything, or the store went away with its rank
    }
  };
  return within(patience + kStorePatience, look).value_or(std::nullopt);
}

void Group::note_progress() {
  if (!connections_ || !leads()) return;
  guarded(rank(), "a message to the agent", [&] { return connections_->store->add(kProgress, 1); });
}

}  // namespace zebra
