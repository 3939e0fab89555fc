#include "train/stability.h"

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "zebra/error.h"

namespace zebra {

namespace {

std::string deviations(const char* what, double zscore) {
  char text[96];
  std::snprintf(text, sizeof text, "%s %.1f standard deviations above the mean", what, zscore);
  return text;
}

}  // namespace

double SpikeDetector::zscore(double value) const {
  if (values_.size() * 2 < window_) return 0;
  const auto count = static_cast<double>(values_.size());
  double sum = 0, squares = 0;
  for (const double each : values_) sum += each;
  const double mean = sum / count;
  for (const double each : values_) squares += (each - mean) * (each - mean);
  const double deviation = std::sqrt(squares / count);
  return deviation > 0 ? (value - mean) / deviation : 0;
}

void SpikeDetector::add(double value) {
  values_.push_back(value);
  if (values_.size() > window_) values_.pop_front();
}

std::string StepVerdict::text() const {
  if (!finite) return "loss or gradient not finite";
  if (!spike) return "";
  return loss_zscore >= grad_norm_zscore ? deviations("loss", loss_zscore)
                                         : deviations("gradient norm", grad_norm_zscore);
}

Stability::Stability(const StabilityRecipe& recipe, size_t trainees)
    : recipe_(recipe),
      watches_(trainees, {SpikeDetector(recipe.spike_window), SpikeDetector(recipe.spike_window)}) {
}

StepVerdict Stability::judge(size_t trainee, double loss, double grad_norm) {
  Watch& watch = watches_.at(trainee);
  StepVerdict verdict;
  verdict.finite = std::isfinite(loss) && std::isfinite(grad_norm);
  verdict.skip = !verdict.finite;
  if (!verdict.finite) return verdict;
  verdict.loss_zscore = watch.loss.zscore(loss);
  verdict.grad_norm_zscore = watch.grad_norm.zscore(grad_norm);
  const double largest = std::max(verdict.loss_zscore, verdict.grad_norm_zscore);
  verdict.spike = recipe_.spike_zscore > 0 && largest >= recipe_.spike_zscore;
  verdict.skip = verdict.spike && recipe_.on_spike == OnSpike::kSkip;
  if (!verdict.skip) {  // what is skipped is no measure of what is usual
    watch.loss.add(loss);
    watch.grad_norm.add(grad_norm);
  }
  return verdict;
}

void Stability::end_step(bool skipped, const std::string& where) {
  in_row_ = skipped ? in_row_ + 1 : 0;
  if (in_row_ <= recipe_.max_skips_in_row) return;
  throw GaveUpError(str(where, ": ", in_row_,
                        " steps in a row were skipped; stability.max_skips_in_row allows ",
                        recipe_.max_skips_in_row));
}

std::string Stability::state() const {
  nlohmann::json watches = nlohmann::json::array();
  for (const auto& watch : watches_) {
    watches.push_back({{"loss", watch.loss.values()}, {"grad_norm", watch.grad_norm.values()}});
  }
  return nlohmann::json({{"in_row", in_row_}, {"watches", watches}}).dump();
}

void Stability::restore(const std::string& state) {
  const auto json = nlohmann::json::parse(state);
  in_row_ = json.at("in_row").get<int64_t>();
  for (size_t i = 0; i < watches_.size(); ++i) {
    const auto& saved = json.at("watches").at(i);
    for (const double value : saved.at("loss")) watches_[i].loss.add(value);
    for (const double value : saved.at("grad_norm")) watches_[i].grad_norm.add(value);
  }
}

}  // namespace zebra
