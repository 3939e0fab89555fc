#include "eval/tasks/documents.h"

#include <algorithm>

#include "base/file.h"
#include "eval/python.h"
#include "zebra/error.h"
#include "zebra/options.h"

namespace zebra {

namespace {

namespace fs = std::filesystem;

Document parse_row(std::string_view line, const std::string& where) {
  try {
    auto row = Document::parse(line);
    if (row.is_object()) return row;
  } catch (const Document::parse_error&) {
    // told below, as any other row that is no object
  }
  throw ConfigError(str(where, ": expected a JSON object, got ", excerpt(line)));
}

std::string split_file(const TaskSpec& task, const std::string& data, const std::string& split) {
  const auto named = task.files.find(split);
  const auto file = named != task.files.end() ? fs::path(named->second)
                                              : fs::path(data) / task.folder / (split + ".jsonl");
  if (!fs::is_regular_file(file)) {
    throw ConfigError(str(task.name, ": expected the rows of split ", split, " in ", file.string(),
                          ", which is no file"));
  }
  return file.string();
}

// ---- templates and fields

// A field of the document, or a template over its fields.
Document resolve(const std::string& text, const TaskDocument& document, const char* key) {
  const auto found = document.fields.find(text);
  if (found != document.fields.end()) return *found;
  if (is_template(text) || text.empty()) {
    return evaluate_template(text, document.fields, document.where);
  }
  std::vector<std::string> names;
  for (const auto& item : document.fields.items()) names.push_back(item.key());
  const auto nearest = nearest_name(text, names);
  throw ConfigError(str(document.where, ": ", key,
                        ": expected a field of the row or a template, got '", excerpt(text), "'",
                        nearest.empty() ? "" : "; did you mean " + nearest + "?"));
}

bool is_number(const std::string& text) {
  return !text.empty() && text.size() < 10 &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

// As the harness reads it: what a template renders to digits is an index among the choices.
Document resolve_target(const TaskSpec& task, const std::string& text, const TaskDocument& document,
                        const char* key) {
  auto value = resolve(text, document, key);
  const bool from_template = !document.fields.contains(text);
  if (from_template && !task.choices.empty() && value.is_string() &&
      is_number(value.get<std::string>())) {
    return std::stoll(value.get<std::string>());
  }
  return value;
}

std::string as_prompt(const Document& value, const TaskDocument& document, const char* key) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer()) return value.dump();
  throw ConfigError(str(document.where, ": ", key, ": expected text, got ", value.dump()));
}

std::vector<std::string> resolve_choices(const TaskSpec& task, const TaskDocument& document) {
  std::vector<std::string> choices;
  if (task.choices.size() == 1) {
    const auto list = resolve(task.choices[0], document, "doc_to_choice");
    if (!list.is_array() || list.empty()) {
      throw ConfigError(
          str(document.where, ": doc_to_choice: expected a list of texts, got ", list.dump()));
    }
    for (const auto& choice : list) choices.push_back(as_prompt(choice, document, "doc_to_choice"));
    return choices;
  }
  return task.choices;
}

int64_t answer_index(const Document& answer, const std::vector<std::string>& choices,
                     const TaskDocument& document) {
  const auto count = static_cast<int64_t>(choices.size());
  if (answer.is_number_integer()) {
    const auto index = answer.get<int64_t>();
    if (index >= 0 && index < count) return index;
  } else if (answer.is_string()) {
    const auto found = std::find(choices.begin(), choices.end(), answer.get<std::string>());
    if (found != choices.end()) return found - choices.begin();
  }
  throw ConfigError(str(document.where, ": answer: expected an index in [0, ", count,
                        ") or one of the choices, got ", answer.dump()));
}

// ---- prompts

struct Turn {
  std::string role, content, delimiter;
};

std::string join_with(const std::string& first, const std::string& second,
                      const std::string& delimiter) {
  if (first.empty() || second.empty()) return first + second;
  const bool spaced =
      python_rstrip(first).size() < first.size() || python_lstrip(second).size() < second.size();
  return first + (spaced ? "" : delimiter) + second;
}

// One user's turn that holds all examples, or every turn for itself.
std::string render_chat(std::vector<Turn> turns, const TaskOptions& options) {
  std::vector<ChatMessage> chat;
  if (options.fewshot_as_multiturn) {
    for (const auto& turn : turns) chat.push_back({turn.role, turn.content});
    return options.chat_template(chat);
  }
  if (turns.front().role == "system") {
    chat.push_back({"system", turns.front().content});
    turns.erase(turns.begin());
  }
  turns.back().delimiter.clear();
  std::string user;
  for (const auto& turn : turns) user += turn.content + turn.delimiter;
  chat.push_back({"user", user});
  return options.chat_template(chat);
}

std::string render(const std::vector<Turn>& turns, const TaskOptions& options) {
  if (options.chat_template) return render_chat(turns, options);
  std::string text;
  for (const auto& turn : turns) text += turn.content + turn.delimiter;
  return text;
}

// Draws the examples of one document after the other.
class Examples {
 public:
  Examples(const TaskSpec& task, const std::vector<TaskDocument>& pool, int64_t shots,
           uint64_t seed)
      : task_(task), pool_(pool), shots_(static_cast<size_t>(shots)), random_(seed) {
    // The harness leaves a document out of its own examples where both splits have the same name,
    // and also where neither has one.
    excludes_own_ = task.fewshot_split == task.test;
    const size_t needed = shots_ + (excludes_own_ && shots_ > 0 && drawn() ? 1 : 0);
    if (pool.size() < needed) {
      throw ConfigError(str(task.name, ": ", shots, " examples: expected at least ", needed,
                            " rows in split ", task.fewshot_pool(), ", got ", pool.size()));
    }
  }

