// Runs tasks: reads their rows, makes prompts, asks the model, and turns answers into numbers.
#include <algorithm>
#include <map>

#include "base/progress.h"
#include "eval/generate_until.h"
#include "eval/log_probs.h"
#include "eval/loglikelihood.h"
#include "eval/samples.h"
#include "eval/tasks/documents.h"
#include "eval/tasks/metrics.h"
#include "eval/tasks/score.h"
#include "eval/tasks/selection.h"
#include "zebra/dist.h"
#include "zebra/error.h"
#include "zebra/tasks.h"

namespace zebra {

namespace {

int64_t shots_of(const TaskSpec& task, const TaskOptions& options) {
  if (task.kind == TaskKind::kRolling || task.shots == 0) return 0;
  return options.shots.value_or(task.shots.value_or(0));
}

// ---- one task -----------------------------------------------------------------------------------

struct LoadedTask {
  TaskSpec spec;
  int64_t shots = 0, available = 0;
  std::vector<TaskDocument> documents;
  std::vector<TaskQuestion> questions;
  std::vector<Question> encoded;              // of tasks that are scored
  std::vector<std::vector<int64_t>> prompts;  // of kGenerate tasks
  std::vector<TaskAnswer> answers;
};

class Harness {
 public:
  Harness(CausalLm model, const Tokenizer& tokenizer, const TaskOptions& options)
      : model_(std::move(model)), tokenizer_(tokenizer), options_(options) {
    const int64_t positions = model_->options().max_position_embeddings;
    max_length_ = options.max_length > 0 ? options.max_length : positions;
    if (max_length_ > positions) {
      throw ConfigError(str("--max-length: expected at most the model's ", positions,
                            " positions, got ", max_length_));
    }
  }

  TaskReport run() {
    auto selection = select_tasks(options_.tasks);
    std::vector<LoadedTask> tasks;
    for (auto& spec : selection.tasks) tasks.push_back(load(std::move(spec)));
    answer(tasks);
    TaskReport report;
    std::map<std::string, TaskResult> results;
    for (const auto& task : tasks) results[task.spec.name] = summarise(task, report);
    for (auto group = selection.groups.rbegin(); group != selection.groups.rend(); ++group) {
      results[(*group)->name] = join(**group, results);
    }
    for (const auto& name : selection.order) report.results.push_back(results.at(name));
    return report;
  }

 private:
  LoadedTask load(TaskSpec spec) {
    LoadedTask task;
    task.spec = std::move(spec);
    task.shots = shots_of(task.spec, options_);
    auto rows = read_rows(task.spec, options_.data, task.spec.eval_split(), options_.limit);
    task.available = rows.available;
    task.documents = std::move(rows.documents);
    TaskRows pool;
    if (task.shots > 0) {
      pool = read_rows(task.spec, options_.data, task.spec.fewshot_pool(), /*limit=*/0);
    }
    task.questions =
        make_questions(task.spec, task.documents, pool.documents, task.shots, options_);
    encode(task);
    return task;
  }

  void encode(LoadedTask& task) {
    const bool generates = task.spec.kind == TaskKind::kGenerate;
    const int64_t room = max_length_ - task.spec.max_new_tokens;
    if (generates && room < 1) {
      throw ConfigError(str(task.spec.name, ": expected a context of more than the ",
                            task.spec.max_new_tokens, " tokens that are generated, got ",
                            max_length_));
    }
    const auto long_endings = options_.cut_endings ? LongEndings::kCut : LongEndings::kRefuse;
    const auto count = static_cast<int64_t>(task.documents.size());
    task.encoded.resize(generates ? 0 : task.documents.size());
    task.prompts.resize(generates ? task.documents.size() : 0);
    at::parallel_for(0, count, /*grain_size=*/4, [&](int64_t begin, int64_t end) {
      for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
        at_document(task.documents[i], [&] {
          const auto& requests = task.questions[i].requests;
          if (generates) {
            task.prompts[i] = encode_prompt(tokenizer_, requests[0].context, room);
            check(task.prompts[i]);
          } else {
            task.encoded[i] =
                task.spec.kind == TaskKind::kRolling
                    ? encode_rolling(tokenizer_, requests[0].continuation, max_length_)
                    : encode_requests(tokenizer_, requests, max_length_, long_endings);
          }
          for (const auto& request : generates ? Question() : task.encoded[i]) {
            check(request.input);
            check(request.targets);
          }
        });
      }
    });
  }

