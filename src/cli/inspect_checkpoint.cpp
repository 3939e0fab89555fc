// zebra inspect of a training checkpoint
#include <iomanip>
#include <sstream>

#include "cli/command.h"
#include "zebra/checkpoint.h"
#include "zebra/error.h"

namespace zebra {

namespace {

std::string state_or(const SavedCheckpoint& checkpoint, const std::string& key) {
  const auto found = checkpoint.state().find(key);
  return found == checkpoint.state().end() ? "?" : found->second;
}

struct Group {
  int64_t tensors = 0, values = 0;
  uint64_t bytes = 0;
};

// Tensors by what they are: all of "mla/parameter.model.norm.weight"'s kind in "mla/parameter".
std::map<std::string, Group> groups_of(const SavedCheckpoint& checkpoint) {
  std::map<std::string, Group> groups;
  for (const auto& [name, info] : checkpoint.tensors()) {
    auto& group = groups[name.substr(0, name.find('.'))];
    int64_t values = 1;
    for (const int64_t size : info.shape) values *= size;
    ++group.tensors;
    group.values += values;
    group.bytes += static_cast<uint64_t>(values) * c10::elementSize(info.dtype);
  }
  return groups;
}

nlohmann::ordered_json checkpoint_json(const SavedCheckpoint& checkpoint) {
  nlohmann::ordered_json groups = nlohmann::ordered_json::object();
  for (const auto& [name, group] : groups_of(checkpoint)) {
    groups[name] = {{"tensors", group.tensors}, {"values", group.values}, {"bytes", group.bytes}};
  }
  return {{"checkpoint", checkpoint.folder().string()},
          {"stage", state_or(checkpoint, "stage")},
          {"step", checkpoint.step()},
          {"steps", state_or(checkpoint, "steps")},
          {"ranks", checkpoint.world()},
          {"seconds", state_or(checkpoint, "seconds")},
          {"intact", true},
          {"groups", groups}};
}

std::string checkpoint_text(const SavedCheckpoint& checkpoint) {
  std::ostringstream out;
  out << "checkpoint  " << checkpoint.folder().string() << ", every byte verified\n"
      << "stage       " << state_or(checkpoint, "stage") << "\n"
      << "step        " << checkpoint.step() << " of " << state_or(checkpoint, "steps") << ", "
      << state_or(checkpoint, "seconds") << " s of training\n"
      << "written by  " << checkpoint.world() << (checkpoint.world() == 1 ? " rank" : " ranks")
      << "\n";
  for (const auto& [name, group] : groups_of(checkpoint)) {
    out << std::setw(14) << "" << name << ": " << group.tensors
        << (group.tensors == 1 ? " tensor, " : " tensors, ") << group.values << " values, "
        << group.bytes << " bytes\n";
  }
  return out.str();
}

}  // namespace

void inspect_checkpoint(const std::string& path, bool json) {
  const auto checkpoint = open_checkpoint(path);
  if (json) return print_json(checkpoint_json(checkpoint));
  print(checkpoint_text(checkpoint));
}

}  // namespace zebra
