// Multiple choice with a model whose log-probabilities are known in closed form.
#include "eval/models.h"

namespace zebra::testing {

namespace {

// Words that keep the space before them: encode("the cat") is "the", " cat". Ids from 3 on, in the
// order in which words appear.
class WordTokenizer : public ByteTokenizer {
 public:
  explicit WordTokenizer(bool with_bos) : with_bos_(with_bos) {}
  std::vector<int64_t> encode(std::string_view text) const override {
    std::vector<int64_t> ids;
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = std::min(text.find(' ', begin + 1), text.size());
      const auto word = std::string(text.substr(begin, end - begin));
      auto found = std::find(words_.begin(), words_.end(), word);
      if (found == words_.end()) found = words_.insert(words_.end(), word);
      ids.push_back(3 + (found - words_.begin()));
      begin = end;
    }
    return ids;
  }
  int64_t bos_id() const override { return with_bos_ ? 1 : -1; }
  int64_t eos_id() const override { return with_bos_ ? 2 : -1; }

 private:
  bool with_bos_;
  mutable std::vector<std::string> words_;
};

// Sum over the last `count` of `ids` of log p(id | the one before).
double chain(const at::Tensor& log_p, const std::vector<int64_t>& ids, size_t count) {
  double sum = 0;
  for (size_t i = ids.size() - count; i < ids.size(); ++i) {
    sum += log_p[ids[i - 1]][ids[i]].item<double>();
  }
  return sum;
}

// Questions of many lengths, so that batches are padded.
std::vector<MultipleChoice> many_questions() {
  std::vector<MultipleChoice> questions;
  for (int i = 0; i < 60; ++i) {
    MultipleChoice question;
    question.context = "Question " + std::string(static_cast<size_t>(i * 7 % 23), 'x') + ".";
    for (int c = 0; c < 3; ++c) {
      question.choices.push_back(" end" + std::to_string(i * 31 % 17 + c) +
                                 std::string(static_cast<size_t>((i + c) % 5), 'y'));
    }
    question.answer = i % 3;
    questions.push_back(question);
  }
  return questions;
}

int64_t greatest(const std::vector<double>& values) {
  return std::max_element(values.begin(), values.end()) - values.begin();
}

}  // namespace

TEST_CASE("score_choices: accuracies equal those of the chain of token probabilities") {
  const auto table = random_table(5);
  const auto log_p = table.log_softmax(-1);
  const ByteTokenizer tokenizer;
  double plain = 0, by_length = 0;
  const auto questions = many_questions();
  for (const auto& question : questions) {
    std::vector<double> sums, means;
    for (const auto& choice : question.choices) {
      auto ids = tokenizer.encode(question.context + choice);
      ids.insert(ids.begin(), 1);
      sums.push_back(chain(log_p, ids, choice.size()));
      means.push_back(sums.back() / static_cast<double>(choice.size() - 1));
    }
    plain += greatest(sums) == question.answer ? 1 : 0;
    by_length += greatest(means) == question.answer ? 1 : 0;
  }
  REQUIRE(plain != by_length);  // the two measures are told apart
  const auto scores = score_choices(bigram_model(table), tokenizer, questions);
  CHECK(scores.questions == 60);
  CHECK(scores.accuracy == Approx(plain / 60));
  CHECK(scores.accuracy_norm == Approx(by_length / 60));
}

TEST_CASE("score_choices: the length of an ending counts characters, not bytes") {
  // Every token has the same probability, so an ending's score is minus its number of bytes.
  const auto model = bigram_model(torch::zeros({kVocabulary, kVocabulary}, torch::kDouble));
  // 2 and 3 characters of 2 and 4 bytes: per character 3/2 against 5/3 with the space's token.
  const MultipleChoice question{.context = "x", .choices = {" aa", " \u00e4bc"}, .answer = 0};
  CHECK(score_choices(model, ByteTokenizer(), {question}).accuracy_norm == 1);
  // By bytes it would be 3/2 against 5/4, and the second would win.
}

TEST_CASE("score_choices: spaces at the end of a context belong to the ending") {
  auto table = random_table(6);
  const WordTokenizer tokenizer(/*with_bos=*/true);
  const auto the = tokenizer.encode("the")[0];
  const auto cat = tokenizer.encode("the cat")[1], dog = tokenizer.encode("the dog")[1];
  table[the][cat] = 30;
  table[the][dog] = 20;
  const MultipleChoice apart{.context = "the", .choices = {" dog", " cat"}, .answer = 1};
  const MultipleChoice spaced{.context = "the ", .choices = {"dog", "cat"}, .answer = 1};
  const auto scores = score_choices(bigram_model(table), tokenizer, {apart, spaced});
  CHECK(scores.accuracy == 1);
  CHECK(scores.accuracy_norm == 1);
}

TEST_CASE("score_choices: without a context the ending follows BOS") {
  auto table = random_table(7);
  const WordTokenizer tokenizer(/*with_bos=*/true);
  table[1][tokenizer.encode("dog")[0]] = 30;
  const MultipleChoice question{.context = "", .choices = {"cat", "dog"}, .answer = 1};
  CHECK(score_choices(bigram_model(table), tokenizer, {question}).accuracy == 1);
  CHECK_THROWS_WITH(
      score_choices(bigram_model(table), WordTokenizer(/*with_bos=*/false), {question}),
      ContainsSubstring("question 1: expected a context or a tokenizer with BOS, got neither"));
}

TEST_CASE("score_choices: a context that is too long loses its beginning") {
  const auto table = random_table(8);
  const auto model = bigram_model(table);  // 128 positions
  const std::string longest(300, 'z');
  const MultipleChoice cut{.context = longest + "q", .choices = {" ab", " cd"}, .answer = 0};
  const MultipleChoice whole{.context = "q", .choices = {" ab", " cd"}, .answer = 0};
  CHECK(score_choices(model, ByteTokenizer(), {cut}).accuracy ==
        score_choices(model, ByteTokenizer(), {whole}).accuracy);
  const MultipleChoice endless{.context = "q", .choices = {" a", longest}, .answer = 0};
  CHECK_THROWS_WITH(score_choices(model, ByteTokenizer(), {whole, endless}),
                    ContainsSubstring("question 2: expected an ending of at most 128 tokens, "
                                      "got 300"));
}

TEST_CASE("score_choices: an ending without text and a wrong answer are refused") {
  const auto model = tiny_model({MixerKind::kAttention}, 1);
  const MultipleChoice empty{.context = "q", .choices = {" a", " "}, .answer = 0};
  CHECK_THROWS_WITH(score_choices(model, ByteTokenizer(), {empty}),
                    ContainsSubstring("question 1: expected endings with text, got none"));
  const MultipleChoice beyond{.context = "q", .choices = {" a", " b"}, .answer = 2};
  CHECK_THROWS_WITH(score_choices(model, ByteTokenizer(), {beyond}),
                    ContainsSubstring("expected an answer in [0, 2), got 2"));
  CHECK_THROWS_AS(score_choices(model, ByteTokenizer(), {}), ConfigError);
}

}  // namespace zebra::testing
