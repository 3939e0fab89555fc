#include "data/records.h"
#include "data/sources.h"
#include "zebra/dataset.h"
#include "zebra/error.h"

namespace zebra {

std::vector<MultipleChoice> read_multiple_choice(const std::string& path) {
  std::vector<MultipleChoice> questions;
  for (const auto& file : expand_glob(path)) {
    for (const auto& [value, where] : read_json_records(file)) {
      MultipleChoice question{
          .context = require<std::string>(value, "context", where),
          .choices = require<std::vector<std::string>>(value, "choices", where),
          .answer = require<int64_t>(value, "answer", where),
      };
      const auto count = static_cast<int64_t>(question.choices.size());
      if (count < 2) fail_json(where, "choices", "two strings or more", value["choices"]);
      if (question.answer < 0 || question.answer >= count) {
        fail_json(where, "answer", str("0 ... ", count - 1), question.answer);
      }
      questions.push_back(std::move(question));
    }
  }
  if (questions.empty()) throw ConfigError(str(path, ": expected questions, got none"));
  return questions;
}

}  // namespace zebra
