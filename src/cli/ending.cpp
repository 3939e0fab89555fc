#include "cli/ending.h"

#include <c10/util/Exception.h>

#include <cerrno>
#include <iostream>
#include <new>
#include <sstream>
#include <system_error>

#include "zebra/error.h"

namespace zebra {

namespace {

Ending bug(const std::string& text) { return {kBug, text}; }

// The disk's and the memory's errors are the user's; any other is ours.
Ending system_ending(const std::system_error& error) {
  const auto code = error.code();
  const bool system =
      code.category() == std::system_category() || code.category() == std::generic_category();
  if (system && code.value() != EINVAL && code.value() != EFAULT && code.value() != EBADF) {
    return {kUserError, error.what()};
  }
  return bug(error.what());
}

Ending out_of_memory() {
  return {kUserError, "out of memory: use a smaller batch, sequence or model, or a larger machine"};
}

Ending torch_ending(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  return text.find("can't allocate memory") != std::string::npos ? out_of_memory() : bug(text);
}

}  // namespace

Ending ending_of(const std::exception_ptr& thrown) {
  try {
    std::rethrow_exception(thrown);
  } catch (const EndingError& error) {
    return error.ending;
  } catch (const ConfigError& error) {
    return {kUserError, error.what()};
  } catch (const StoppedError& error) {
    return {kStopped, error.what()};
  } catch (const GaveUpError& error) {
    return {kGaveUp, error.what()};
  } catch (const c10::OutOfMemoryError&) {
    return out_of_memory();
  } catch (const c10::Error& error) {
    return torch_ending(error);
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::system_error& error) {
    return system_ending(error);
  } catch (const std::exception& error) {
    return bug(error.what());
  }
}

int tell(const Ending& ending) {
  if (ending.text.empty()) return ending.exit_code;
  if (ending.exit_code == kBug) {
    std::cerr << "zebra: internal error: " << ending.text
              << "\nThis is a bug in zebra; please report it with the command and this text."
              << std::endl;
    return kBug;
  }
  const char* kind = ending.exit_code == kStopped ? "zebra: stopped: " : "zebra: error: ";
  std::istringstream lines(ending.text);
  for (std::string line; std::getline(lines, line);) std::cerr << kind << line << "\n";
  std::cerr << std::flush;
  return ending.exit_code;
}

}  // namespace zebra
