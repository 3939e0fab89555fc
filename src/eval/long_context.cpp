#include "eval/long_context.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/signals.h"
#include "data/random.h"
#include "data/stories.h"
#include "eval/log_probs.h"
#include "eval/text_stream.h"
#include "zebra/error.h"
#include "zebra/losses.h"
#include "zebra/options.h"

namespace zebra {

namespace {

constexpr uint64_t kStoryStream = 77;  // of the stories that hide the needles
constexpr int64_t kAnswerTokens = 48;

constexpr std::array kThings = {"lantern", "harbor",  "violin", "orchard", "compass",   "bakery",
                                "castle",  "glacier", "parrot", "saddle",  "telescope", "quarry",
                                "meadow",  "anchor",  "walnut", "chimney"};

// What a task puts into the text, and what it asks.
struct Material {
  struct Needle {
    double depth;
    std::string text;
  };
  std::vector<Needle> needles;
  std::string instruction, question;
  std::vector<std::string> answers;
  std::vector<std::string> list;  // when not empty, the text is drawn from these words
};

std::string six_digits(Random& random) { return std::to_string(100000 + random.below(900000)); }

double somewhere(Random& random) { return static_cast<double>(random.below(1000)) / 1000; }

// Things in an order of the seed's own.
std::vector<std::string> shuffled_things(Random& random) {
  std::vector<std::string> things(kThings.begin(), kThings.end());
  for (size_t i = things.size(); i > 1; --i) std::swap(things[i - 1], things[random.below(i)]);
  return things;
}

std::string needle(const std::string& thing, const std::string& number) {
  return "The secret number of the " + thing + " is " + number + ".";
}

Material ask_for_numbers(const std::string& thing) {
  return {.needles = {},
          .instruction = "Somewhere in this text a secret number is told. Remember it.",
          .question = "What is the secret number of the " + thing + "? The secret number of the " +
                      thing + " is",
          .answers = {},
          .list = {}};
}

Material one_needle(Random& random, double depth) {
  const auto thing = shuffled_things(random).front(), number = six_digits(random);
  auto material = ask_for_numbers(thing);
  material.needles = {{depth, needle(thing, number)}};
  material.answers = {number};
  return material;
}

// The numbers of other things lie about.
Material needle_among_others(Random& random, double depth) {
  const auto things = shuffled_things(random);
  const auto number = six_digits(random);
  auto material = ask_for_numbers(things[0]);
  material.needles = {{depth, needle(things[0], number)}};
  for (size_t i = 1; i < 4; ++i) {
    material.needles.push_back({somewhere(random), needle(things[i], six_digits(random))});
  }
  material.answers = {number};
  return material;
}

// One thing has several numbers, and all are asked for.
Material several_values(Random& random, double depth) {
  const auto thing = shuffled_things(random).front();
  auto material = ask_for_numbers(thing);
  material.question = "What are all the secret numbers of the " + thing +
                      "? The secret numbers of the " + thing + " are";
  for (int i = 0; i < 4; ++i) {
    material.answers.push_back(six_digits(random));
    material.needles.push_back(
        {i == 0 ? depth : somewhere(random), needle(thing, material.answers.back())});
  }
  return material;
}

// A value is handed on from name to name; all names that have it are asked for.
Material variable_tracking(Random& random, double depth) {
  const auto things = shuffled_things(random);
  const auto value = six_digits(random);
  Material material{.needles = {},
                    .instruction = "Follow how the boxes are filled.",
                    .question = "Which boxes hold " + value + "? The boxes that hold " + value +
                                " are the boxes of the",
                    .answers = {},
                    .list = {}};
  double place = depth;
  for (size_t i = 0; i < 4; ++i) {
    const auto content = i == 0 ? value : "what the box of the " + things[i - 1] + " holds";
    material.needles.push_back({place, "The box of the " + things[i] + " holds " + content + "."});
    material.answers.push_back(things[i]);
    place += (1 - place) * (0.2 + 0.6 * somewhere(random));
  }
  material.needles.push_back(
      {somewhere(random), "The box of the " + things[4] + " holds " + six_digits(random) + "."});
  return material;
}

// A list of words, three of which come far more often than the others.
Material common_words(Random& random, double /*depth*/) {
  const auto things = shuffled_things(random);
  Material material{.needles = {},
                    .instruction = "Below is a list of words. Remember the commonest ones.",
                    .question = "What are the three commonest words of the list? They are",
                    .answers = {things[0], things[1], things[2]},
                    .list = {}};
  for (const auto& word : material.answers) material.list.insert(material.list.end(), 9, word);
  material.list.insert(material.list.end(), things.begin() + 3, things.end());
  return material;
}

struct Task {
  const char* name;
  Material (*make)(Random& random, double depth);
};
constexpr std::array kTasks = {
    Task{"niah_single", one_needle}, Task{"niah_multikey", needle_among_others},
    Task{"niah_multivalue", several_values}, Task{"variable_tracking", variable_tracking},
    Task{"common_words", common_words}};

const Task& task_of(const std::string& name) {
  for (const auto& task : kTasks) {
    if (name == task.name) return task;
  }
  const auto nearest = nearest_name(name, long_context_tasks());
  throw ConfigError(str("long-context task: expected one of the known ones, got '", name, "'",
                        nearest.empty() ? "" : str("; did you mean '", nearest, "'?")));
}

Material material_of(const std::string& task, double depth, uint64_t seed) {
  Random random(mix_keys(seed, 1));
  return task_of(task).make(random, depth);
}

// Sentences of generated stories, or words of a list, one after another.
class Filler {
 public:
  Filler(const Material& material, uint64_t seed)
      : material_(material), seed_(seed), random_(mix_keys(seed, 2)) {}

