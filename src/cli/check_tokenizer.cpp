// zebra data check-tokenizer: a tokenizer against ids that another program gave for the same texts.
#include <algorithm>
#include <charconv>

#include "base/file.h"
#include "cli/command.h"
#include "zebra/error.h"

namespace zebra {

namespace {

constexpr std::string_view kSeparator = "__ggml_vocab_test__";  // on a line of its own
constexpr size_t kShown = 40;                                   // bytes of a text in a message

// Each text ends with a separator's line; one that does not, at the end of the file, counts as
// well.
std::vector<std::string_view> split_inputs(std::string_view file) {
  std::vector<std::string_view> texts;
  size_t begin = 0, line = 0;
  while (line < file.size()) {
    const auto end = std::min(file.find('\n', line), file.size());
    const auto next = std::min(end + 1, file.size());
    if (file.substr(line, end - line) == kSeparator) {
      texts.push_back(file.substr(begin, line > begin ? line - 1 - begin : 0));
      begin = next;
    }
    line = next;
  }
  if (begin < file.size()) texts.push_back(file.substr(begin));
  return texts;
}

std::string on_one_line(std::string_view text) {
  return nlohmann::json(std::string(text))
      .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

std::vector<int64_t> parse_ids(std::string_view line, const std::string& where) {
  std::vector<int64_t> ids;
  const char* at = line.data();
  const char* end = at + line.size();
  while (true) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\r')) ++at;
    if (at == end) return ids;
    int64_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    const bool whole = next == end || *next == ' ' || *next == '\t' || *next == '\r';
    if (error != std::errc() || !whole) {
      throw ConfigError(str(where, ": expected ids with spaces between them, got '",
                            std::string_view(at, std::min<size_t>(end - at, kShown)), "'"));
    }
    ids.push_back(id);
    at = next;
  }
}

std::vector<std::vector<int64_t>> read_expected(const std::string& file) {
  const std::string text = read_file(file);
  std::vector<std::vector<int64_t>> all;
  for (std::string_view rest = text; !rest.empty();) {
    const auto line = rest.substr(0, rest.find('\n'));
    all.push_back(parse_ids(line, str(file, ":", all.size() + 1)));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
  }
  return all;
}

std::string id_text(const std::vector<int64_t>& ids, size_t at, const Tokenizer& tokenizer) {
  if (at >= ids.size()) return "no more";
  const bool known = ids[at] >= 0 && ids[at] < tokenizer.vocab_size();
  return str(ids[at], " (", known ? on_one_line(tokenizer.piece(ids[at])) : "not in the vocabulary",
             ")");
}

void check_tokenizer(const std::string& file, const std::string& inputs,
                     const std::string& expected) {
  const auto tokenizer = load_tokenizer(file);
  const std::string text = read_file(inputs);
  const auto texts = split_inputs(text);
  if (texts.empty()) throw ConfigError(str(inputs, ": expected texts, got none"));
  const auto ids = read_expected(expected);
  if (texts.size() != ids.size()) {
    throw ConfigError(str(expected, ": expected a line for each of the ", texts.size(),
                          " texts of ", inputs, ", got ", ids.size()));
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto got = tokenizer->encode(texts[i]);
    if (got == ids[i]) continue;
    const auto differ = std::mismatch(got.begin(), got.end(), ids[i].begin(), ids[i].end()).first;
    const auto at = static_cast<size_t>(differ - got.begin());
    const auto shown = on_one_line(texts[i].substr(0, kShown));
    throw ConfigError(str(inputs, ": text ", i + 1, " of ", texts.size(), ", ", shown, ": id ",
                          at + 1, ": expected ", id_text(ids[i], at, *tokenizer), ", got ",
                          id_text(got, at, *tokenizer)));
  }
  print(str(texts.size(), " texts: the same ids\n"));
}

}  // namespace

void add_check_tokenizer(CLI::App& data, Action& action) {
  struct Flags {
    std::string file, inputs, expected;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = add_verb(data, "check-tokenizer",
                        "Compare a tokenizer's ids with those that another program gave",
                        "zebra data check-tokenizer models/llama --inputs vocab.inp --expected "
                        "vocab.out");
  verb->add_option("tokenizer", flags->file, "Model folder or tokenizer file")
      ->required()
      ->type_name("FILE");
  verb->add_option("--inputs", flags->inputs,
                   "Texts, each followed by a line __ggml_vocab_test__; read as bytes")
      ->required()
      ->type_name("F");
  verb->add_option("--expected", flags->expected, "A line of ids for each text, without BOS")
      ->required()
      ->type_name("F");
  verb->callback([flags, &action] {
    action = [flags] { check_tokenizer(flags->file, flags->inputs, flags->expected); };
  });
}

}  // namespace zebra
