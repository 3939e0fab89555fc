#include "eval/tasks/selection.h"

#include <algorithm>

#include "eval/python.h"
#include "zebra/error.h"
#include "zebra/options.h"
#include "zebra/tasks.h"

namespace zebra {

namespace {

// The entry of that name, or nullptr.
template <class Entry>
const Entry* find_entry(const std::vector<Entry>& all, const std::string& name) {
  const auto found =
      std::find_if(all.begin(), all.end(), [&](const auto& entry) { return entry.name == name; });
  return found == all.end() ? nullptr : &*found;
}

bool is_yaml(const std::string& name) { return name.ends_with(".yaml") || name.ends_with(".yml"); }

[[noreturn]] void fail_unknown(const std::string& name) {
  const auto nearest = nearest_name(python_lower(name), task_names());
  if (!nearest.empty()) {
    throw ConfigError(str("unknown task '", name, "'; did you mean '", nearest, "'?"));
  }
  std::string known;
  for (const auto& task : known_tasks()) {
    if (!task.name.starts_with("mmlu_")) known += task.name + ", ";
  }
  throw ConfigError(str("unknown task '", name, "'; known are ", known, "mmlu, mmlu_SUBJECT, and ",
                        "YAML files"));
}

void add(TaskSelection& selection, const std::string& name) {
  auto& order = selection.order;
  const auto is_taken = [&](const std::string& word) {
    return std::find(order.begin(), order.end(), word) != order.end();
  };
  if (is_yaml(name)) {
    auto task = read_task(name);
    if (is_taken(task.name) || find_entry(known_tasks(), task.name) ||
        find_entry(known_groups(), task.name)) {
      throw ConfigError(str(name, ": task: expected a name of its own, got ", task.name,
                            ", which another task has"));
    }
    order.push_back(task.name);
    selection.tasks.push_back(std::move(task));
    return;
  }
  if (is_taken(name)) return;
  order.push_back(name);
  if (const auto* group = find_entry(known_groups(), name)) {
    selection.groups.push_back(group);
    for (const auto& member : group->members) add(selection, member);
  } else if (const auto* task = find_entry(known_tasks(), name)) {
    selection.tasks.push_back(*task);
  } else {
    fail_unknown(name);
  }
}

}  // namespace

TaskSelection select_tasks(const std::vector<std::string>& names) {
  TaskSelection selection;
  for (const auto& name : names) add(selection, name);
  if (selection.tasks.empty()) throw ConfigError("tasks: expected at least one, got none");
  return selection;
}

std::vector<std::string> tasks_of(const TaskGroup& group) {
  std::vector<std::string> tasks;
  for (const auto& member : group.members) {
    const auto* inner = find_entry(known_groups(), member);
    const auto below = inner ? tasks_of(*inner) : std::vector<std::string>{member};
    tasks.insert(tasks.end(), below.begin(), below.end());
  }
  return tasks;
}

std::vector<std::string> task_names() {
  std::vector<std::string> names;
  for (const auto& task : known_tasks()) names.push_back(task.name);
  for (const auto& group : known_groups()) names.push_back(group.name);
  return names;
}

}  // namespace zebra
