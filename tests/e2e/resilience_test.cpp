// A job that is killed, stopped, starved and whose files are damaged: it ends in the bits of the
// undisturbed one, or says why not.
#include <signal.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/hash.h"
#include "e2e/program.h"
#include "support/close_to.h"
#include "support/testing.h"
#include "zebra/safetensors.h"

namespace zebra::testing {

namespace fs = std::filesystem;

namespace {

constexpr const char* kBase = R"(
name: brief-base
output: runs/base
new_model: {tokenizer: text/tokenizer.model, hidden_size: 16, intermediate_size: 32, num_layers: 2, num_heads: 2,
            num_kv_heads: 1, head_dim: 8, max_position_embeddings: 96}
data:
  sequence_length: 32
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]
stages:
  pretrain: {tokens: 1024, batch_size: 4}
eval: {max_sequences: 4, speed: false}
threads: 1
)";

constexpr const char* kJob = R"(
name: brief
output: OUTPUT
base: {model: runs/base/stages/pretrain}
hybrid:
  mla_layers: {select: smart, count: 1}
  smart_sequences: 4
  mla: {q_lora_rank: 8, kv_lora_rank: 8, qk_nope_head_dim: 4, qk_rope_head_dim: 4, v_head_dim: 8, rope: default}
data:
  sequence_length: 32
  train: [{path: text/train.txt, format: stories}]
  validation: [{path: text/valid.txt, format: stories}]
stages:
  ild: {tokens: 1280, batch_size: 4, optimizer: {learning_rate: 3.0e-3}}
  distill: {tokens: 2560, batch_size: 4, micro_batch_size: 2, optimizer: {learning_rate: 3.0e-3}}
  dpo: {epochs: 1, batch_size: 4, beta: 0.1, train: [text/pairs.jsonl], max_length: 96, max_prompt_length: 64}
eval: {max_sequences: 4, speed: false}
checkpoint: {every_steps: 3, keep: 2}
threads: 1
)";

// Text, tokenizer, base and the undisturbed run, made once.
const fs::path& workshop() {
  static const TempFolder folder;
  static const bool made = [] {
    const auto& at = folder.path();
    make_text(at, {.stories = 60, .held_out = 10, .questions = 4, .pairs = 24});
    write_text(at / "base.yaml", kBase);
    require_success(run_zebra({"run", "base.yaml"}, at));
    std::string job = kJob;
    write_text(at / "job.yaml", job.replace(job.find("OUTPUT"), 6, "runs/whole"));
    require_success(run_zebra({"run", "job.yaml"}, at));
    return true;
  }();
  REQUIRE(made);
  return folder.path();
}

// The job into another folder of `runs`.
std::vector<std::string> job_into(const std::string& run,
                                  const std::vector<std::string>& settings = {}) {
  std::vector<std::string> arguments = {"run", "job.yaml", "--set", "output=runs/" + run};
  for (const auto& setting : settings) arguments.insert(arguments.end(), {"--set", setting});
  return arguments;
}

fs::path folder_of(const std::string& run) { return workshop() / "runs" / run; }

void check_as_whole(const std::string& run) {
  for (const char* model :
       {"init/mla", "init/mamba2", "ild/mla", "ild/mamba2", "compose", "distill", "dpo"}) {
    INFO(run << " " << model);
    const auto file = fs::path("stages") / model / "model.safetensors";
    const auto bytes = read_text(folder_of(run) / file);
    REQUIRE(!bytes.empty());
    CHECK((bytes == read_text(folder_of("whole") / file)));
  }
  CHECK(measures(folder_of(run) / "metrics.jsonl") ==
        measures(folder_of("whole") / "metrics.jsonl"));
}

bool holds(const fs::path& folder, const std::string& start, const std::string& inner = "") {
  std::error_code error;
  for (const auto& item : fs::directory_iterator(folder, error)) {
    if (!item.path().filename().string().starts_with(start)) continue;
    if (inner.empty() || fs::exists(item.path() / inner, error)) return true;
  }
  return false;
}

