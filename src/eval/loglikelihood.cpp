#include "eval/loglikelihood.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>

#include "base/signals.h"
#include "eval/log_probs.h"

namespace zebra {

namespace {

using Ids = std::vector<int64_t>;

// Fewer shared tokens than this are computed again: a cache costs more than they do.
constexpr int64_t kLeastStem = 8, kLeastPrefix = 32;
// Tokens of a stem that are computed for every row instead, so that stems of like length share a
// batch.
constexpr int64_t kStemSlack = 16;

// Continuations that the same input predicts.
struct Ask {
  const Ids* targets;
  LogLikelihood* answer;
};

struct Row {
  const Ids* input;
  std::vector<Ask> asks;

  int64_t length() const { return static_cast<int64_t>(input->size()); }
  int64_t first_asked() const {  // the earliest position that predicts a target
    int64_t first = length();
    for (const auto& ask : asks) {
      first = std::min(first, length() - static_cast<int64_t>(ask.targets->size()));
    }
    return first;
  }
};

// Rows that begin with the same `stem` tokens, of which none predicts a target.
struct Bundle {
  std::vector<Row> rows;
  int64_t stem = 0;
  bool cut = false;
};

int64_t common_length(const Ids& a, const Ids& b, int64_t limit) {
  limit = std::min({limit, static_cast<int64_t>(a.size()), static_cast<int64_t>(b.size())});
  return std::mismatch(a.begin(), a.begin() + limit, b.begin()).first - a.begin();
}

Bundle make_bundle(const Question& question, std::vector<LogLikelihood>& answers) {
  Bundle bundle;
  answers.resize(question.size());
  for (size_t i = 0; i < question.size(); ++i) {
    const auto& request = question[i];
    const auto same = [&](const Row& row) { return *row.input == request.input; };
    auto row = std::find_if(bundle.rows.begin(), bundle.rows.end(), same);
    if (row == bundle.rows.end()) row = bundle.rows.insert(row, Row{&request.input, {}});
    row->asks.push_back({&request.targets, &answers[i]});
    bundle.cut = bundle.cut || request.cut;
  }
  if (bundle.rows.empty()) return bundle;
  bundle.stem = bundle.rows[0].first_asked();
  for (const auto& row : bundle.rows) {
    const int64_t limit = std::min(bundle.stem, row.first_asked());
    bundle.stem = common_length(*bundle.rows[0].input, *row.input, limit);
  }
  return bundle;
}

// On the CPU every thread has forwards of its own, whose operations are then not shared out: most
// of what a small model computes is too little for that. Together they hold as much as one would.
class Scorer {
 public:
  Scorer(CausalLm model, const ScoringOptions& options)
      : model_(std::move(model)),
        options_(options),
        device_(model_->head_weight().device()),
        workers_(device_.is_cpu() ? at::get_num_threads() : 1),
        batch_tokens_(std::max<int64_t>(1, options.batch_tokens / workers_)),
        chunk_(std::max<int64_t>(1, evaluation_chunk(model_->options().vocab_size) / workers_)) {}

  // All bundles begin with the `prefix` tokens that `base` has seen; nullptr and 0: with nothing.
  void run(std::vector<Bundle*> bundles, const ModelCache* base, int64_t prefix) {
    std::vector<Row*> single;
    std::vector<Bundle*> shared;
    for (auto* bundle : bundles) {
      if (bundle->rows.size() > 1 && bundle->stem - prefix >= kLeastStem) {
        shared.push_back(bundle);
      } else {
        for (auto& row : bundle->rows) single.push_back(&row);
      }
    }
    std::vector<Forwards> work;
    for (auto& batch : batches_of(std::move(single), prefix)) {
      work.emplace_back([this, base, prefix, batch = std::move(batch)] {
        score_after(batch, base, prefix, [](const Row*) { return int64_t{0}; });
      });
    }
    std::stable_sort(shared.begin(), shared.end(),
                     [](const auto* a, const auto* b) { return a->stem > b->stem; });
    for (size_t first = 0; first < shared.size();) {
      const size_t count = stem_batch(shared, first, prefix);
      const std::vector<Bundle*> batch(shared.begin() + first, shared.begin() + first + count);
      work.emplace_back([this, base, prefix, batch] { score_shared(batch, base, prefix); });
      first += count;
    }
    do_all(work);
  }

  // The cache after one sequence.
  ModelCache read(const Ids& ids) {
    auto cache = model_->make_cache(/*batch=*/1);
    model_->forward(torch::tensor(ids, torch::kLong).unsqueeze(0).to(device_), {}, &cache);
    return cache;
  }

 private:
  using Forwards = std::function<void()>;

  void do_all(const std::vector<Forwards>& work) const {
    const auto pieces = static_cast<int64_t>(work.size());
    std::atomic<size_t> next = 0;
    const auto take_turns = [&] {
      const torch::NoGradGuard no_grad;  // of this thread
      for (size_t i = next++; i < work.size(); i = next++) work[i]();
    };
    if (pieces < 2 * workers_) return take_turns();  // too few to keep all threads busy
    at::parallel_for(0, workers_, /*grain_size=*/1, [&](int64_t, int64_t) { take_turns(); });
  }

