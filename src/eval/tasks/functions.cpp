// What templates do not reach: texts that are cleaned or taken apart, and scores of their own.
#include <algorithm>
#include <cmath>

#include "base/json.h"
#include "eval/python.h"
#include "eval/regex.h"
#include "eval/tasks/task.h"
#include "zebra/error.h"

namespace zebra {

namespace {

const Document& field(const Document& document, const std::string& key, const std::string& where) {
  const auto found = document.is_object() ? document.find(key) : document.end();
  if (found == document.end()) fail_json(where, key, "a value", json(json::value_t::discarded));
  return *found;
}

std::string text_field(const Document& document, const std::string& key, const std::string& where) {
  const auto& value = field(document, key, where);
  if (!value.is_string()) fail_json(where, key, "a string", value);
  return value.get<std::string>();
}

// The index of an answer's letter or number among `names`.
int64_t answer_index(const Document& document, std::string_view names, const std::string& where) {
  const auto answer = text_field(document, "answer", where);
  const auto at = answer.size() == 1 ? names.find(answer[0]) : std::string_view::npos;
  if (at == std::string_view::npos) {
    fail_json(where, "answer", str("one character of ", names), answer);
  }
  return static_cast<int64_t>(at);
}

// The brackets are what is left of headings and links in WikiHow's articles.
std::string clean_hellaswag(const std::string& raw) {
  static const Regex brackets(R"(\[.*?\])");
  auto text = replace_all(std::string(python_strip(raw)), " [title]", ". ");
  return replace_all(brackets.replace(text, ""), "  ", " ");
}

}  // namespace

Document prepare_hellaswag(Document document, const std::string& where) {
  const auto context = text_field(document, "ctx_a", where) + " " +
                       python_capitalize(text_field(document, "ctx_b", where));
  const auto& raw = field(document, "endings", where);
  if (!raw.is_array() || raw.size() != 4) fail_json(where, "endings", "a list of four", raw);
  Document endings = Document::array();
  for (const auto& ending : raw) {
    if (!ending.is_string()) fail_json(where, "endings", "a list of strings", ending);
    endings.push_back(clean_hellaswag(ending.get<std::string>()));
  }
  const auto& label = field(document, "label", where);
  const auto text = label.is_string() ? label.get<std::string>() : label.dump();
  if (text.size() != 1 || text[0] < '0' || text[0] > '3') {
    fail_json(where, "label", "0, 1, 2 or 3", label);
  }
  document["query"] =
      clean_hellaswag(text_field(document, "activity_label", where) + ": " + context);
  document["choices"] = endings;
  document["gold"] = text[0] - '0';
  return document;
}

Document prepare_winogrande(Document document, const std::string& where) {
  const auto sentence = text_field(document, "sentence", where);
  const auto blank = sentence.find('_');
  if (blank == std::string::npos) fail_json(where, "sentence", "a blank _", sentence);
  document["contexts"] = {sentence.substr(0, blank) + text_field(document, "option1", where),
                          sentence.substr(0, blank) + text_field(document, "option2", where)};
  document["ending"] = std::string(python_strip(std::string_view(sentence).substr(blank + 1)));
  document["answer_index"] = answer_index(document, "12", where);
  return document;
}

// An article with several questions, all but the last of them answered.
Document prepare_race(Document document, const std::string& where) {
  constexpr std::string_view kBlank = "  _  .";
  const auto problems =
      parse_python_literal(text_field(document, "problems", where), where + ": problems");
  if (!problems.is_array() || problems.empty()) {
    fail_json(where, "problems", "a list of questions", problems);
  }
  auto text = "Article: " + text_field(document, "article", where) + "\n\n";
  for (const auto& problem : problems) {
    const auto question = text_field(problem, "question", where);
    const auto& options = field(problem, "options", where);
    const auto answer = answer_index(problem, "ABCD", where);
    if (!options.is_array() || options.size() < 4 || !options[answer].is_string()) {
      fail_json(where, "options", "four texts", options);
    }
    if (&problem == &problems.back()) {
      document["context"] = text + question;
      document["options"] = Document(options.begin(), options.begin() + 4);
      document["answer_index"] = answer;
    } else if (question.ends_with(kBlank)) {
      text += question.substr(0, question.size() - 5) + options[answer].get<std::string>() + "\n";
    } else {
      text += "Question: " + question + "\nAnswer: " + options[answer].get<std::string>() + "\n";
    }
  }
  return document;
}

Document prepare_wikitext(Document document, const std::string& where) {
  static const Regex parentheses(R"(\(\s*([^\)]*?)\s*\))"), brackets(R"(\[\s*([^\]]*?)\s*\])"),
      braces(R"({\s*([^}]*?)\s*})"), quotes(R"("\s*([^"]*?)\s*")"),
      apostrophes(R"('\s*([^']*?)\s*')");
  auto text = replace_all(text_field(document, "page", where), "s '", "s'");
  for (const auto& [from, to] : {std::pair{" @-@ ", "-"},
                                 {" @,@ ", ","},
                                 {" @.@ ", "."},
                                 {" : ", ": "},
                                 {" ; ", "; "},
                                 {" . ", ". "},
                                 {" ! ", "! "},
                                 {" ? ", "? "},
                                 {" , ", ", "}}) {
    text = replace_all(text, from, to);
  }
  text = parentheses.replace(text, "($1)");
  text = brackets.replace(text, "[$1]");
  text = braces.replace(text, "{$1}");
  text = quotes.replace(text, "\"$1\"");
  text = apostrophes.replace(text, "'$1'");
  for (const auto& [from, to] : {std::pair{"= = = =", "===="},
                                 {"= = =", "==="},
                                 {"= =", "=="},
                                 {" \u00b0 ", "\u00b0"},
                                 {" \n", "\n"},
                                 {"\n ", "\n"},
                                 {" N ", " 1 "},
                                 {" 's", "'s"}}) {
    text = replace_all(text, from, to);
  }
  document["detokenized"] = text;
  return document;
}

Document prepare_truthfulqa(Document document, const std::string& where) {
  const auto& targets = field(document, "mc2_targets", where);
  const auto& choices = field(targets, "choices", where + ": mc2_targets");
  const auto& labels = field(targets, "labels", where + ": mc2_targets");
  const auto is_label = [](const Document& label) { return label == 0 || label == 1; };
  if (!labels.is_array() || labels.size() != choices.size() ||
      !std::all_of(labels.begin(), labels.end(), is_label)) {
    fail_json(where, "mc2_targets.labels", str(choices.size(), " labels, 0 or 1"), labels);
  }
  return document;
}

// The share of the true answers in the probability of all.
double score_truthfulqa(const Document& document, const std::vector<LogLikelihood>& answers) {
  const auto& labels = document.at("mc2_targets").at("labels");
  double all = 0, right = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const double p = std::exp(answers[i].sum);
    all += p;
    if (labels[i] == 1) right += p;
  }
  return right / all;
}

// ---- gsm8k --------------------------------------------------------------------------------------

namespace {

constexpr const char* kNoAnswer = "[invalid]";

std::string strict_answer(const std::string& text) {
  static const Regex marked(R"(#### (\-?[0-9\.\,]+))");
  const auto found = marked.find_all(text);
  return found.empty() ? kNoAnswer : std::string(python_strip(found.front()[1]));
}

std::string last_number(const std::string& text) {
  static const Regex number(R"((-?[$0-9.,]{2,})|(-?[0-9]+))");
  const auto found = number.find_all(text);
  if (found.empty()) return kNoAnswer;
  const auto& last = found.back();
  return std::string(python_strip(last[1].empty() ? last[2] : last[1]));
}

std::string bare_answer(const std::string& text) {
  static const Regex reasoning(R"((?s).*#### )"), end(R"(\.$)");
  const auto plain = replace_all(replace_all(text, ",", ""), "$", "");
  return python_lower(end.replace(reasoning.replace(plain, ""), ""));
}

}  // namespace

const std::vector<AnswerFilter>& gsm8k_filters() {
  static const std::vector<AnswerFilter> filters = {{"strict-match", strict_answer},
                                                    {"flexible-extract", last_number}};
  return filters;
}

bool gsm8k_equal(const std::string& answer, const std::string& reference) {
  return bare_answer(answer) == bare_answer(reference);
}

}  // namespace zebra