  void check(const std::vector<int64_t>& ids) const {
    check_vocabulary("tokens", ids, model_->options().vocab_size);
  }

  bool is_mine(size_t document) const {
    return static_cast<int64_t>(document) % options_.shard_count == options_.shard_index;
  }

  // Other ranks' questions are left empty.
  std::vector<Question> own_questions(const LoadedTask& task) const {
    auto mine = task.encoded;
    for (size_t i = 0; i < mine.size(); ++i) {
      if (!is_mine(i)) mine[i].clear();
    }
    return mine;
  }

  void answer(std::vector<LoadedTask>& tasks) {
    int64_t tokens = 0, generated = 0;  // of this rank
    bool any_scored = false, any_generated = false;
    for (const auto& task : tasks) {
      tokens += count_tokens(own_questions(task));
      for (size_t i = 0; i < task.prompts.size(); ++i) generated += is_mine(i) ? 1 : 0;
      const bool generates = task.spec.kind == TaskKind::kGenerate;
      (generates ? any_generated : any_scored) = true;
    }
    // A rank without documents takes part, too: answers are shared by all.
    if (any_scored) {
      Progress progress("eval", tokens, /*tokens_per_step=*/1);
      int64_t done = 0;
      for (auto& task : tasks) {
        if (task.spec.kind != TaskKind::kGenerate) score(task, progress, done);
      }
      progress.finish();
    }
    if (!any_generated) return;
    Progress progress("eval: generated answers", generated, 0);
    int64_t done = 0;
    for (auto& task : tasks) {
      if (task.spec.kind == TaskKind::kGenerate) generate(task, progress, done);
    }
    progress.finish();
  }

  void score(LoadedTask& task, Progress& progress, int64_t& done) {
    ScoringOptions options;
    options.batch_size = options_.batch_size;
    options.on_tokens = [&](int64_t tokens) {
      done += tokens;
      progress.update(done, task.spec.name);
    };
    auto scores = log_likelihoods(model_, own_questions(task), options);
    if (options_.shard_count > 1) share_scores(task, scores);
    task.answers.resize(scores.size());
    for (size_t i = 0; i < scores.size(); ++i) task.answers[i].scores = std::move(scores[i]);
  }

  // Everybody's answers in one tensor, zero where they are another rank's.
  void share_scores(const LoadedTask& task, std::vector<std::vector<LogLikelihood>>& scores) const {
    std::vector<double> flat;
    for (size_t i = 0; i < scores.size(); ++i) {
      scores[i].resize(task.encoded[i].size());
      for (const auto& score : scores[i]) {
        flat.push_back(is_mine(i) ? score.sum : 0);
        flat.push_back(is_mine(i) && score.greedy ? 1 : 0);
      }
    }
    const auto all = options_.sum_over_ranks(torch::tensor(flat, torch::kDouble)).contiguous();
    const auto* next = all.data_ptr<double>();
    for (auto& document : scores) {
      for (auto& score : document) {
        score = {.sum = next[0], .greedy = next[1] != 0};
        next += 2;
      }
    }
  }

  void generate(LoadedTask& task, Progress& progress, int64_t& done) {
    GenerateUntilOptions options;
    options.stop = stop_texts(task.spec);
    options.max_new_tokens = task.spec.max_new_tokens;
    if (options_.batch_size > 0) options.batch_size = options_.batch_size;
    options.on_answers = [&](int64_t count) {
      done += count;
      progress.update(done, task.spec.name);
    };
    std::vector<std::vector<int64_t>> mine;
    std::vector<size_t> which;
    for (size_t i = 0; i < task.prompts.size(); ++i) {
      if (!is_mine(i)) continue;
      mine.push_back(task.prompts[i]);
      which.push_back(i);
    }
    std::vector<std::vector<int64_t>> answers(task.prompts.size());
    auto made = generate_until(model_, tokenizer_, mine, options);
    for (size_t k = 0; k < which.size(); ++k) answers[which[k]] = std::move(made[k]);
    if (options_.shard_count > 1) share_answers(answers, task.spec.max_new_tokens);
    for (const auto& ids : answers) {
      task.answers.push_back(
          {.scores = {}, .text = before_stop(tokenizer_.decode(ids), options.stop)});
    }
  }