  // Rows of `fresh` tokens after `seen` ones in a cache, of which a row holds a copy.
  int64_t rows_that_fit(int64_t fresh, int64_t seen) const {
    const int64_t cost = std::max<int64_t>(1, fresh + seen / 8);
    const int64_t by_tokens = std::max<int64_t>(1, batch_tokens_ / cost);
    return options_.batch_size > 0 ? std::min(options_.batch_size, by_tokens) : by_tokens;
  }

  // How many bundles from `first` on can have their stems read together.
  size_t stem_batch(const std::vector<Bundle*>& shared, size_t first, int64_t prefix) const {
    const auto most = static_cast<size_t>(rows_that_fit(shared[first]->stem - prefix, prefix));
    size_t count = 1;
    while (count < most && first + count < shared.size() &&
           shared[first]->stem - shared[first + count]->stem <= kStemSlack) {
      ++count;
    }
    return count;
  }

  void score_shared(const std::vector<Bundle*>& bundles, const ModelCache* base, int64_t prefix) {
    const int64_t stem = bundles.back()->stem;  // the shortest
    const auto B = static_cast<int64_t>(bundles.size());
    std::vector<Row*> rows;
    std::map<const Row*, int64_t> parent;
    auto ids = torch::empty({B, stem - prefix}, torch::kLong);  // (B, T)
    for (int64_t b = 0; b < B; ++b) {
      auto* bundle = bundles[static_cast<size_t>(b)];
      const auto begin = bundle->rows[0].input->begin();
      std::copy(begin + prefix, begin + stem, ids.data_ptr<int64_t>() + b * (stem - prefix));
      for (auto& row : bundle->rows) {
        rows.push_back(&row);
        parent[&row] = b;
      }
    }
    auto cache = base ? base->select(Ids(bundles.size(), 0)) : model_->make_cache(B);
    model_->forward(ids.to(device_), /*segments=*/{}, &cache);
    for (const auto& batch : batches_of(std::move(rows), stem)) {
      score_after(batch, &cache, stem, [&](const Row* row) { return parent.at(row); });
    }
  }

  // Rows of like length share a forward, in which each has `seen` tokens behind it.
  std::vector<std::vector<Row*>> batches_of(std::vector<Row*> rows, int64_t seen) const {
    std::stable_sort(rows.begin(), rows.end(),
                     [](const Row* a, const Row* b) { return a->length() > b->length(); });
    std::vector<std::vector<Row*>> batches;
    for (size_t first = 0; first < rows.size();) {
      const auto fit = static_cast<size_t>(rows_that_fit(rows[first]->length() - seen, seen));
      const size_t count = std::min(fit, rows.size() - first);
      batches.emplace_back(rows.begin() + first, rows.begin() + first + count);
      first += count;
    }
    return batches;
  }

  // parent(row): which row of `cache` it continues after `seen` tokens.
  template <class Parent>
  void score_after(const std::vector<Row*>& batch, const ModelCache* cache, int64_t seen,
                   const Parent& parent) {
    std::optional<ModelCache> fork;
    if (cache != nullptr) {
      Ids parents;
      for (const auto* row : batch) parents.push_back(parent(row));
      fork = cache->select(parents);
    }
    score_batch(batch, fork ? &*fork : nullptr, seen);
  }

  // Padding stands on the right, where no earlier position sees it.
  void score_batch(const std::vector<Row*>& rows, ModelCache* cache, int64_t seen) {
    throw_if_stopped("eval: log-likelihoods");
    const auto B = static_cast<int64_t>(rows.size());
    const int64_t T = rows[0]->length() - seen;  // the longest comes first
    auto ids = torch::zeros({B, T}, torch::kLong);
    int64_t tokens = 0;
    for (int64_t b = 0; b < B; ++b) {
      const auto& row = *rows[static_cast<size_t>(b)];
      std::copy(row.input->begin() + seen, row.input->end(), ids.data_ptr<int64_t>() + b * T);
      tokens += row.length() * static_cast<int64_t>(row.asks.size());
    }
    const auto hidden = model_->forward(ids.to(device_), /*segments=*/{}, cache);  // (B, T, D)
    read_answers(hidden.flatten(0, 1), rows, seen);
    if (!options_.on_tokens) return;
    const std::lock_guard<std::mutex> one_at_a_time(telling_);
    options_.on_tokens(tokens);
  }

