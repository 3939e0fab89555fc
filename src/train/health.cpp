#include "train/health.h"

#include <torch/csrc/autograd/profiler_kineto.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <ctime>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "zebra/error.h"

namespace zebra {

namespace {

void add_tensor(Hasher& hasher, const at::Tensor& tensor) {
  const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
  hasher.add_bytes(bytes.data_ptr(), bytes.nbytes());
}

// The hash of what one more pass over the step's data makes, of which nothing is left.
uint64_t hash_of_gradients(int64_t step, std::vector<AdamW>& optimizers,
                           const StepFunction& forward_backward) {
  for (auto& optimizer : optimizers) optimizer.shards().begin_local();
  forward_backward(step);
  Hasher hasher;
  for (auto& optimizer : optimizers) hasher.add(optimizer.shards().end_local());
  return hasher.value();
}

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Of all threads of this process: waiting for others costs none.
double cpu_seconds() {
  timespec time{};
  ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// What a stage measures of a step, bit by bit, so that NaN equals NaN.
bool same_bits(const std::vector<Metrics>& a, const std::vector<Metrics>& b) {
  for (size_t i = 0; i < b.size(); ++i) {
    for (size_t k = 0; k < b[i].size(); ++k) {
      if (is_machine_measure(b[i][k].first)) continue;
      if (std::memcmp(&a[i][k].second, &b[i][k].second, sizeof(double)) != 0) return false;
    }
  }
  return true;
}

bool due(int64_t step, int64_t every) { return every > 0 && step % every == 0; }

}  // namespace

uint64_t hash_parameters(const std::vector<Trainee>& trainees) {
  Hasher hasher;
  for (const auto& trainee : trainees) {
    for (const auto& item : trainee.model->named_parameters()) {
      hasher.add(item.key());
      add_tensor(hasher, item.value());
    }
  }
  return hasher.value();
}

Requests any_of(const RankExchange& ranks, const Requests& own) {
  Requests all;
  for (const auto& text : ranks(str(own.flags, " ", own.stop_reason))) {
    all.flags |= std::stoll(text);  // up to the blank
    if (all.stop_reason.empty()) all.stop_reason = text.substr(text.find(' ') + 1);
  }
  return all;
}

Health::Health(const HealthRecipe& recipe, const RankExchange& ranks, std::string stage)
    : recipe_(recipe), ranks_(ranks), stage_(std::move(stage)), cpu_at_report_(cpu_seconds()) {}

void Health::replay(int64_t step, std::vector<AdamW>& optimizers,
                    const StepFunction& forward_backward) {
  if (!due(step + 1, recipe_.replay_every)) return;
  const uint64_t first = hash_of_gradients(step, optimizers, forward_backward);
  const bool same = hash_of_gradients(step, optimizers, forward_backward) == first;
  const auto told = ranks_(same ? "" : host_name());
  for (size_t rank = 0; rank < told.size(); ++rank) {
    if (told[rank].empty()) continue;
    throw GaveUpError(str(stage_, " step ", step + 1, ": done twice, rank ", rank, " on ",
                          told[rank],
                          " got other gradients: the machine does not compute reproducibly "
                          "(memory, clock, driver, or kernels that are not deterministic)"));
  }
  log_info(str(stage_, " step ", step + 1, ": done twice with equal gradients"));
}

std::string Health::explain_non_finite(int64_t step, const std::vector<Metrics>& before,
                                       std::vector<AdamW>& optimizers,
                                       const StepFunction& forward_backward) {
  std::vector<Metrics> again;
  hash_of_gradients(step, optimizers,
                    [&](int64_t index) { return again = forward_backward(index); });
  return same_bits(before, again) ? "the same when done again, so the numbers themselves diverge"
                                  : "other numbers when done again, so this machine is at fault";
}

void Health::after_step(int64_t step, const std::vector<Trainee>& trainees) {
  if (ranks_.world == 1) return;
  if (due(step, recipe_.compare_weights_every)) compare_weights(step, trainees);
  if (due(step, recipe_.slow_ranks_every)) report_slow_ranks(step);
}

void Health::compare_weights(int64_t step, const std::vector<Trainee>& trainees) const {
  const auto hashes = ranks_(str(std::hex, hash_parameters(trainees), " on ", host_name()));
  const auto hash_of = [](const std::string& text) { return text.substr(0, text.find(' ')); };
  const bool equal = std::all_of(hashes.begin(), hashes.end(), [&](const std::string& text) {
    return hash_of(text) == hash_of(hashes[0]);
  });
  if (equal) return;
  std::string all;
  for (size_t rank = 0; rank < hashes.size(); ++rank) {
    all += str(rank == 0 ? "" : ", ", "rank ", rank, ": ", hashes[rank]);
  }
  throw GaveUpError(str(stage_, " step ", step, ": the ranks' weights differ: ", all));
}

std::string slow_rank_text(const std::vector<double>& seconds,
                           const std::vector<std::string>& hosts) {
  constexpr double kSlow = 1.2;
  auto sorted = seconds;
  std::sort(sorted.begin(), sorted.end());
  const double median = (sorted[(sorted.size() - 1) / 2] + sorted[sorted.size() / 2]) / 2;
  const auto slowest = std::max_element(seconds.begin(), seconds.end()) - seconds.begin();
  const double ratio = median > 0 ? seconds[static_cast<size_t>(slowest)] / median : 1;
  if (ratio <= kSlow) return "";
  char text[64];
  std::snprintf(text, sizeof text, "%.2f", ratio);
  return str("rank ", slowest, " on ", hosts[static_cast<size_t>(slowest)], " is slow: ", text,
             " times the median's work for a step");
}

void Health::report_slow_ranks(int64_t step) {
  const double now = cpu_seconds();
  const double spent = (now - cpu_at_report_) / static_cast<double>(recipe_.slow_ranks_every);
  cpu_at_report_ = now;
  std::vector<double> seconds;
  std::vector<std::string> hosts;
  for (const auto& text : ranks_(str(spent, " ", host_name()))) {
    seconds.push_back(std::stod(text));
    hosts.push_back(text.substr(text.find(' ') + 1));
  }
  const auto report = slow_rank_text(seconds, hosts);
  if (!report.empty() && ranks_.rank == 0) log_warning(str(stage_, " step ", step, ": ", report));
}

void trace_to(const std::filesystem::path& file, const std::function<void()>& body) {
  namespace profiler = torch::autograd::profiler;
  using torch::profiler::impl::ActivityType;
  make_folders(file.parent_path());
  const torch::profiler::impl::ProfilerConfig config(torch::profiler::impl::ProfilerState::KINETO,
                                                     /*report_input_shapes=*/true);
  std::set<ActivityType> activities = {ActivityType::CPU};
  if (torch::cuda::is_available()) activities.insert(ActivityType::CUDA);
  profiler::prepareProfiler(config, activities);
  profiler::enableProfiler(config, activities);
  try {
    body();
  } catch (...) {
    profiler::disableProfiler();
    throw;
  }
  profiler::disableProfiler()->save(file.string());
  log_info(str("trace: ", file.string()));
}

}  // namespace zebra