  std::string next() {
    if (!material_.list.empty()) return material_.list[random_.below(material_.list.size())];
    while (next_ == sentences_.size()) cut_next_story();
    return sentences_[next_++];
  }

 private:
  void cut_next_story() {
    const auto text = story::make_story(seed_, kStoryStream, stories_++, /*held_out=*/false).text();
    for (size_t begin = 0; begin < text.size();) {
      size_t end = text.find_first_of(".!?", begin);
      end = end == std::string::npos ? text.size() : text.find_first_of(" \n", end);
      if (end == std::string::npos) end = text.size();
      sentences_.push_back(text.substr(begin, end - begin));
      begin = text.find_first_not_of(" \n", end);
      if (begin == std::string::npos) break;
    }
  }

  const Material& material_;
  uint64_t seed_;
  Random random_;
  int64_t stories_ = 0;
  size_t next_ = 0;
  std::vector<std::string> sentences_;
};

// The first `count` sentences with the needles at their places among them.
std::string compose(const Material& material, const std::vector<std::string>& sentences,
                    size_t count) {
  auto needles = material.needles;
  std::stable_sort(needles.begin(), needles.end(),
                   [](const auto& a, const auto& b) { return a.depth < b.depth; });
  std::string text = material.instruction + "\n";
  size_t next = 0;
  for (size_t i = 0; i <= count; ++i) {
    const double here = count == 0 ? 1.0 : static_cast<double>(i) / static_cast<double>(count);
    while (next < needles.size() && (needles[next].depth <= here || i == count)) {
      text += needles[next++].text + " ";
    }
    if (i < count) text += sentences[i] + " ";
  }
  text.back() = '\n';
  return text + material.question;
}

std::string lower(std::string text) {
  for (auto& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace

std::vector<std::string> long_context_tasks() {
  std::vector<std::string> names;
  for (const auto& task : kTasks) names.emplace_back(task.name);
  return names;
}

LongContextSample make_long_context_sample(const Tokenizer& tokenizer, const std::string& task,
                                           int64_t tokens, double depth, uint64_t seed) {
  const auto material = material_of(task, depth, seed);
  const auto length = [&](const std::string& text) {
    return static_cast<int64_t>(tokenizer.encode(text).size());
  };
  Filler filler(material, seed);
  std::vector<std::string> sentences;
  const auto fits = [&](size_t count) {
    return length(compose(material, sentences, count)) <= tokens;
  };
  if (!fits(0)) {
    throw ConfigError(str("long-context ", task, ": expected room for at least ",
                          length(compose(material, sentences, 0)), " tokens, got ", tokens));
  }
  while (fits(sentences.size())) {
    const size_t more = std::max<size_t>(8, sentences.size() / 4);
    for (size_t i = 0; i < more; ++i) sentences.push_back(filler.next());
  }
  size_t enough = 0, too_many = sentences.size();
  while (enough + 1 < too_many) {
    const size_t middle = (enough + too_many) / 2;
    (fits(middle) ? enough : too_many) = middle;
  }
  auto prompt = compose(material, sentences, enough);
  const int64_t got = length(prompt);
  return {std::move(prompt), material.answers, got};
}

double contained_share(const std::string& text, const std::vector<std::string>& answers) {
  const auto folded = lower(text);
  const auto found = std::count_if(answers.begin(), answers.end(), [&](const auto& answer) {
    return folded.find(lower(answer)) != std::string::npos;
  });
  return static_cast<double>(found) / static_cast<double>(answers.size());
}

namespace {

struct Place {
  double depth;
  uint64_t seed;
};
Place place_of(const LongContextTest& test, int64_t sample, uint64_t seed) {
  const auto last = static_cast<double>(test.samples - 1);
  return {test.samples == 1 ? 0.5 : static_cast<double>(sample) / last, mix_keys(seed, sample)};
}

// Tokens of a test that are no text.
int64_t reserved_tokens(const Tokenizer& tokenizer) {
  return kAnswerTokens + (tokenizer.adds_bos() ? 1 : 0);
}

}  // namespace

void check_long_context(const Tokenizer& tokenizer, const LongContextTest& test, uint64_t seed) {
  int64_t least = 0;  // tokens of a text without any filling
  for (int64_t i = 0; i < test.samples; ++i) {
    const auto place = place_of(test, i, seed);
    const auto text = compose(material_of(test.task, place.depth, place.seed), {}, 0);
    least = std::max(least, static_cast<int64_t>(tokenizer.encode(text).size()));
  }
  const int64_t reserved = reserved_tokens(tokenizer);
  if (least + reserved <= test.tokens) return;
  throw ConfigError(str("long-context ", test.task, ": expected a length of at least ",
                        least + reserved, " tokens, ", reserved, " of them for ",
                        tokenizer.adds_bos() ? "BOS and the answer" : "the answer", ", got ",
                        test.tokens));
}

LongContextScore score_long_context(CausalLm model, const Tokenizer& tokenizer,
                                    const LongContextTest& test, const GenerateOptions& options) {
  check_long_context(tokenizer, test, options.seed);
  auto settings = options;
  settings.max_new_tokens = kAnswerTokens;
  LongContextScore result{.task = test.task, .tokens = test.tokens, .score = 0, .by_depth = {}};
  for (int64_t i = 0; i < test.samples; ++i) {
    throw_if_stopped("long context");
    const auto place = place_of(test, i, options.seed);
    const auto sample = make_long_context_sample(
        tokenizer, test.task, test.tokens - reserved_tokens(tokenizer), place.depth, place.seed);
    auto ids = tokenizer.encode(sample.prompt);
    if (tokenizer.adds_bos()) ids.insert(ids.begin(), tokenizer.bos_id());
    TextStream stream(tokenizer, ids, {"\n"});
    generate_rows(model, {ids}, settings, [&](int64_t /*row*/, int64_t id) {
      stream.add(id);
      return !stream.stopped();
    });
    stream.finish();
    result.by_depth.push_back(contained_share(stream.text(), sample.answers));
    result.score += result.by_depth.back() / static_cast<double>(test.samples);
  }
  return result;
}

// ---- loss by position ---------------------------------------------------------------------------

namespace {

constexpr int64_t kFirstBucket = 64, kChunk = 512, kHeadTokens = 256;

std::vector<PositionLoss> buckets_of(int64_t length) {
  std::vector<PositionLoss> buckets;
  for (int64_t begin = 0, end = kFirstBucket; begin < length; begin = end, end *= 2) {
    buckets.push_back({.begin = begin, .end = std::min(end, length)});
  }
  return buckets;
}

// Nats of each next token. ids: (length + 1) -> (length) float64
at::Tensor nats_of(CausalLm& model, const at::Tensor& ids) {
  const auto device = model->head_weight().device();
  auto cache = model->make_cache(1);
  std::vector<at::Tensor> parts;
  const int64_t length = ids.size(0) - 1;
  for (int64_t begin = 0; begin < length; begin += kChunk) {
    const int64_t count = std::min(kChunk, length - begin);
    const auto piece = ids.narrow(0, begin, count).unsqueeze(0).to(device);
    const auto hidden = model->forward(piece, /*segments=*/{}, &cache)[0];  // (count, D)
    const auto targets = ids.narrow(0, begin + 1, count).to(device);
    parts.push_back(token_nll(hidden, model->head_weight(), targets, kHeadTokens));
  }
  return torch::cat(parts).to(torch::kCPU, torch::kDouble);
}

}  // namespace

std::vector<PositionLoss> loss_by_position(CausalLm model, const std::vector<int64_t>& ids,
                                           const PositionLossOptions& options,
                                           const std::function<void(int64_t)>& on_sequence) {
  const int64_t length = options.length, most = model->options().max_position_embeddings;
  const int64_t own = options.bos >= 0 ? length : length + 1;  // ids of the text in a sequence
  const int64_t count = std::min(options.sequences, static_cast<int64_t>(ids.size()) / own);
  if (length > most) {
    throw ConfigError(
        str("loss by position: expected at most the model's ", most, " tokens, got ", length));
  }
  if (count < 1) {
    throw ConfigError(
        str("loss by position: expected a text of at least ", own, " tokens, got ", ids.size()));
  }
  const torch::NoGradGuard no_grad;
  auto total = torch::zeros({length}, torch::kDouble);
  for (int64_t i = 0; i < count; ++i) {
    throw_if_stopped("loss by position");
    std::vector<int64_t> row(ids.begin() + i * own, ids.begin() + (i + 1) * own);
    if (options.bos >= 0) row.insert(row.begin(), options.bos);
    check_vocabulary("text", torch::tensor(row, torch::kLong), model->options().vocab_size);
    total += nats_of(model, torch::tensor(row, torch::kLong));
    if (on_sequence) on_sequence(i + 1);
  }
  auto buckets = buckets_of(length);
  for (auto& bucket : buckets) {
    const auto mean = total.narrow(0, bucket.begin, bucket.end - bucket.begin).mean();
    bucket.nats_per_token = mean.item<double>() / static_cast<double>(count);
  }
  return buckets;
}

}  // namespace zebra
