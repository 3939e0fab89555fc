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

std::vector<std::string> verbs_of(const CLI::App& app) {
  std::vector<std::string> names;
  for (const auto* verb : app.get_subcommands({})) names.push_back(verb->get_name());
  return names;
}

// What is wrong with the command line, in one line: the first word that is no verb, or else what
// the parser says of the verb that was meant.
std::string parse_mistake(const CLI::App& program, const std::vector<std::string>& words,
                          const CLI::ParseError& error) {
  const auto* app = &program;
  std::string path = "zebra";
  for (const auto& word : words) {
    const auto verbs = verbs_of(*app);
    if (verbs.empty() || word.starts_with('-')) break;
    if (std::find(verbs.begin(), verbs.end(), word) == verbs.end()) {
      const auto nearest = nearest_name(word, verbs);
      return str("unknown verb '", word, "'",
                 nearest.empty() ? str(" (see ", path, " --help)")
                                 : str("; did you mean '", nearest, "'?"));
    }
    path += " " + word;
    app = app->get_subcommand(word);
  }
  return str(error.what(), " (see ", path, " --help)");
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
    return tell({kUserError, parse_mistake(app, {argv + 1, argv + argc}, error)});
  }
  return run_action(action);
}

}  // namespace

}  // namespace zebra

int main(int argc, char** argv) {
  std::signal(SIGXFSZ, SIG_IGN);  // a file beyond `ulimit -f` is told as any that cannot be written
  return zebra::parse_and_run(argc, argv);
}