bool has_measured(const std::string& run, const std::string& stage, int64_t step) {
  std::ostringstream line;
  line << "{\"stage\": \"" << stage << "\", \"step\": " << step << ",";
  return read_text(folder_of(run) / "metrics.jsonl").find(line.str()) != std::string::npos;
}

// Leaves `run` stopped in the distill stage, with two checkpoints.
void stop_in_distill(const std::string& run) {
  const auto outcome = run_zebra(
      job_into(run), workshop(),
      Interruption{.signal = SIGTERM, .when = [&] { return has_measured(run, "distill", 8); }});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 75);
  CHECK_THAT(outcome.err, ContainsSubstring(" by SIGTERM, checkpoint saved"));
}

std::vector<fs::path> checkpoints_of(const std::string& run, const std::string& stage) {
  std::vector<fs::path> found;
  for (const auto& item : fs::directory_iterator(folder_of(run) / "checkpoints" / stage)) {
    if (item.path().filename().string().starts_with("step-")) found.push_back(item.path());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void damage(const fs::path& file, const std::string& how) {
  if (how == "truncated") fs::resize_file(file, fs::file_size(file) / 2);
  if (how == "removed") fs::remove(file);
  if (how == "a bit flipped") {
    std::fstream bytes(file, std::ios::binary | std::ios::in | std::ios::out);
    const auto at = static_cast<std::streamoff>(fs::file_size(file) / 3);
    bytes.seekg(at);
    const char byte = static_cast<char>(bytes.get() ^ 1);
    bytes.seekp(at);
    bytes.put(byte);
  }
  if (how == "unreadable") {  // also for root, whom permissions do not stop
    fs::remove(file);
    fs::create_directory(file);
  }
}

const std::vector<std::string> kFiles = {"COMMIT", "manifest.json", "state.json",
                                         "rank-00000-of-00001.safetensors"};
const std::vector<std::string> kDamages = {"truncated", "a bit flipped", "removed", "unreadable"};

// A run that was stopped, whose newest checkpoint is then damaged, names the damage, falls back to
// the older one and ends as the whole run did.
void check_fallback(const std::string& file, const std::string& how) {
  INFO(file << " " << how);
  fs::remove_all(folder_of("damaged"));
  fs::copy(folder_of("stopped"), folder_of("damaged"), fs::copy_options::recursive);
  const auto found = checkpoints_of("damaged", "distill");
  REQUIRE(found.size() == 2);
  damage(found.back() / file, how);
  const auto outcome = run_zebra(job_into("damaged"), workshop());
  require_success(outcome);
  CHECK_THAT(outcome.err, ContainsSubstring(found.back().filename().string() +
                                            ": damaged checkpoint passed over: ") &&
                              ContainsSubstring(file));
  const auto older = std::stoi(found.front().filename().string().substr(5));
  CHECK_THAT(outcome.err, ContainsSubstring("distill: continuing after step " +
                                            std::to_string(older) + " of 20"));
  check_as_whole("damaged");
}

void stop_once() {
  static const bool stopped = [] {
    stop_in_distill("stopped");
    return true;
  }();
  REQUIRE(stopped);
}

}  // namespace

TEST_CASE("resilience: killed in steps, saves, exports, compose and eval it ends in the same bits",
          "[e2e]") {
  const std::string run = "killed";
  const auto root = folder_of(run), saves = root / "checkpoints", stages = root / "stages";
  const std::vector<std::pair<std::string, std::function<bool()>>> moments = {
      {"init, in export", [&] { return holds(stages / "init", ".mla.partial"); }},
      {"ild, in a step", [&] { return has_measured(run, "ild.mla", 2); }},
      {"ild, in a save", [&] { return holds(saves / "ild", "tmp-step-"); }},
      {"ild, in export", [&] { return holds(stages / "ild", ".mamba2.partial"); }},
      {"in compose", [&] { return holds(stages, ".compose.partial"); }},
      {"distill, in a save", [&] { return holds(saves / "distill", "tmp-step-"); }},
      {"distill, between data and commit",
       [&] { return holds(saves / "distill", "tmp-step-", "manifest.json"); }},
      {"distill, in a step", [&] { return has_measured(run, "distill", 14); }},
      {"dpo, between data and commit",
       [&] { return holds(saves / "dpo", "tmp-step-", kFiles.back()); }},
      {"dpo, in export", [&] { return holds(stages, ".dpo.partial"); }},
      {"in eval", [&] { return fs::exists(stages / "dpo.json"); }}};
  int kills = 0;
  for (const auto& [name, when] : moments) {
    const auto outcome =
        run_zebra(job_into(run), workshop(), Interruption{.signal = SIGKILL, .when = when});
    INFO(name << "\n" << outcome.err);
    if (outcome.interrupted) ++kills;
    REQUIRE((outcome.exit_code == (outcome.interrupted ? -1 : 0) || outcome.exit_code == 0));
  }
  CHECK(kills >= 6);  // a moment may pass between two looks
  require_success(run_zebra(job_into(run), workshop()));
  check_as_whole(run);
}

TEST_CASE("resilience: a damaged file of the newest checkpoint is named, and the older one serves",
          "[e2e]") {
  stop_once();
  for (size_t i = 0; i < kFiles.size(); ++i) check_fallback(kFiles[i], kDamages[i]);
}

TEST_CASE("resilience: the same for every file and every damage", "[.slow][abuse]") {
  stop_once();
  for (const auto& file : kFiles) {
    for (const auto& how : kDamages) check_fallback(file, how);
  }
}

TEST_CASE("resilience: a damaged file of a complete stage is named, with what makes it again",
          "[e2e]") {
  workshop();
  fs::copy(folder_of("whole"), folder_of("spoiled"), fs::copy_options::recursive);
  const auto model = folder_of("spoiled") / "stages/compose/model.safetensors";
  const auto refused = [&](const std::string& how, const std::string& what) {
    damage(model, how);
    const auto outcome = run_zebra(job_into("spoiled"), workshop());
    CHECK(outcome.exit_code == 2);
    CHECK_THAT(outcome.err, ContainsSubstring("stages/compose/model.safetensors: " + what) &&
                                ContainsSubstring("run with --from compose"));
  };
  refused("a bit flipped", "expected hash ");
  refused("truncated", "expected ");
  refused("removed", "No such file");
  auto again = job_into("spoiled");
  again.insert(again.end(), {"--from", "compose"});
  require_success(run_zebra(again, workshop()));
  CHECK((read_text(model) == read_text(folder_of("whole") / "stages/compose/model.safetensors")));

  const auto path = folder_of("spoiled") / "stages/compose.json";
  auto record = nlohmann::json::parse(read_text(path));
  record.erase("files");  // as of a version that did not record them
  write_text(path, record.dump());
  damage(model, "a bit flipped");
  require_success(run_zebra(job_into("spoiled"), workshop()));
}

TEST_CASE("resilience: damaged log-probabilities of DPO's reference are computed again", "[e2e]") {
  const auto arguments = job_into("reference", {"checkpoint.keep_every=3"});
  require_success(run_zebra(arguments, workshop()));
  const auto file = folder_of("reference") / "checkpoints/dpo/reference.safetensors";
  const auto whole = read_text(file);
  auto changed = whole;
  changed.back() = static_cast<char>(changed.back() ^ 1);
  for (const auto& bytes : {changed, whole.substr(0, whole.size() / 2)}) {
    fs::remove(folder_of("reference") / "stages/dpo.json");
    fs::remove_all(checkpoints_of("reference", "dpo").back());  // as if stopped in the middle
    write_text(file, bytes);
    const auto outcome = run_zebra(arguments, workshop());
    require_success(outcome);
    CHECK_THAT(outcome.err, ContainsSubstring("dpo: continuing after step 3 of 6"));
    CHECK_THAT(outcome.err, ContainsSubstring("its values are computed again"));
    CHECK((read_text(file) == whole));
    check_as_whole("reference");
  }
}

TEST_CASE("resilience: DPO's reference goes on after the pairs that are known", "[e2e]") {
  const auto arguments = job_into("half-reference", {"checkpoint.keep_every=3"});
  require_success(run_zebra(arguments, workshop()));
  const auto file = folder_of("half-reference") / "checkpoints/dpo/reference.safetensors";
  auto metadata = SafetensorsFile(file).metadata();
  const auto whole = SafetensorsFile(file).read("log_probs");  // (2, 24)
  const auto half = whole.clone();
  half.narrow(1, 0, 8).add_(1);  // not what the model gives: computed again they would be others
  half.narrow(1, 8, 16).zero_();
  Hasher hasher;
  hasher.add_bytes(half.data_ptr(), half.nbytes());
  hasher.add(uint64_t{8});
  metadata["pairs"] = "8";
  metadata["xxh3"] = std::to_string(hasher.value());
  write_safetensors(file, {{"log_probs", half}}, metadata);

  fs::remove(folder_of("half-reference") / "stages/dpo.json");
  const auto outcome = run_zebra(arguments, workshop());
  require_success(outcome);
  CHECK_THAT(outcome.err, ContainsSubstring("dpo: the reference of 8 of 24 pairs is there"));
  const auto made = SafetensorsFile(file).read("log_probs");
  check_equal(made.narrow(1, 0, 8), half.narrow(1, 0, 8), "the pairs that were known");
  check_equal(made.narrow(1, 8, 16), whole.narrow(1, 8, 16), "the others");
}

TEST_CASE("resilience: with all checkpoints damaged the run gives up and names them", "[e2e]") {
  stop_once();
  fs::remove_all(folder_of("damaged"));
  fs::copy(folder_of("stopped"), folder_of("damaged"), fs::copy_options::recursive);
  const auto found = checkpoints_of("damaged", "distill");
  for (const auto& checkpoint : found) damage(checkpoint / kFiles.back(), "truncated");
  const auto outcome = run_zebra(job_into("damaged"), workshop());
  CHECK(outcome.exit_code == 70);
  for (const auto& checkpoint : found) {
    CHECK_THAT(outcome.err, ContainsSubstring(checkpoint.filename().string() + ": " +
                                              kFiles.back() + ": expected "));
  }
  CHECK(checkpoints_of("damaged", "distill") == found);  // nothing was lost
}

TEST_CASE("resilience: a full disk in a save names the file and loses nothing", "[e2e]") {
  const auto whole = fs::file_size(folder_of("whole") / "stages/distill/model.safetensors");
  // A checkpoint holds each weight three times, which is too much; a model is not.
  const auto outcome = run_zebra(job_into("full"), workshop(), std::nullopt,
                                 {.environment = {}, .file_limit = 2 * whole});
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err, ContainsSubstring("rank-00000-of-00001.safetensors: cannot be written: "
                                            "File too large"));
  require_success(run_zebra(job_into("full"), workshop()));
  check_as_whole("full");
}