  std::vector<const TaskDocument*> draw(const TaskDocument& document) {
    std::vector<const TaskDocument*> examples;
    if (shots_ == 0) return examples;
    const auto add = [&](size_t index) {
      const auto& example = pool_[index];
      const bool own = excludes_own_ && example.row == document.row;
      if (!own && examples.size() < shots_) examples.push_back(&example);
    };
    if (drawn()) {
      for (const size_t i : random_.sample(pool_.size(), shots_ + (excludes_own_ ? 1 : 0))) add(i);
    } else {
      for (size_t i = 0; i < pool_.size(); ++i) add(i);
    }
    if (examples.size() < shots_) examples = draw_among_others(document);
    return examples;
  }

 private:
  bool drawn() const { return task_.fewshot_order == FewshotOrder::kSampled; }

  // Copies of the document itself were drawn: once more, from the others.
  std::vector<const TaskDocument*> draw_among_others(const TaskDocument& document) {
    std::vector<const TaskDocument*> others, examples;
    for (const auto& example : pool_) {
      if (example.row != document.row) others.push_back(&example);
    }
    if (others.size() < shots_) {
      throw ConfigError(str(document.where, ": expected ", shots_, " other rows as examples, got ",
                            others.size()));
    }
    for (const size_t i : random_.sample(others.size(), shots_)) examples.push_back(others[i]);
    return examples;
  }

