#include <cstdlib>
#include <map>

#include "support/testing.h"
#include "zebra/dist.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace {

// Sets variables for the time of a test; every launcher's are absent otherwise.
class Environment {
 public:
  explicit Environment(const std::map<std::string, std::string>& values) {
    for (const char* name : kNames) {
      if (const char* old = std::getenv(name)) before_[name] = old;
      ::unsetenv(name);
    }
    for (const auto& [name, value] : values) ::setenv(name.c_str(), value.c_str(), 1);
  }
  ~Environment() {
    for (const char* name : kNames) ::unsetenv(name);
    for (const auto& [name, value] : before_) ::setenv(name.c_str(), value.c_str(), 1);
  }

 private:
  static constexpr const char* kNames[] = {"RANK",
                                           "WORLD_SIZE",
                                           "LOCAL_RANK",
                                           "LOCAL_WORLD_SIZE",
                                           "MASTER_ADDR",
                                           "MASTER_PORT",
                                           "TORCHELASTIC_USE_AGENT_STORE",
                                           "TORCHELASTIC_RESTART_COUNT",
                                           "ZEBRA_AGENT",
                                           "SLURM_PROCID",
                                           "SLURM_NTASKS",
                                           "SLURM_LOCALID",
                                           "SLURM_NTASKS_PER_NODE",
                                           "OMPI_COMM_WORLD_RANK",
                                           "OMPI_COMM_WORLD_SIZE",
                                           "OMPI_COMM_WORLD_LOCAL_RANK",
                                           "OMPI_COMM_WORLD_LOCAL_SIZE"};
  std::map<std::string, std::string> before_;
};

void check_refused(std::map<std::string, std::string> values, const std::string& changed,
                   const std::string& value, const std::string& message) {
  values[changed] = value;
  const Environment environment(values);
  CHECK_THROWS_WITH(rank_from_environment(), ContainsSubstring(message));
}

const std::map<std::string, std::string> kTorchrun = {
    {"RANK", "5"},           {"WORLD_SIZE", "8"},
    {"LOCAL_RANK", "1"},     {"LOCAL_WORLD_SIZE", "4"},
    {"MASTER_ADDR", "node"}, {"MASTER_PORT", "29500"}};

}  // namespace

TEST_CASE("environment: without a launcher's variables a process is alone") {
  const Environment environment({});
  const auto info = rank_from_environment();
  CHECK(info.source.empty());
  CHECK(info.world == 1);
}

TEST_CASE("environment: torchrun's variables are read") {
  auto values = kTorchrun;
  values["TORCHELASTIC_USE_AGENT_STORE"] = "True";
  values["TORCHELASTIC_RESTART_COUNT"] = "2";
  const Environment environment(values);
  const auto info = rank_from_environment();
  CHECK(info.source == "torchrun");
  CHECK(info.rank == 5);
  CHECK(info.world == 8);
  CHECK(info.local_rank == 1);
  CHECK(info.local_world == 4);
  CHECK(info.address == "node");
  CHECK(info.port == 29500);
  CHECK(info.agent_store);
  CHECK(info.restart == 2);
}

TEST_CASE("environment: the variables of Slurm and Open MPI are read") {
  const std::map<std::string, std::string> store = {{"MASTER_ADDR", "n0"}, {"MASTER_PORT", "1234"}};
  auto slurm = store;
  slurm.insert({{"SLURM_PROCID", "3"},
                {"SLURM_NTASKS", "4"},
                {"SLURM_LOCALID", "1"},
                {"SLURM_NTASKS_PER_NODE", "2"}});
  auto mpi = store;
  mpi.insert({{"OMPI_COMM_WORLD_RANK", "3"},
              {"OMPI_COMM_WORLD_SIZE", "4"},
              {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
              {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}});
  for (const auto& [values, source] : {std::pair{slurm, "Slurm"}, std::pair{mpi, "Open MPI"}}) {
    const Environment environment(values);
    const auto info = rank_from_environment();
    CHECK(info.source == source);
    CHECK(info.rank == 3);
    CHECK(info.world == 4);
    CHECK(info.local_rank == 1);
    CHECK(info.local_world == 2);
    CHECK_FALSE(info.agent_store);
  }
}

TEST_CASE("environment: one task under Slurm needs no address") {
  const Environment environment({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "1"}});
  CHECK(rank_from_environment().source.empty());
  CHECK(launcher_in_environment().empty());
}

TEST_CASE("environment: a rank without a number of ranks, or the reverse, is refused") {
  const std::string names[] = {"RANK", "WORLD_SIZE"};
  for (const auto& missing : names) {
    auto values = kTorchrun;
    values.erase(missing);
    const Environment environment(values);
    CHECK_THROWS_WITH(rank_from_environment(),
                      Catch::Matchers::StartsWith(missing + ": expected beside"));
  }
}

TEST_CASE("environment: a launcher is known before all that its ranks need is there") {
  const Environment environment({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}});
  CHECK(launcher_in_environment() == "Slurm");
  CHECK_THROWS_WITH(rank_from_environment(), ContainsSubstring("MASTER_ADDR: expected"));
}

TEST_CASE("environment: a variable that is no number, missing or out of range is named") {
  check_refused(kTorchrun, "RANK", "two", "RANK: expected a whole number of at least 0, got 'two'");
  check_refused(kTorchrun, "WORLD_SIZE", "0", "WORLD_SIZE: expected a whole number of at least 1");
  check_refused(kTorchrun, "RANK", "8", "RANK: expected less than WORLD_SIZE, which is 8, got 8");
  check_refused(kTorchrun, "LOCAL_RANK", "4", "LOCAL_RANK: expected less than LOCAL_WORLD_SIZE");
  check_refused(kTorchrun, "MASTER_ADDR", "", "MASTER_ADDR: expected in the environment");
  check_refused(kTorchrun, "MASTER_PORT", "", "MASTER_PORT: expected in the environment");
  check_refused(kTorchrun, "MASTER_PORT", "70000", "MASTER_PORT: expected at most 65535");
}

}  // namespace zebra::testing
