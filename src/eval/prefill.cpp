// Prompts of unequal lengths into caches.
#include <algorithm>
#include <numeric>

#include "eval/generation.h"

namespace zebra {

namespace {

constexpr int64_t kForwardTokens = 16384;  // of one forward, padding included

// Rows that share forwards: in the order of their lengths, so that little is padding.
std::vector<std::vector<size_t>> groups_of(const std::vector<std::vector<int64_t>>& prompts,
                                           int64_t chunk) {
  std::vector<size_t> order(prompts.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return prompts[a].size() < prompts[b].size(); });
  std::vector<std::vector<size_t>> groups;
  const auto most = static_cast<size_t>(std::max<int64_t>(1, kForwardTokens / chunk));
  size_t longest = 0;  // that the group takes
  for (const size_t row : order) {
    if (groups.empty() || prompts[row].size() > longest || groups.back().size() == most) {
      groups.emplace_back();
      longest = prompts[row].size() * 5 / 4 + 16;
    }
    groups.back().push_back(row);
  }
  return groups;
}

// The piece of each row that begins at `begin`, zeros behind its end. (B, T)
at::Tensor piece_of(const std::vector<const std::vector<int64_t>*>& rows, int64_t begin,
                    const std::vector<int64_t>& counts) {
  const auto B = static_cast<int64_t>(rows.size());
  const int64_t T = *std::max_element(counts.begin(), counts.end());
  const auto ids = torch::zeros({B, T}, torch::kLong);
  for (int64_t b = 0; b < B; ++b) {
    const int64_t count = counts[static_cast<size_t>(b)];
    if (count == 0) continue;
    const auto from = rows[static_cast<size_t>(b)]->begin() + begin;
    std::copy_n(from, count, ids.data_ptr<int64_t>() + b * T);
  }
  return ids;
}

// Reads the rows into the cache; the hidden state of each row's last token, (B, D).
at::Tensor read_rows(CausalLm& model, const std::vector<const std::vector<int64_t>*>& rows,
                     int64_t chunk, ModelCache& cache) {
  const auto device = model->head_weight().device();
  int64_t longest = 0;
  for (const auto* row : rows) longest = std::max(longest, static_cast<int64_t>(row->size()));
  std::vector<at::Tensor> last(rows.size());
  for (int64_t begin = 0; begin < longest; begin += chunk) {
    std::vector<int64_t> counts;
    for (const auto* row : rows) {
      const auto left = static_cast<int64_t>(row->size()) - begin;
      counts.push_back(std::clamp<int64_t>(left, 0, chunk));
    }
    const auto hidden = model->extend(piece_of(rows, begin, counts).to(device), counts, cache);
    for (size_t b = 0; b < rows.size(); ++b) {
      if (counts[b] > 0)
        last[b] = hidden.select(0, static_cast<int64_t>(b)).select(0, counts[b] - 1);
    }
  }
  return torch::stack(last);
}

}  // namespace

at::Tensor read_ids(CausalLm& model, const std::vector<int64_t>& ids, int64_t chunk,
                    ModelCache& cache) {
  return model->logits(read_rows(model, {&ids}, chunk, cache));  // (1, V)
}

Prefilled prefill(CausalLm model, const std::vector<std::vector<int64_t>>& prompts,
                  const GenerateOptions& options) {
  options.validate();
  for (size_t i = 0; i < prompts.size(); ++i) check_prompt(model, prompts[i], i, prompts.size());
  const torch::NoGradGuard no_grad;
  ModelCache all;
  std::vector<at::Tensor> hidden;
  std::vector<int64_t> place(prompts.size());  // of each prompt among the rows as they were read
  int64_t next = 0;
  for (const auto& group : groups_of(prompts, options.prefill_chunk)) {
    std::vector<const std::vector<int64_t>*> rows;
    for (const size_t row : group) {
      rows.push_back(&prompts[row]);
      place[row] = next++;
    }
    auto cache = model->make_cache(static_cast<int64_t>(rows.size()), options.cache);
    hidden.push_back(read_rows(model, rows, options.prefill_chunk, cache));
    if (all.layers.empty()) {
      all = std::move(cache);
    } else {
      all.append(cache);
    }
  }
  const auto logits = model->logits(torch::cat(hidden));  // (B, V)
  if (std::is_sorted(place.begin(), place.end())) return {std::move(all), logits};
  const auto rows = torch::tensor(place, torch::kLong).to(logits.device());
  return {all.select(place), logits.index_select(0, rows)};
}

}  // namespace zebra
