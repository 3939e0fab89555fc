#include "data/stories.h"

#include <fstream>
#include <set>

#include "data/shard_maker.h"
#include "fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

constexpr StoryOptions kSmall{
    .seed = 3, .stories = 40, .held_out = 20, .questions = 20, .pairs = 20, .held_out_pairs = 10};
const std::vector<std::string> kFiles{"train.txt", "valid.txt", "choices.jsonl", "pairs.jsonl",
                                      "pairs-valid.jsonl"};

std::string file_bytes(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

uint64_t fnv(const std::string& text) {
  uint64_t key = 0xcbf29ce484222325u;
  for (const char c : text) key = (key ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return key;
}

int64_t words(const std::string& text) { return 1 + std::count(text.begin(), text.end(), ' '); }

// The words of a text, without the marks around them.
std::set<std::string> word_set(const std::string& text) {
  std::set<std::string> found;
  std::string word;
  for (const char c : text + " ") {
    if (std::isalpha(static_cast<unsigned char>(c)) != 0) {
      word += c;
    } else if (!word.empty()) {
      found.insert(word);
      word.clear();
    }
  }
  return found;
}

}  // namespace

TEST_CASE("stories: the same options give the same bytes") {
  const Folder a, b;
  write_stories(a.path("x"), kSmall);
  write_stories(b.path("y"), kSmall);
  for (const auto& name : kFiles)
    CHECK(file_bytes(a.path("x/" + name)) == file_bytes(b.path("y/" + name)));
}

TEST_CASE("stories: the bytes are the same on every machine") {
  const Folder folder;
  write_stories(folder.path(""), kSmall);
  std::string all;
  for (const auto& name : kFiles) all += file_bytes(folder.path(name));
  // Changes with every change of the grammar; then data/tiny has to be made again.
  CHECK(fnv(all) == 0x6f47515ee14afd73u);
}

TEST_CASE("stories: a smaller file is the beginning of a larger one") {
  const Folder folder;
  write_stories(folder.path("small"), kSmall);
  auto larger = kSmall;
  larger.stories = 50;
  larger.pairs = 30;
  write_stories(folder.path("large"), larger);
  for (const auto* name : {"train.txt", "pairs.jsonl"}) {
    const auto small = file_bytes(folder.path(str("small/", name)));
    CHECK(file_bytes(folder.path(str("large/", name))).starts_with(small));
  }
  CHECK(file_bytes(folder.path("small/valid.txt")) == file_bytes(folder.path("large/valid.txt")));
}

TEST_CASE("stories: the files are what the readers expect") {
  const Folder folder;
  write_stories(folder.path(""), kSmall);
  const auto stories_in = [&](const char* file) {
    return read_source({folder.path(file), SourceFormat::kStories}, DocumentKind::kText, {},
                       ByteTokenizer())
        ->documents();
  };
  CHECK(stories_in("train.txt") == 40);
  CHECK(stories_in("valid.txt") == 20);
  CHECK(read_multiple_choice(folder.path("choices.jsonl")).size() == 20);
  CHECK(PreferenceDataset({folder.path("pairs.jsonl")}, ByteTokenizer(), {}).size() == 20);
  CHECK(PreferenceDataset({folder.path("pairs-valid.jsonl")}, ByteTokenizer(), {}).size() == 10);
}

TEST_CASE("stories: each has 60 to 180 simple words, whole sentences and no open slot") {
  std::set<std::string> plots, vocabulary;
  for (uint64_t key = 0; key < 3000; ++key) {
    const story::Story story(mix64(key));
    const auto text = story.text();
    INFO(text);
    REQUIRE(words(text) >= 60);
    REQUIRE(words(text) <= 180);
    REQUIRE(text.find_first_of("{}[]|@") == std::string::npos);
    REQUIRE(text.find("  ") == std::string::npos);
    REQUIRE(std::count(text.begin(), text.end(), '"') % 2 == 0);
    REQUIRE(std::string(".!?\"").find(text.back()) != std::string::npos);
    REQUIRE(std::isupper(static_cast<unsigned char>(text[0])) != 0);
    for (const auto* wrong :
         {" a a", " a e", " a i", " a o", " a u", " an b", " an c", ". a ", ". h"}) {
      INFO(wrong);
      REQUIRE(text.find(wrong) == std::string::npos);
    }
    plots.insert(std::string(story.plot()));
    for (const auto& word : word_set(text)) vocabulary.insert(word);
  }
  CHECK(plots.size() == story::plots().size());
  CHECK(vocabulary.size() > 700);
  CHECK(vocabulary.size() < 1500);
}

TEST_CASE("stories: those of one sex are never spoken of as the other") {
  for (uint64_t key = 0; key < 2000; ++key) {
    const story::Story story(mix64(key));
    const auto& bound = story.bindings();
    const auto found = word_set(story.text());
    const auto has = [&](const char* word) { return found.count(word) > 0; };
    const bool men = bound.at("hero.he") == "he" || bound.at("friend.he") == "he";
    const bool women = bound.at("hero.he") == "she" || bound.at("friend.he") == "she";
    INFO(story.text());
    if (!men) REQUIRE_FALSE((has("he") || has("He") || has("him") || has("his") || has("His")));
    if (!women) REQUIRE_FALSE((has("she") || has("She") || has("her") || has("Her")));
  }
}

TEST_CASE("stories: nobody turns up who is not of the cast") {
  std::set<std::string> names;
  for (const auto* table : {&story::girls(), &story::boys()})
    names.insert(table->begin(), table->end());
  CHECK(names.size() == 48);
  for (uint64_t key = 0; key < 2000; ++key) {
    const story::Story story(mix64(key));
    const std::set<std::string> cast{story.bindings().at("hero"), story.bindings().at("friend")};
    REQUIRE(cast.size() == 2);
    for (const auto& word : word_set(story.text())) {
      if (names.count(word) > 0) REQUIRE(cast.count(word) == 1);
    }
  }
}

TEST_CASE("stories: no held-out story has a combination of a training story") {
  const auto combination = [](const story::Story& story) {
    const auto& bound = story.bindings();
    const auto thing = bound.count("item") > 0 ? bound.at("item")
                       : bound.count("1") > 0  ? bound.at("1")
                                               : "";
    return str(story.plot(), "/", thing, "/", bound.at("place"));
  };
  std::set<std::string> trained, texts;
  for (int64_t i = 0; i < 4000; ++i) {
    const auto story = story::make_story(1, 1, i, /*held_out=*/false);
    trained.insert(combination(story));
    texts.insert(story.text());
  }
  CHECK(texts.size() == 4000);
  std::set<std::string> plots;
  for (int64_t i = 0; i < 400; ++i) {
    const auto story = story::make_story(1, 2, i, /*held_out=*/true);
    REQUIRE(trained.count(combination(story)) == 0);
    REQUIRE(texts.count(story.text()) == 0);
    plots.insert(std::string(story.plot()));
  }
  CHECK(plots.size() == story::plots().size());
}

TEST_CASE("stories: a question continues its story, and its four endings differ") {
  std::vector<int64_t> answers(4, 0);
  for (uint64_t key = 0; key < 4000; ++key) {
    const story::Story story(mix64(key));
    const auto question = story.question();
    REQUIRE(question.choices.size() == 4);
    REQUIRE(std::set<std::string>(question.choices.begin(), question.choices.end()).size() == 4);
    ++answers[question.answer];
    for (int64_t i = 0; i < 4; ++i) {
      const bool told = story.text().starts_with(question.context + question.choices[i]);
      REQUIRE(told == (i == question.answer));
    }
    // Endings differ in a word or few, not in length.
    const auto truth = words(question.choices[question.answer]);
    for (const auto& choice : question.choices) REQUIRE(std::abs(words(choice) - truth) <= 10);
  }
  // 1000 expected, standard deviation 27: five of them.
  for (const auto count : answers) CHECK(std::abs(count - 1000) < 135);
}

TEST_CASE("stories: every line that can be asked for gives three wrong endings") {
  std::set<std::string> asked;
  for (uint64_t key = 0; key < 6000; ++key) {
    const story::Story story(mix64(key + 50000));
    REQUIRE_NOTHROW(story.question());
  }
}

TEST_CASE("stories: a pair prefers the truth in the first wording to a wrong end in another") {
  int as_drawn = 0, lost = 0;
  for (uint64_t key = 0; key < 3000; ++key) {
    const story::Story story(mix64(key));
    const auto pair = story.pair();
    const auto text = story.text();
    REQUIRE(text.starts_with(pair.prompt + " "));
    REQUIRE(pair.prompt.size() > 40);
    REQUIRE(pair.chosen != pair.rejected);
    REQUIRE(pair.prompt + pair.rejected != text);
    as_drawn += pair.prompt + pair.chosen == text ? 1 : 0;
    if (story.plot() != "lost") continue;
    ++lost;
    REQUIRE(pair.chosen.find(" From then on, ") != std::string::npos);
    REQUIRE(pair.chosen.find(" always took good care of the ") != std::string::npos);
    REQUIRE(pair.rejected.find(" After that day, ") != std::string::npos);
    REQUIRE(pair.rejected.find(" always held on to the ") != std::string::npos);
  }
  CHECK(as_drawn > 300);
  CHECK(lost > 50);
}

TEST_CASE("stories: properties tell objects apart") {
  std::set<std::string_view> nouns, abilities;
  for (const auto& item : story::items()) {
    nouns.insert(item.noun);
    abilities.insert(item.can);
  }
  CHECK(nouns.size() == story::items().size());
  CHECK(abilities.size() == story::items().size());
  CHECK(nouns.size() >= 60);
  CHECK(story::plots().size() >= 12);
  for (const auto& plot : story::plots()) {
    for (const auto& row : plot.rows) CHECK(row.size() == plot.rows[0].size());
    CHECK((plot.rows.empty() || plot.rows.size() >= 4));
  }
}

TEST_CASE("stories: negative counts are refused") {
  const Folder folder;
  CHECK(config_error([&] { write_stories(folder.path(""), {.stories = -1}); }) ==
        "stories: expected counts of at least 0, got -1");
}
