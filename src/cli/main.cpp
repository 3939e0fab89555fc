// The program: understands the command line, runs one verb, and turns what went wrong into an exit
// code.
#include <c10/util/Exception.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <new>
#include <sstream>
#include <system_error>

#include "cli/command.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr int kDone = 0, kBug = 1, kUserError = 2, kGaveUp = 70, kStopped = 75;

void declare(CLI::App& app, Action& action) {
  app.set_version_flag("--version", "zebra " ZEBRA_VERSION);
  app.require_subcommand(1);
  app.footer(
      "zebra VERB --help tells more. Exit codes: 0 done, 2 wrong recipe, file or argument,\n"
      "75 stopped with a checkpoint (run again), 70 gave up, 1 a bug in zebra.");
  add_run(app, action);
  add_validate(app, action);
  add_recipes(app, action);
  add_inspect(app, action);
  add_convert(app, action);
  add_logits(app, action);
  add_generate(app, action);
  add_eval(app, action);
  add_data(app, action);
  add_bench(app, action);
}

// Every line of the text, so that a recipe's mistakes each stand in a line of their own.
int tell(const std::string& text, int code) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) std::cerr << "zebra: error: " << line << "\n";
  return code;
}

int tell_bug(const std::string& text) {
  std::cerr << "zebra: internal error: " << text
            << "\nThis is a bug in zebra; please report it with the command and this text.\n";
  return kBug;
}

// The disk's and the memory's errors are the user's; any other is ours.
int tell_system(const std::system_error& error) {
  const auto code = error.code();
  const bool system =
      code.category() == std::system_category() || code.category() == std::generic_category();
  if (system && code.value() != EINVAL && code.value() != EFAULT && code.value() != EBADF) {
    return tell(error.what(), kUserError);
  }
  return tell_bug(error.what());
}

int tell_memory() {
  return tell("out of memory: use a smaller batch, sequence or model, or a larger machine",
              kUserError);
}

int tell_torch(const c10::Error& error) {
  const std::string text = error.what_without_backtrace();
  if (text.find("can't allocate memory") != std::string::npos) return tell_memory();
  return tell_bug(text);
}

int run_action(const Action& action) {
  try {
    action();
    return kDone;
  } catch (const ConfigError& error) {
    return tell(error.what(), kUserError);
  } catch (const StoppedError& error) {
    std::cerr << "zebra: stopped: " << error.what() << "\n";
    return kStopped;
  } catch (const GaveUpError& error) {
    return tell(error.what(), kGaveUp);
  } catch (const c10::OutOfMemoryError&) {
    return tell_memory();
  } catch (const c10::Error& error) {
    return tell_torch(error);
  } catch (const std::bad_alloc&) {
    return tell_memory();
  } catch (const std::system_error& error) {
    return tell_system(error);
  } catch (const std::exception& error) {
    return tell_bug(error.what());
  }
}

// What is wrong with the command line, in one line.
std::string parse_mistake(const CLI::App& app, const std::string& first,
                          const CLI::ParseError& error) {
  std::vector<std::string> verbs;
  for (const auto* verb : app.get_subcommands({})) verbs.push_back(verb->get_name());
  const bool known = std::find(verbs.begin(), verbs.end(), first) != verbs.end();
  if (known || first.empty() || first[0] == '-') {
    return str(error.what(), " (see zebra ", known ? first + " " : "", "--help)");
  }
  const auto nearest = nearest_name(first, verbs);
  return str("unknown verb '", first, "'",
             nearest.empty() ? " (see zebra --help)" : str("; did you mean '", nearest, "'?"));
}

int parse_and_run(int argc, char** argv) {
  CLI::App app("Turns a pretrained Llama into a hybrid of MLA and Mamba2 layers.", "zebra");
  Action action;
  declare(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& success) {  // --help, --version
    return app.exit(success);
  } catch (const CLI::ParseError& error) {
    return tell(parse_mistake(app, argc > 1 ? argv[1] : "", error), kUserError);
  }
  return run_action(action);
}

}  // namespace

}  // namespace zebra

int main(int argc, char** argv) { return zebra::parse_and_run(argc, argv); }
