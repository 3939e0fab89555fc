// The whole job on several ranks: the same losses and weights as one process, and what happens when
// a rank is lost, stopped or fails.
#include <signal.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "e2e/program.h"
#include "support/group_ranks.h"
#include "support/testing.h"
#include "zebra/safetensors.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

constexpr const char* kBase = R"(
name: ranks-base
seed: 3
output: runs/base
new_model: {tokenizer: text/tokenizer.model, hidden_size: 32, intermediate_size: 64, num_layers: 3, num_heads: 4,
            num_kv_heads: 2, head_dim: 8, max_position_embeddings: 128}
data:
  sequence_length: 48
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]
stages:
  pretrain: {tokens: 30000, batch_size: 8, optimizer: {learning_rate: 3.0e-3}}
eval: {max_sequences: 4, speed: false}
)";

// Every stage that trains, on packed sequences. AdamW divides gradients by their own size, also
// those that are rounding alone; eps keeps these from moving weights to where the order of a sum
// says.
constexpr const char* kJob = R"(
name: ranks
seed: 3
output: OUTPUT
base: {model: runs/base/stages/pretrain}
hybrid:
  mla_layers: [1]
  mla: {q_lora_rank: 16, kv_lora_rank: 8, qk_nope_head_dim: 4, qk_rope_head_dim: 4, v_head_dim: 8, rope: default}
data:
  sequence_length: 48
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]
stages:
  ild: {tokens: 7680, batch_size: 8, micro_batch_size: 4, optimizer: {learning_rate: 1.0e-3, eps: 1.0e-5}}
  distill: {tokens: 7680, batch_size: 8, micro_batch_size: 2, ce_weight: 1.0,
            optimizer: {learning_rate: 1.0e-3, eps: 1.0e-5}}
  dpo: {epochs: 4, batch_size: 8, micro_batch_size: 2, beta: 0.1, train: [text/pairs.jsonl],
        max_length: 96, max_prompt_length: 48, optimizer: {learning_rate: 1.0e-4, eps: 1.0e-5}}
eval: {max_sequences: 4, speed: false}
checkpoint: {every_steps: 5}
)";

std::string job(const std::string& output) {
  std::string text = kJob;
  return text.replace(text.find("OUTPUT"), 6, "runs/" + output);
}

// Text, tokenizer, base model, and the job done by one process.
const fs::path& workshop() {
  static const TempFolder folder;
  static const bool made = [] {
    const auto& at = folder.path();
    make_text(at, {.stories = 160, .held_out = 20, .questions = 4, .pairs = 40});
    write_text(at / "base.yaml", kBase);
    require_success(run_zebra({"run", "base.yaml"}, at));
    write_text(at / "one.yaml", job("one"));
    require_success(run_zebra({"run", "one.yaml"}, at));
    return true;
  }();
  REQUIRE(made);
  return folder.path();
}

Outcome run_job(const std::string& output, std::vector<std::string> more,
                const std::optional<Interruption>& interruption = std::nullopt) {
  write_text(workshop() / (output + ".yaml"), job(output));
  more.insert(more.begin(), {"run", output + ".yaml"});
  return run_zebra(more, workshop(), interruption);
}

// What every step measured, by "stage step".
std::map<std::string, nlohmann::json> steps_of(const std::string& run) {
  std::istringstream lines(read_text(workshop() / "runs" / run / "metrics.jsonl"));
  std::map<std::string, nlohmann::json> steps;
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    std::ostringstream key;
    key << json.at("stage").get<std::string>() << " " << json.at("step");
    CHECK(steps.emplace(key.str(), json).second);  // nothing twice
  }
  return steps;
}

// Losses relative to themselves, weights to the largest of their tensor.
struct Bounds {
  double loss = 1e-6, weight = 1e-5;
};