  const TaskSpec& task_;
  const std::vector<TaskDocument>& pool_;
  size_t shots_;
  PythonRandom random_;
  bool excludes_own_ = false;
};

// The turns of an example with its answer.
void add_example(const TaskSpec& task, const TaskDocument& example, std::vector<Turn>& turns) {
  const auto target = resolve_target(task, task.target, example, "doc_to_target");
  std::string question, answer;
  if (task.choices_are_contexts) {
    const auto choices = resolve_choices(task, example);
    const auto right = resolve_target(task, task.text, example, "doc_to_text");
    question = choices[static_cast<size_t>(answer_index(right, choices, example))];
    answer = as_prompt(target, example, "doc_to_target");
  } else {
    question = as_prompt(resolve(task.text, example, "doc_to_text"), example, "doc_to_text");
    answer = as_prompt(target, example, "doc_to_target");
    if (!task.choices.empty() && target.is_number_integer()) {
      const auto choices = resolve_choices(task, example);
      answer = choices[static_cast<size_t>(answer_index(target, choices, example))];
    }
  }
  turns.push_back({"user", question, answer.empty() ? "" : task.target_delimiter});
  if (!answer.empty()) turns.push_back({"assistant", answer, task.fewshot_delimiter});
}

std::vector<Turn> turns_before(const TaskSpec& task, const TaskDocument& document,
                               const std::vector<const TaskDocument*>& examples,
                               const TaskOptions& options) {
  std::vector<Turn> turns;
  const auto system = join_with(options.system_instruction,
                                render_template(task.description, document.fields, document.where),
                                task.fewshot_delimiter);
  if (!system.empty()) turns.push_back({"system", system, ""});
  for (const auto* example : examples) add_example(task, *example, turns);
  return turns;
}

TaskQuestion make_question(const TaskSpec& task, const TaskDocument& document,
                           const std::vector<Turn>& before, const TaskOptions& options) {
  TaskQuestion question;
  const auto prompt = [&](const std::string& text) {
    auto turns = before;
    turns.push_back({"user", text, ""});
    return render(turns, options);
  };
  question.target = resolve_target(task, task.target, document, "doc_to_target");
  const auto target = as_prompt(question.target, document, "doc_to_target");
  if (task.kind == TaskKind::kRolling) {
    question.requests = {{"", target}};
    return question;
  }
  const auto text = resolve_target(task, task.text, document, "doc_to_text");
  if (task.kind != TaskKind::kMultipleChoice) {
    const auto context = prompt(as_prompt(text, document, "doc_to_text"));
    question.target = target;  // gsm8k compares texts, also where a row holds a number
    question.requests = {{context, task.kind == TaskKind::kLogLikelihood ? target : ""}};
    return question;
  }
  question.choices = resolve_choices(task, document);
  const std::string delimiter = options.chat_template ? "" : task.target_delimiter;
  const auto& answer = task.choices_are_contexts ? text : question.target;
  question.answer = answer_index(answer, question.choices, document);
  if (task.choices_are_contexts) {
    for (const auto& choice : question.choices) {
      question.requests.push_back({prompt(choice), delimiter + target});
    }
  } else {
    const auto context = prompt(as_prompt(text, document, "doc_to_text"));
    for (const auto& choice : question.choices) {
      question.requests.push_back({context, delimiter + choice});
    }
  }
  return question;
}

}  // namespace

TaskRows read_rows(const TaskSpec& task, const std::string& data, const std::string& split,
                   int64_t limit) {
  const auto file = split_file(task, data, split);
  const auto text = read_file(file);
  TaskRows rows;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const auto end = std::min(text.find('\n', begin), text.size());
    const auto line = python_strip(std::string_view(text).substr(begin, end - begin));
    begin = end + 1;
    ++line_number;
    if (line.empty()) continue;
    if (limit > 0 && ++rows.available > limit) continue;
    rows.available += limit > 0 ? 0 : 1;
    TaskDocument document;
    document.where = str(file, ":", line_number);
    document.row = parse_row(line, document.where);
    document.fields = task.prepare ? task.prepare(document.row, document.where) : document.row;
    if (task.prepared_is_document) document.row = document.fields;
    rows.documents.push_back(std::move(document));
  }
  if (rows.documents.empty()) throw ConfigError(str(file, ": expected rows, got none"));
  return rows;
}

std::vector<TaskQuestion> make_questions(TaskSpec task, const std::vector<TaskDocument>& documents,
                                         const std::vector<TaskDocument>& pool, int64_t shots,
                                         const TaskOptions& options) {
  // As in the harness, the first document tells whether texts are indices among the contexts.
  if (task.kind == TaskKind::kMultipleChoice) {
    const auto text = resolve_target(task, task.text, documents.at(0), "doc_to_text");
    task.choices_are_contexts = text.is_number_integer();
  }
  Examples examples(task, pool, shots, options.fewshot_seed);
  std::vector<TaskQuestion> questions;
  for (const auto& document : documents) {
    const auto before = turns_before(task, document, examples.draw(document), options);
    questions.push_back(make_question(task, document, before, options));
  }
  return questions;
}

}  // namespace zebra
