// The whole job on a small model that the test makes itself: what it writes, that it continues, and
// that killing it changes nothing.
#include <signal.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>

#include "e2e/program.h"
#include "support/testing.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

constexpr const char* kPretrain = R"(
name: small-base
seed: 3
output: runs/base
new_model: {tokenizer: text/tokenizer.model, hidden_size: 32, intermediate_size: 64, num_layers: 4, num_heads: 4,
            num_kv_heads: 2, head_dim: 8, max_position_embeddings: 160}
data:
  sequence_length: 64
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]
stages:
  pretrain: {tokens: 60000, batch_size: 8, optimizer: {learning_rate: 3.0e-3}}
eval: {max_sequences: 8, speed: false}
checkpoint: {every_steps: 10}
)";

constexpr const char* kChain = R"(
name: small-chain
seed: 3
output: OUTPUT
base: {model: runs/base/stages/pretrain}
hybrid:
  mla_layers: {select: smart, count: 2}
  smart_sequences: 4
  mla: {q_lora_rank: 16, kv_lora_rank: 8, qk_nope_head_dim: 4, qk_rope_head_dim: 4, v_head_dim: 8, rope: default}
data:
  sequence_length: 64
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]
stages:
  ild: {tokens: 40000, batch_size: 8, micro_batch_size: 4, optimizer: {learning_rate: 3.0e-3}}
  distill: {tokens: 60000, batch_size: 8, micro_batch_size: 4, optimizer: {learning_rate: 3.0e-3}}
  dpo: {epochs: 1, batch_size: 8, beta: 0.1, train: [text/pairs.jsonl], validation: [text/pairs.jsonl],
        max_length: 160, max_prompt_length: 96, optimizer: {learning_rate: 1.0e-4}}
eval:
  max_sequences: 8
  choices: text/choices.jsonl
  speed: false
  tasks: [piqa]
  data: rows
  published: [{task: piqa, metric: acc, base: 74.32, hybrid: 72.96}]
checkpoint: {every_steps: 7}
)";

std::string chain_recipe(const std::string& output) {
  std::string text = kChain;
  return text.replace(text.find("OUTPUT"), 6, output);
}

// Text, tokenizer and base model, made once for all tests of this file.
const fs::path& workshop() {
  static const TempFolder folder;
  static const bool made = [] {
    const auto& at = folder.path();
    make_text(at, {.stories = 300, .held_out = 40, .questions = 12, .pairs = 40});
    write_text(at / "base.yaml", kPretrain);
    require_success(run_zebra({"run", "base.yaml"}, at));
    write_text(at / "rows/piqa/validation.jsonl",
               "{\"goal\":\"Open it\",\"sol1\":\"Push\",\"sol2\":\"Eat\",\"label\":0}\n"
               "{\"goal\":\"Shut it\",\"sol1\":\"Burn\",\"sol2\":\"Pull\",\"label\":1}\n");
    write_text(at / "chain.yaml", chain_recipe("runs/chain"));
    require_success(run_zebra({"run", "chain.yaml"}, at));
    return true;
  }();
  REQUIRE(made);
  return folder.path();
}

nlohmann::json summary(const std::string& run) {
  return nlohmann::json::parse(read_text(workshop() / "runs" / run / "summary.json"));
}

fs::path metrics_of(const std::string& run) { return workshop() / "runs" / run / "metrics.jsonl"; }

void check_same_models(const std::string& run, const std::string& other) {
  for (const char* stage :
       {"init/mla", "init/mamba2", "ild/mla", "ild/mamba2", "compose", "distill", "dpo"}) {
    INFO(stage);
    const auto file = fs::path("stages") / stage / "model.safetensors";
    const auto bytes = read_text(workshop() / "runs" / run / file);
    REQUIRE(!bytes.empty());
    CHECK((bytes == read_text(workshop() / "runs" / other / file)));
  }
  CHECK(measures(metrics_of(run)) == measures(metrics_of(other)));
}

}  // namespace

TEST_CASE("chain: the summary holds every stage, and training helps", "[e2e]") {
  const auto all = summary("chain");
  for (const char* row : {"base", "init", "composed", "distill", "dpo"}) {
    INFO(row);
    for (const char* key : {"nats_per_token", "bits_per_byte", "kl_per_token", "top1_agreement",
                            "accuracy", "preference_accuracy"}) {
      INFO(key);
      CHECK(all.at("stages").at(row).at(key).is_number());
    }
  }
  const auto kl = [&](const char* row) {
    return all.at("stages").at(row).at("kl_per_token").get<double>();
  };
  CHECK(kl("base") == Approx(0).margin(1e-6));
  CHECK(kl("composed") < kl("init"));
  CHECK(kl("distill") < kl("composed"));
  CHECK(all.at("cache").at("kv_share").get<double>() == Approx(2.0 * 12 / (4 * 32)));
  CHECK(read_text(workshop() / "runs/chain/report.html").find("small-chain") != std::string::npos);
}