void check_near(const std::string& run, const std::string& other, const Bounds& bounds = {}) {
  const auto got = steps_of(run), expected = steps_of(other);
  REQUIRE(got.size() == expected.size());
  for (const auto& [key, step] : expected) {
    INFO(key << ": " << got.at(key) << " and " << step);
    const double loss = step.at("loss"), own = got.at(key).at("loss");
    CHECK(std::abs(own - loss) <= bounds.loss * std::abs(loss));
    CHECK(got.at(key).at("samples") == step.at("samples"));
  }
  for (const char* stage : {"ild/mla", "ild/mamba2", "distill", "dpo"}) {
    const auto file = fs::path("stages") / stage / "model.safetensors";
    const SafetensorsFile mine(workshop() / "runs" / run / file);
    const SafetensorsFile theirs(workshop() / "runs" / other / file);
    for (const auto& [name, info] : theirs.tensors()) {
      INFO(stage << " " << name);
      const auto weight = theirs.read(name), own = mine.read(name);
      const double largest = weight.abs().max().item<double>();
      CHECK((own - weight).abs().max().item<double>() <= bounds.weight * largest);
    }
  }
}

void check_same_models(const std::string& run, const std::string& other) {
  for (const char* stage : {"ild/mla", "ild/mamba2", "compose", "distill", "dpo"}) {
    INFO(stage);
    const auto file = fs::path("stages") / stage / "model.safetensors";
    const auto bytes = read_text(workshop() / "runs" / run / file);
    REQUIRE(!bytes.empty());
    CHECK((bytes == read_text(workshop() / "runs" / other / file)));
  }
}

int count(const std::string& text, const std::string& what) {
  int found = 0;
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
  return found;
}

// Sends a signal to the given rank of a job in the workshop, once `metrics` has this many lines.
void signal_rank(int rank, int signal, const fs::path& metrics, int64_t lines) {
  const std::string wanted = "RANK=" + std::to_string(rank);
  for (int tries = 0; tries < 6000; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
    if (!fs::exists(metrics) || count(read_text(metrics), "\n") < lines) continue;
    for (const auto& entry : fs::directory_iterator("/proc")) {
      std::error_code gone;
      if (fs::read_symlink(entry.path() / "cwd", gone) != workshop() || gone) continue;
      const auto environment = std::string(1, '\0') + read_text(entry.path() / "environ");
      if (environment.find('\0' + wanted + '\0') == std::string::npos) continue;
      ::kill(std::stoi(entry.path().filename().string()), signal);
      return;
    }
  }
}

}  // namespace

TEST_CASE("ranks: every stage gives one process's losses and weights", "[e2e]") {
  workshop();
  require_success(
      run_job("two", {"--nproc", "2", "--set", "parallel.sharding=full", "--set",
                      "parallel.recompute=smart", "--set", "parallel.teacher_sharding=layer"}));
  check_near("two", "one");
  require_success(run_job("four", {"--nproc", "4", "--set", "parallel.sharding=zero1", "--set",
                                   "parallel.recompute=full"}));
  check_near("four", "one");
}

// AdamW's own eps and KL alone, which float32 cannot tell from a fault: see docs/reliability.md.
TEST_CASE("ranks: in fp64 nothing but the last digits is left between one process and many",
          "[e2e]") {
  workshop();
  std::vector<std::string> settings = {"--set", "dtype=fp64", "--set",
                                       "stages.distill.ce_weight=0"};
  for (const char* stage : {"ild", "distill", "dpo"}) {
    settings.insert(settings.end(),
                    {"--set", std::string("stages.") + stage + ".optimizer.eps=1e-8"});
  }
  require_success(run_job("double-one", settings));
  settings.insert(settings.end(), {"--nproc", "2", "--set", "parallel.sharding=full", "--set",
                                   "parallel.recompute=full"});
  require_success(run_job("double-two", settings));
  check_near("double-two", "double-one", {.loss = 1e-10, .weight = 1e-9});
}