TEST_CASE("resilience: a folder that cannot be written is refused with its name", "[e2e]") {
  const auto output = workshop() / "readonly";
  fs::create_directories(output);
  const bool mounted =
      ::geteuid() == 0 && ::mount("tmpfs", output.c_str(), "tmpfs", MS_RDONLY, "size=64k") == 0;
  if (::geteuid() == 0 && !mounted) ZEBRA_SKIP("root may write everywhere and cannot mount here");
  if (!mounted) fs::permissions(output, fs::perms::owner_read | fs::perms::owner_exec);
  const auto outcome = run_zebra({"run", "job.yaml", "--set", "output=readonly/run"}, workshop());
  if (mounted) ::umount(output.c_str());
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err, ContainsSubstring("readonly/run: cannot be created: "));
}

TEST_CASE("resilience: a second job in the folder is refused and the first one is named", "[e2e]") {
  const auto run = "held";
  auto longer = job_into(run);  // so that it still runs when the second one comes
  longer.insert(longer.end(), {"--only", "init,ild", "--set", "stages.ild.tokens=4e5"});
  Outcome second;
  const auto first =
      run_zebra(longer, workshop(), Interruption{.signal = SIGUSR1, .when = [&] {
                                                   if (!has_measured(run, "ild.mla", 1))
                                                     return false;
                                                   second = run_zebra(job_into(run), workshop());
                                                   return true;
                                                 }});
  CHECK(second.exit_code == 2);
  CHECK_THAT(second.err,
             ContainsSubstring("runs/held: another process is running in this folder: process "));
  require_success(first);
}