  // hidden: (B * T, D). Each position's logits are made once, whatever asks for them.
  void read_answers(const at::Tensor& hidden, const std::vector<Row*>& rows, int64_t seen) {
    const int64_t T = hidden.size(0) / static_cast<int64_t>(rows.size());
    Ids positions, wanted, owner;  // (M) positions; of each target: its index there, and its id
    for (size_t b = 0; b < rows.size(); ++b) {
      const auto& row = *rows[b];
      const int64_t first = row.first_asked(), base = static_cast<int64_t>(positions.size());
      for (int64_t p = first; p < row.length(); ++p) {
        positions.push_back(static_cast<int64_t>(b) * T + p - seen);
      }
      for (const auto& ask : row.asks) {
        const int64_t begin =
            base + row.length() - static_cast<int64_t>(ask.targets->size()) - first;
        for (size_t i = 0; i < ask.targets->size(); ++i) {
          owner.push_back(begin + static_cast<int64_t>(i));
          wanted.push_back((*ask.targets)[i]);
        }
      }
    }
    const auto scored = score_positions(hidden, positions, owner, wanted);
    size_t next = 0;
    for (const auto* row : rows) {
      for (const auto& ask : row->asks) {
        *ask.answer = {.sum = 0, .greedy = true};
        for (size_t i = 0; i < ask.targets->size(); ++i, ++next) {
          ask.answer->sum += scored.log_p[next];
          ask.answer->greedy = ask.answer->greedy && scored.best[owner[next]] == wanted[next];
        }
      }
    }
  }

  struct Scored {
    std::vector<double> log_p;  // of each target
    Ids best;                   // of each position
  };

  Scored score_positions(const at::Tensor& hidden, const Ids& positions, const Ids& owner,
                         const Ids& wanted) {
    Scored scored{.log_p = std::vector<double>(wanted.size()), .best = Ids(positions.size())};
    const auto all = torch::tensor(positions, torch::kLong).to(device_);
    const auto M = static_cast<int64_t>(positions.size());
    // Targets by the position that predicts them.
    std::vector<size_t> order(wanted.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return owner[a] < owner[b]; });
    size_t next = 0;
    for (int64_t begin = 0; begin < M; begin += chunk_) {
      const int64_t count = std::min(chunk_, M - begin);
      const auto logits =
          model_->logits(hidden.index_select(0, all.narrow(0, begin, count)));  // (m, V)
      Ids rows, ids;
      const size_t start = next;
      for (; next < order.size() && owner[order[next]] < begin + count; ++next) {
        rows.push_back(owner[order[next]] - begin);
        ids.push_back(wanted[order[next]]);
      }
      const auto at = torch::tensor(rows, torch::kLong).to(device_);
      const auto target = torch::tensor(ids, torch::kLong).to(device_);
      const auto log_p = (logits.index({at, target}) - logits.logsumexp(-1).index_select(0, at))
                             .to(torch::kCPU, torch::kDouble)
                             .contiguous();
      const auto best = logits.argmax(-1).to(torch::kCPU).contiguous();  // (m)
      for (size_t i = 0; i < rows.size(); ++i) {
        scored.log_p[order[start + i]] = log_p.data_ptr<double>()[i];
      }
      std::copy_n(best.data_ptr<int64_t>(), count, scored.best.begin() + begin);
    }
    return scored;
  }

  CausalLm model_;
  const ScoringOptions& options_;
  at::Device device_;
  int64_t workers_, batch_tokens_, chunk_;
  std::mutex telling_;
};

// The beginning that all whole bundles share; 0 where it is too short to be worth a cache.
int64_t shared_prefix(const std::vector<Bundle*>& bundles) {
  const Bundle* first = nullptr;
  int64_t prefix = 0, tokens = 0, count = 0;
  for (const auto* bundle : bundles) {
    if (bundle->cut || bundle->rows.empty()) continue;
    if (first == nullptr) {
      first = bundle;
      prefix = bundle->stem;
    }
    const int64_t limit = std::min(prefix, bundle->stem);
    prefix = common_length(*first->rows[0].input, *bundle->rows[0].input, limit);
    tokens += bundle->rows[0].length();
    ++count;
  }
  return count > 1 && prefix >= kLeastPrefix && 4 * prefix * count >= tokens ? prefix : 0;
}

}  // namespace

int64_t count_tokens(const std::vector<Question>& questions) {
  int64_t tokens = 0;
  for (const auto& question : questions) {
    for (const auto& request : question) tokens += static_cast<int64_t>(request.input.size());
  }
  return tokens;
}

std::vector<std::vector<LogLikelihood>> log_likelihoods(CausalLm model,
                                                        const std::vector<Question>& questions,
                                                        const ScoringOptions& options) {
  const torch::NoGradGuard no_grad;
  std::vector<std::vector<LogLikelihood>> answers(questions.size());
  std::vector<Bundle> bundles;
  for (size_t i = 0; i < questions.size(); ++i) {
    bundles.push_back(make_bundle(questions[i], answers[i]));
  }
  std::vector<Bundle*> whole, cut;
  for (auto& bundle : bundles) (bundle.cut ? cut : whole).push_back(&bundle);
  Scorer scorer(std::move(model), options);
  const int64_t prefix = shared_prefix(whole);
  if (prefix > 0) {
    const auto& ids = *whole[0]->rows[0].input;
    const auto base = scorer.read({ids.begin(), ids.begin() + prefix});
    scorer.run(whole, &base, prefix);
  } else {
    cut.insert(cut.end(), whole.begin(), whole.end());
  }
  scorer.run(cut, /*base=*/nullptr, /*prefix=*/0);
  return answers;
}

}  // namespace zebra