// In float32 with AdamW's own eps, stopped in every stage, and moved to another number of ranks.
TEST_CASE(
    "ranks: with bit_equal the bits are the same whatever the ranks, also of a job that moves",
    "[e2e]") {
  workshop();
  std::vector<std::string> settings = {"--set", "parallel.bit_equal=true"};
  for (const char* stage : {"ild", "distill", "dpo"}) {
    settings.insert(settings.end(),
                    {"--set", std::string("stages.") + stage + ".optimizer.eps=1e-8"});
  }
  require_success(run_job("equal-one", settings));
  const auto warned = [](const char* run) {
    return count(read_text(workshop() / "runs" / run / "log.txt"), "set threads") > 0;
  };
  const bool strict = __builtin_cpu_is("intel") && __builtin_cpu_supports("avx2");
  CHECK(warned("equal-one") == !strict);  // where MKL cannot be asked
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), settings.begin(), settings.end());
    return more;
  };
  require_success(run_job("equal-four", with({"--nproc", "4", "--set", "parallel.sharding=zero2",
                                              "--set", "parallel.recompute=smart"})));
  check_near("equal-four", "equal-one", {.loss = 0, .weight = 0});
  require_success(run_job("equal-threads", with({"--threads", "1", "--only", "init"})));
  CHECK_FALSE(warned("equal-threads"));
  const auto metrics = workshop() / "runs/equal-moved/metrics.jsonl";
  const auto stopped_at = [&](int lines, const std::vector<std::string>& more) {
    const auto there = [&] {
      return fs::exists(metrics) && count(read_text(metrics), "\n") >= lines;
    };
    CHECK(run_job("equal-moved", with(more), Interruption{.signal = SIGTERM, .when = there})
              .exit_code == 75);
  };
  stopped_at(15, {"--nproc", "2", "--set", "parallel.sharding=full"});
  stopped_at(45, {"--nproc", "4"});
  stopped_at(65, {});
  require_success(run_job("equal-moved", with({"--nproc", "2"})));
  check_near("equal-moved", "equal-one", {.loss = 0, .weight = 0});
  check_same_models("equal-moved", "equal-one");
}

TEST_CASE("ranks: only the first writes results, the others a log of their own", "[e2e]") {
  workshop();
  require_success(run_job("logs", {"--nproc", "2", "--set", "parallel.sharding=zero2"}));
  check_near("logs", "one");
  const auto folder = workshop() / "runs/logs";
  CHECK(fs::exists(folder / "log.txt"));
  CHECK(fs::exists(folder / "log.rank-1.txt"));
  CHECK(fs::exists(folder / "summary.json"));
  CHECK_FALSE(fs::exists(folder / "log.rank-0.txt"));
}

TEST_CASE("ranks: a rank that is killed brings the group back to the same bits", "[e2e]") {
  workshop();
  require_success(run_job("undisturbed", {"--nproc", "2"}));
  std::thread killer([] { signal_rank(1, SIGKILL, workshop() / "runs/killed/metrics.jsonl", 28); });
  const auto outcome = run_job("killed", {"--nproc", "2"});
  killer.join();
  require_success(outcome);
  CHECK_THAT(outcome.err, ContainsSubstring("rank 1 was killed by signal 9"));
  CHECK_THAT(outcome.err, ContainsSubstring("restart 1 of 3 with 2 ranks"));
  check_same_models("killed", "undisturbed");
}

TEST_CASE("ranks: a rank that hangs is named when the time-out is over, and started again",
          "[e2e]") {
  workshop();
  std::thread stopper([] { signal_rank(1, SIGSTOP, workshop() / "runs/hung/metrics.jsonl", 28); });
  const auto outcome = run_job("hung", {"--nproc", "2", "--set", "parallel.timeout_seconds=8"});
  stopper.join();
  require_success(outcome);
  CHECK_THAT(outcome.err, ContainsSubstring("rank 1 did not answer in time; restart 1 of 3"));
  check_near("hung", "one");
}

TEST_CASE("ranks: without an agent the loss of a rank is told once, in one line", "[e2e]") {
  write_text(workshop() / "lost.yaml", job("lost"));
  const auto port = std::to_string(free_port());
  const auto launch = [&](const char* rank) {
    Surroundings launcher;
    launcher.environment = {{"RANK", rank},        {"LOCAL_RANK", rank},
                            {"WORLD_SIZE", "2"},   {"LOCAL_WORLD_SIZE", "2"},
                            {"MASTER_PORT", port}, {"MASTER_ADDR", "127.0.0.1"}};
    return run_zebra({"run", "lost.yaml"}, workshop(), std::nullopt, launcher);
  };
  std::thread leader([&] { launch("0"); });
  std::thread killer([] { signal_rank(0, SIGKILL, workshop() / "runs/lost/metrics.jsonl", 28); });
  const auto left = launch("1");
  killer.join();
  leader.join();
  INFO(left.err);
  CHECK(left.exit_code == 76);
  CHECK(count(left.err, "lost another rank") == 1);
  CHECK(left.err.starts_with("zebra: error: rank 1: lost another rank"));
  CHECK(count(left.err, "\n") == 1);
}