TEST_CASE("resilience: a wall clock that jumps by days changes nothing", "[e2e]") {
  require_success(run_zebra(job_into("jumping", {"checkpoint.every_minutes=0.001"}), workshop(),
                            std::nullopt,
                            {.environment = {{"LD_PRELOAD", ZEBRA_CLOCK_JUMP}}, .file_limit = 0}));
  check_as_whole("jumping");
}

TEST_CASE("resilience: SIGUSR1 saves and goes on, the time limit saves and stops", "[e2e]") {
  const std::vector<std::string> rarely = {"checkpoint.every_steps=1000"};
  const auto outcome = run_zebra(
      job_into("asked", rarely), workshop(),
      Interruption{.signal = SIGUSR1, .when = [] { return has_measured("asked", "distill", 2); }});
  require_success(outcome);
  CHECK(outcome.interrupted);
  check_as_whole("asked");
  auto limited = rarely;
  limited.push_back("time_limit_minutes=0.002");  // 0.12 s
  int stops = 0;
  for (Outcome part; stops < 60; ++stops) {
    part = run_zebra(job_into("limited", limited), workshop());
    INFO(part.err);
    if (part.exit_code == 0) break;
    REQUIRE(part.exit_code == 75);
    CHECK_THAT(part.err, ContainsSubstring(" by the time limit of 0.0"));
    limited.back() = "time_limit_minutes=" + std::to_string(0.002 + 0.005 * (stops + 1));
  }
  CHECK(stops > 0);
  check_as_whole("limited");
}

