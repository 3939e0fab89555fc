#include "eval/log_probs.h"

#include <algorithm>

#include "zebra/error.h"
#include "zebra/losses.h"

namespace zebra {

namespace {

constexpr int64_t kMaxTokens = 1024;
constexpr int64_t kMaxLogits = int64_t{1} << 26;  // 256 MiB of float32

}  // namespace

int64_t evaluation_chunk(int64_t vocab_size) {
  return std::clamp<int64_t>(kMaxLogits / vocab_size, 1, kMaxTokens);
}

void check_vocabulary(const char* what, const std::vector<int64_t>& ids, int64_t vocab_size) {
  const auto outside =
      std::find_if(ids.begin(), ids.end(), [&](int64_t id) { return id < 0 || id >= vocab_size; });
  if (outside == ids.end()) return;
  throw ConfigError(str(what, ": expected token ids in [0, ", vocab_size, "), got ", *outside,
                        " at position ", outside - ids.begin()));
}

void check_vocabulary(const char* what, const at::Tensor& ids, int64_t vocab_size) {
  const auto flat = ids.flatten().to(torch::kCPU, torch::kLong).contiguous();
  const auto* begin = flat.data_ptr<int64_t>();
  check_vocabulary(what, std::vector<int64_t>(begin, begin + flat.numel()), vocab_size);
}

at::Tensor row_log_probs(CausalLm model, const at::Tensor& input_ids, const at::Tensor& targets,
                         int64_t chunk_tokens) {
  const int64_t B = input_ids.size(0), T = input_ids.size(1);
  const auto hidden = model->forward(input_ids, /*segments=*/{}).flatten(0, 1);  // (B * T, D)
  const auto flat = targets.flatten();                                           // (B * T)
  const auto asked = flat.ge(0).nonzero().squeeze(1);                            // (M)
  const auto nll = token_nll(hidden.index_select(0, asked), model->head_weight(),
                             flat.index_select(0, asked), chunk_tokens);  // (M)
  const auto rows = asked.div(T, /*rounding_mode=*/"floor");              // (M)
  // DPO takes differences of these sums, which are far smaller than the sums: float32 would lose
  // what it learns from.
  const auto exact = nll.to(torch::kDouble);
  return torch::zeros({B}, exact.options()).index_add(0, rows, -exact);  // (B)
}

}  // namespace zebra