TEST_CASE("ranks: --nproc beside another launcher is refused by name", "[e2e]") {
  write_text(workshop() / "both.yaml", job("both"));
  Surroundings slurm;
  slurm.environment = {{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}};
  check_refused(run_zebra({"run", "both.yaml", "--nproc", "2"}, workshop(), std::nullopt, slurm),
                "--nproc: expected no other launcher, got the ranks of Slurm");
}

TEST_CASE("ranks: the memory that each sharding leaves is the same in every measurement", "[e2e]") {
  const auto measured = [] {
    const auto out =
        require_success(run_zebra({"bench", "memory", "--model", "runs/base/stages/pretrain",
                                   "--sequence-length", "48", "--nproc", "2", "--json"},
                                  workshop()));
    return nlohmann::json::parse(out).at("rows");
  };
  const auto rows = measured(), again = measured();
  for (size_t i = 0; i < rows.size(); ++i) {
    INFO(rows[i]);
    const double bytes = rows[i].at("bytes"), other = again.at(i).at("bytes");
    CHECK(std::abs(bytes - other) <= 64);  // of a collective that is just ending
  }
}

TEST_CASE("ranks: SIGTERM to the agent saves, exits with 75, and other sizes go on: 4, 2, 1, 4",
          "[e2e]") {
  workshop();
  const auto metrics = workshop() / "runs/moved/metrics.jsonl";
  const auto stopped_at = [&](int lines, const std::vector<std::string>& ranks) {
    const auto there = [&] {
      return fs::exists(metrics) && count(read_text(metrics), "\n") >= lines;
    };
    const auto outcome = run_job("moved", ranks, Interruption{.signal = SIGTERM, .when = there});
    INFO(outcome.err);
    CHECK(outcome.exit_code == 75);
  };
  // Twenty steps of each stage: forty lines of ILD, twenty of distillation, twenty of DPO.
  stopped_at(15, {"--nproc", "4", "--set", "parallel.sharding=zero2"});
  stopped_at(45, {"--nproc", "2"});
  stopped_at(65, {});
  require_success(run_job("moved", {"--nproc", "4", "--set", "parallel.sharding=full"}));
  check_near("moved", "one");
}

TEST_CASE("ranks: what is wrong for all is told once", "[e2e]") {
  workshop();
  const auto outcome =
      run_job("wrong", {"--nproc", "3", "--set", "stages.ild.batch_size=9", "--set",
                        "stages.ild.micro_batch_size=3", "--set", "stages.distill.batch_size=12",
                        "--set", "stages.dpo.batch_size=6", "--set", "base.model=runs/none"});
  CHECK(outcome.exit_code == 2);
  INFO(outcome.err);
  CHECK(count(outcome.err, "zebra: error:") == 1);
  CHECK_THAT(outcome.err, ContainsSubstring("runs/none"));
}

TEST_CASE("ranks: a number of ranks that does not divide the batch is refused", "[e2e]") {
  const auto outcome = run_job("odd", {"--nproc", "3"});
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err, ContainsSubstring("--nproc: expected a number that divides"));
}

TEST_CASE("ranks: steps that are not finite are skipped with their samples, then the run gives up",
          "[e2e]") {
  workshop();
  const auto outcome =
      run_job("diverged",
              {"--nproc", "2", "--set", "stages.distill.optimizer.learning_rate=1e30", "--set",
               "stages.distill.optimizer.clip_norm=0", "--set", "stability.max_skips_in_row=2"});
  CHECK(outcome.exit_code == 70);
  CHECK(count(outcome.err, "zebra: error:") == 1);
  CHECK_THAT(outcome.err, ContainsSubstring("3 steps in a row were skipped"));
  CHECK_THAT(read_text(workshop() / "runs/diverged/metrics.jsonl"),
             ContainsSubstring("\"skipped_samples\": ["));
}

}  // namespace zebra::testing
