// The program: understands the command line, runs one verb, and turns what went wrong into an exit
// code.
#include <algorithm>
#include <csignal>

#include "cli/command.h"
#include "cli/ending.h"
#include "zebra/error.h"

namespace zebra {

namespace {

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
  add_chat(app, action);
  add_bench(app, action);
}

int run_action(const Action& action) {
  try {
    action();
    return kDone;
  } catch (...) {
    return tell(ending_of(std::current_exception()));
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
    return tell({kUserError, parse_mistake(app, argc > 1 ? argv[1] : "", error)});
  }
  return run_action(action);
}

}  // namespace

}  // namespace zebra

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond `ulimit -f` is told as any that cannot be written
  return zebra::parse_and_run(argc, argv);
}
