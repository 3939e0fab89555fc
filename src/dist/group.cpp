#include <algorithm>
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

constexpr milliseconds kPoll{20};
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

c10::intrusive_ptr<c10d::Store> connect(const RankInfo& info, milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<uint16_t>(info.port);
  options.isServer = info.rank == 0 && !info.agent_store;
  options.numWorkers = static_cast<size_t>(info.world);
  options.waitWorkers = false;
  options.timeout = timeout;
  try {
    const auto store = c10::make_intrusive<c10d::TCPStore>(info.address, options);
    return c10::make_intrusive<c10d::PrefixStore>(str("zebra/", info.restart), store);
  } catch (const std::exception& error) {
    throw ConfigError(str("rank ", info.rank, ": the job's store at ", info.address, ":", info.port,
                          " was not reached within ", timeout.count() / 1000,
                          " s: ", first_line(error.what())));
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

  bool has(const char* key) {
    return guarded(info.rank, "a look at the store", [&] { return store->check({key}); });
  }
};

Group::Group() = default;
Group::~Group() = default;

Group::Group(const RankInfo& info, std::chrono::seconds timeout) : info_(info) {
  if (info.world == 1 && info.port == 0) return;
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
    const std::string text = work();
    guarded(rank(), "a message to the others", [&] { own.store->set(key, bytes_of(text)); });
    return text;
  }
  while (!own.has(key.c_str())) {
    if (own.has(kFailure)) throw PeerError(str("rank ", rank(), ": another rank has failed"));
    (void)stop_requested();  // a sign of life for the watchdog
    std::this_thread::sleep_for(kPoll);
  }
  const auto bytes = guarded(rank(), "a message from rank 0", [&] { return own.store->get(key); });
  return {bytes.begin(), bytes.end()};
}

void Group::led(const std::function<void()>& work) {
  led_text([&] {
    work();
    return std::string("done");
  });
}

bool Group::publish_failure(const Failure& failure) {
  if (!connections_) return true;
  try {
    if (connections_->store->add(kFailures, 1) != 1) return false;
    const Json json = {
        {"rank", failure.rank}, {"exit_code", failure.exit_code}, {"message", failure.message}};
    connections_->store->set(kFailure,
                             bytes_of(json.dump(-1, ' ', false, Json::error_handler_t::replace)));
  } catch (const std::exception&) {
    // Without a store nobody else can speak for this rank, so that it must speak itself.
  }
  return true;
}

std::optional<Failure> Group::first_failure(milliseconds patience) {
  if (!connections_) return std::nullopt;
  try {
    connections_->store->wait({kFailure}, patience);
    const auto bytes = connections_->store->get(kFailure);
    const auto json = Json::parse(bytes.begin(), bytes.end());
    return Failure{.rank = json.at("rank").get<int64_t>(),
                   .exit_code = json.at("exit_code").get<int>(),
                   .message = json.at("message").get<std::string>()};
  } catch (const std::exception&) {
    return std::nullopt;  // nobody has said anything, or the store went away with its rank
  }
}

void Group::note_progress() {
  if (!connections_ || !leads()) return;
  guarded(rank(), "a message to the agent", [&] { return connections_->store->add(kProgress, 1); });
}

}  // namespace zebra