TEST_CASE("resilience: a checkpoint can be inspected, and converted into a model", "[e2e]") {
  stop_once();
  fs::remove_all(folder_of("inspected"));
  fs::copy(folder_of("stopped"), folder_of("inspected"), fs::copy_options::recursive);
  const auto newest = checkpoints_of("inspected", "distill").back();
  const auto inspected = run_zebra({"inspect", newest.string(), "--json"}, workshop());
  require_success(inspected);
  const auto facts = nlohmann::json::parse(inspected.out);
  CHECK(facts.at("stage") == "distill");
  CHECK(facts.at("step").get<int64_t>() >= 8);
  CHECK(facts.at("steps") == "20");
  CHECK(facts.at("groups").size() == 4);  // parameters, two moments, the generator
  const auto store = newest.parent_path().string();
  require_success(run_zebra({"convert", store, "exported", "--dtype", "fp32"}, workshop()));
  require_success(
      run_zebra({"generate", "exported", "--prompt", "Once", "--max-new-tokens", "4"}, workshop()));
  const auto again = run_zebra({"convert", store, "exported"}, workshop());
  CHECK(again.exit_code == 2);
  damage(newest / "state.json", "a bit flipped");
  const auto damaged = run_zebra({"inspect", newest.string()}, workshop());
  CHECK(damaged.exit_code == 2);
  CHECK_THAT(damaged.err, ContainsSubstring("state.json: expected hash "));
}

}  // namespace zebra::testing
