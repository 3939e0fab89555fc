// Which tasks a list of names means.
#pragma once

#include <string>
#include <vector>

#include "eval/tasks/task.h"

namespace zebra {

struct TaskSelection {
  std::vector<TaskSpec> tasks;
  std::vector<const TaskGroup*> groups;
  std::vector<std::string> order;  // names of both, a group before its members, each once
};

// Names of tasks, of groups, and YAML files. ConfigError for an empty list, an unknown name (with
// the nearest), and a task of the user's own under a name that is taken.
TaskSelection select_tasks(const std::vector<std::string>& names);

std::vector<std::string> tasks_of(const TaskGroup& group);  // those of its groups, too

}  // namespace zebra
