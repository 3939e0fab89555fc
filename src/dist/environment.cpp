#include <array>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <string_view>

#include "zebra/dist.h"
#include "zebra/error.h"

namespace zebra {

namespace {

const char* variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

int64_t number(const char* name, const char* text, int64_t least) {
  int64_t value = 0;
  const char* end = text + std::strlen(text);
  const auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value < least) {
    throw ConfigError(
        str(name, ": expected a whole number of at least ", least, ", got '", text, "'"));
  }
  return value;
}

int64_t required(const char* name, const std::string& source, int64_t least) {
  const char* text = variable(name);
  if (text == nullptr) {
    throw ConfigError(
        str(name, ": expected in the environment of a job under ", source, ", got nothing"));
  }
  return number(name, text, least);
}

int64_t number_or(const char* name, int64_t fallback, int64_t least) {
  const char* text = variable(name);
  return text == nullptr ? fallback : number(name, text, least);
}

// The variables that one launcher sets.
struct Launcher {
  const char* source;
  const char *rank, *world, *local_rank, *local_world;
};

constexpr std::array<Launcher, 3> kLaunchers = {{
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
}};

void read_store(RankInfo& info) {
  const char* address = variable("MASTER_ADDR");
  if (address == nullptr) {
    throw ConfigError(str("MASTER_ADDR: expected in the environment of a job under ", info.source,
                          " (the host of rank 0), got nothing"));
  }
  info.address = address;
  info.port = required("MASTER_PORT", info.source, 1);
  if (info.port > 65535) {
    throw ConfigError(str("MASTER_PORT: expected at most 65535, got ", info.port));
  }
  const char* agent = variable("TORCHELASTIC_USE_AGENT_STORE");
  info.agent_store = agent != nullptr && std::strcmp(agent, "True") == 0;
  info.restart = number_or("TORCHELASTIC_RESTART_COUNT", 0, 0);
}

void check(const RankInfo& info, const Launcher& launcher) {
  if (info.rank >= info.world) {
    throw ConfigError(str(launcher.rank, ": expected less than ", launcher.world, ", which is ",
                          info.world, ", got ", info.rank));
  }
  if (info.local_rank >= info.local_world) {
    throw ConfigError(str(launcher.local_rank, ": expected less than ", launcher.local_world,
                          ", which is ", info.local_world, ", got ", info.local_rank));
  }
}

// The one that started this process as a rank; null for a process alone.
const Launcher* find_launcher() {
  for (const Launcher& launcher : kLaunchers) {
    // A batch script under Slurm has SLURM_PROCID, but only srun starts tasks with a count.
    const bool slurm = std::string_view(launcher.rank).starts_with("SLURM");
    const bool has_rank = variable(launcher.rank) != nullptr;
    const bool has_world = variable(launcher.world) != nullptr;
    if (!slurm && has_rank != has_world) {
      throw ConfigError(str(has_rank ? launcher.world : launcher.rank, ": expected beside ",
                            has_rank ? launcher.rank : launcher.world, ", which is set"));
    }
    if (!has_rank || !has_world) continue;
    const int64_t world = required(launcher.world, launcher.source, 1);
    return world == 1 && variable("MASTER_ADDR") == nullptr ? nullptr : &launcher;
  }
  return nullptr;
}

const char* source_of(const Launcher& launcher) {
  return variable("ZEBRA_AGENT") != nullptr ? "--nproc" : launcher.source;
}

}  // namespace

std::string launcher_in_environment() {
  const auto* launcher = find_launcher();
  return launcher == nullptr ? "" : source_of(*launcher);
}

RankInfo rank_from_environment() {
  const auto* launcher = find_launcher();
  if (launcher == nullptr) return {};
  RankInfo info;
  info.source = source_of(*launcher);
  info.rank = required(launcher->rank, launcher->source, 0);
  info.world = required(launcher->world, launcher->source, 1);
  info.local_rank = number_or(launcher->local_rank, 0, 0);
  // Slurm tells the tasks of a node only where the user asked for a fixed number.
  info.local_world = number_or(launcher->local_world, info.local_rank + 1, 1);
  check(info, *launcher);
  read_store(info);
  return info;
}

}  // namespace zebra