TEST_CASE("chain: harness tasks run on every model, with published scores beside", "[e2e]") {
  const auto all = summary("chain");
  for (const char* model : {"base", "init", "composed", "distill", "dpo"}) {
    INFO(model);
    const auto score = all.at("stages").at(model).at("tasks").at("piqa,acc").get<double>();
    CHECK((score == 0 || score == 0.5 || score == 1));
  }
  CHECK(all.at("students").at("mla").at("ild").at("tasks").contains("piqa,acc_norm_stderr"));
  CHECK_FALSE(all.at("students").at("mla").at("init").contains("tasks"));
  for (const char* file : {"base", "init", "ild-mla", "ild-mamba2", "composed", "distill", "dpo"}) {
    INFO(file);
    const auto results = nlohmann::json::parse(
        read_text(workshop() / "runs/chain/tasks" / (std::string(file) + ".json")));
    CHECK(results.at("results").at("piqa").at("sample_len") == 2);
  }
  const auto report = read_text(workshop() / "runs/chain/report.html");
  CHECK_THAT(report, ContainsSubstring("published hybrid"));
  CHECK_THAT(report, ContainsSubstring("72.96"));
}

TEST_CASE("chain: ranks share out the documents of tasks in the eval stage", "[e2e]") {
  const auto all = summary("chain");
  fs::copy(workshop() / "runs/chain", workshop() / "runs/shared", fs::copy_options::recursive);
  require_success(run_zebra(
      {"run", "chain.yaml", "--set", "output=runs/shared", "--nproc", "2", "--from", "eval"},
      workshop()));
  const auto shared = summary("shared");
  CHECK(shared.at("students") == all.at("students"));
  CHECK(shared.at("stages") == all.at("stages"));
}

TEST_CASE("chain: the first DPO loss is ln 2", "[e2e]") {
  std::istringstream lines(measures(metrics_of("chain")));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.at("stage") != "dpo") continue;
    CHECK(std::abs(json.at("loss").get<double>() - std::log(2.0)) <= 1e-6);
    return;
  }
  FAIL("no DPO step in metrics.jsonl");
}

TEST_CASE("chain: a second run does nothing, a changed recipe is refused", "[e2e]") {
  const auto before =
      fs::last_write_time(workshop() / "runs/chain/stages/distill/model.safetensors");
  const auto recipe = read_text(workshop() / "runs/chain/recipe.resolved.yaml");
  require_success(run_zebra({"run", "chain.yaml"}, workshop()));
  CHECK(fs::last_write_time(workshop() / "runs/chain/stages/distill/model.safetensors") == before);
  const auto changed = run_zebra(
      {"run", "chain.yaml", "--set", "stages.distill.optimizer.learning_rate=1e-3"}, workshop());
  CHECK(changed.exit_code == 2);
  CHECK_THAT(changed.err,
             ContainsSubstring("stage distill was made from other inputs or settings"));
  CHECK(read_text(workshop() / "runs/chain/recipe.resolved.yaml") == recipe);
}

TEST_CASE(
    "chain: other held-out text is measured again, and nothing is trained again, nor for a "
    "teacher that is the base",
    "[e2e]") {
  fs::copy(workshop() / "runs/chain", workshop() / "runs/later", fs::copy_options::recursive);
  const auto model = workshop() / "runs/later/stages/dpo/model.safetensors";
  const auto before = fs::last_write_time(model);
  write_text(workshop() / "runs/base/stages/pretrain/README.md", "What this model is.\n");
  require_success(run_zebra({"run", "chain.yaml", "--set", "output=runs/later", "--set",
                             "data.validation.0.path=text/train.txt", "--set",
                             "teacher={model: runs/base/stages/pretrain}"},
                            workshop()));
  CHECK(fs::last_write_time(model) == before);
  CHECK(summary("later").at("stages").at("dpo").at("nats_per_token") !=
        summary("chain").at("stages").at("dpo").at("nats_per_token"));
}

TEST_CASE("chain: stopped by SIGTERM it exits with 75 and continues to the same bits", "[e2e]") {
  write_text(workshop() / "stopped.yaml", chain_recipe("runs/stopped"));
  int stops = 0;
  for (double seconds = 1.5;; seconds += 0.5) {
    const auto outcome =
        run_zebra({"run", "stopped.yaml"}, workshop(), Interruption{seconds, SIGTERM});
    INFO(outcome.err);
    if (outcome.exit_code == 0) break;
    CHECK((outcome.exit_code == 75 ||
           outcome.exit_code == -1));  // -1: before the handler was installed
    REQUIRE(++stops < 40);
  }
  CHECK(stops > 0);
  check_same_models("stopped", "chain");
}

TEST_CASE("chain: killed ten times at random moments it ends in the same bits", "[e2e][slow]") {
  write_text(workshop() / "killed.yaml", chain_recipe("runs/killed"));
  std::mt19937 random(11);
  std::uniform_real_distribution<double> moment(0.3, 2.5);
  for (int kills = 0; kills < 10; ++kills) {
    run_zebra({"run", "killed.yaml"}, workshop(), Interruption{moment(random), SIGKILL});
  }
  require_success(run_zebra({"run", "killed.yaml"}, workshop()));
  check_same_models("killed", "chain");
}

TEST_CASE("chain: two runs in one folder are refused", "[e2e]") {
  write_text(workshop() / "locked.yaml", chain_recipe("runs/chain"));
  const fs::path lock = workshop() / "runs/chain/.lock";
  REQUIRE(::system(("flock -x " + lock.string() + " -c 'sleep 3' &").c_str()) == 0);
  const auto outcome = run_zebra({"run", "locked.yaml"}, workshop(), Interruption{10, SIGKILL});
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err, ContainsSubstring("another process is running in this folder"));
}

}  // namespace zebra::testing