  void share_answers(std::vector<std::vector<int64_t>>& answers, int64_t longest) const {
    const auto N = static_cast<int64_t>(answers.size());
    auto ids = torch::zeros({N, longest}, torch::kDouble);  // one more than the id; 0: none
    for (int64_t i = 0; i < N; ++i) {
      for (size_t k = 0; k < answers[i].size(); ++k) {
        ids[i][static_cast<int64_t>(k)] = static_cast<double>(answers[i][k] + 1);
      }
    }
    const auto all = options_.sum_over_ranks(ids).to(torch::kLong).contiguous();
    for (int64_t i = 0; i < N; ++i) {
      answers[i].clear();
      const auto* row = all.data_ptr<int64_t>() + i * longest;
      for (int64_t k = 0; k < longest && row[k] > 0; ++k) answers[i].push_back(row[k] - 1);
    }
  }

  std::vector<std::string> stop_texts(const TaskSpec& task) const {
    auto stop = task.stop;
    if (tokenizer_.eos_id() >= 0) stop.push_back(tokenizer_.piece(tokenizer_.eos_id()));
    return stop;
  }

  TaskResult summarise(const LoadedTask& task, TaskReport& report) const {
    TaskResult result{.name = task.spec.name,
                      .alias = task.spec.alias,
                      .version = task.spec.version,
                      .shots = task.shots,
                      .documents = static_cast<int64_t>(task.documents.size()),
                      .available = task.available,
                      .metrics = {},
                      .members = {},
                      .config = task_config_json(task.spec, task.shots)};
    std::vector<std::string> samples;
    const auto filters = filter_names(task.spec);
    for (size_t f = 0; f < filters.size(); ++f) {
      std::vector<std::vector<MetricValue>> values(task.spec.metrics.size());
      for (size_t i = 0; i < task.documents.size(); ++i) {
        const auto scored = score_document(task.spec, task.documents[i], task.questions[i],
                                           task.answers[i], filters[f]);
        for (size_t m = 0; m < values.size(); ++m) values[m].push_back(scored[m]);
        if (!options_.samples) continue;
        samples.push_back(sample_json({.id = static_cast<int64_t>(i),
                                       .document = task.documents[i].row,
                                       .question = task.questions[i],
                                       .answer = task.answers[i],
                                       .spec = task.spec,
                                       .filter = filters[f],
                                       .values = scored}));
      }
      for (size_t m = 0; m < values.size(); ++m) {
        const auto& metric = task.spec.metrics[m];
        result.metrics.push_back(
            {.name = metric.name,
             .filter = filters[f],
             .value = aggregate(metric.name, values[m]),
             .error = standard_error(metric.name, values[m], options_.bootstrap_iterations),
             .higher_is_better = metric.higher_is_better});
      }
    }
    if (options_.samples) report.samples.emplace_back(task.spec.name, std::move(samples));
    return result;
  }

  static TaskResult join(const TaskGroup& group, const std::map<std::string, TaskResult>& results) {
    TaskResult joined{.name = group.name,
                      .alias = group.alias,
                      .version = 2,
                      .metrics = {},
                      .members = group.members};
    std::vector<PooledTask> parts;
    for (const auto& name : tasks_of(group)) {
      const auto& task = results.at(name);
      const auto* accuracy = task.find("acc");
      parts.push_back({accuracy->value, accuracy->error, task.documents});
      joined.documents += task.documents;
      joined.available += task.available;
      joined.shots = task.shots;
    }
    joined.metrics.push_back({.name = "acc",
                              .filter = "none",
                              .value = pooled_mean(parts),
                              .error = pooled_error(parts)});
    return joined;
  }

  CausalLm model_;
  const Tokenizer& tokenizer_;
  const TaskOptions& options_;
  int64_t max_length_ = 0;
};

}  // namespace

void share_documents(TaskOptions& options, Group& group) {
  if (group.size() == 1) return;
  options.shard_index = group.rank();
  options.shard_count = group.size();
  options.sum_over_ranks = [&group](const at::Tensor& values) {
    auto sums = values.clone();
    group.all_reduce(sums).wait();
    return sums;
  };
}

const TaskMetric* TaskResult::find(const std::string& metric) const {
  const auto found = std::find_if(metrics.begin(), metrics.end(),
                                  [&](const auto& item) { return item.name == metric; });
  return found == metrics.end() ? nullptr : &*found;
}

TaskReport evaluate_tasks(CausalLm model, const Tokenizer& tokenizer, const TaskOptions& options) {
  return Harness(std::move(model), tokenizer, options).run();
}

}  // namespace zebra
