// How the program ends: exit codes, and what the user is told.
#pragma once

#include <exception>
#include <string>

namespace zebra {

constexpr int kDone = 0, kBug = 1, kUserError = 2, kGaveUp = 70, kStopped = 75;

struct Ending {
  int exit_code = kDone;
  std::string text;  // for stderr, lines without a prefix; "" when there is nothing to tell
};

// What an exception means for the user.
Ending ending_of(const std::exception_ptr& thrown);

// Writes it to stderr, every line behind the program's name; gives back the exit code.
int tell(const Ending& ending);

// Thrown by a verb that knows its ending.
class EndingError : public std::exception {
 public:
  explicit EndingError(Ending ending) : ending(std::move(ending)) {}
  Ending ending;
};

}  // namespace zebra
