#include "data/stories.h"

#include <array>

#include "base/file.h"
#include "base/json.h"
#include "zebra/error.h"

namespace zebra::story {
namespace {

constexpr uint64_t kHeldOutShare = 10;  // one combination in so many is held out
constexpr uint64_t kQuestionKey = 101, kFoilKey = 102, kAnswerKey = 103, kKeepKey = 104;
constexpr uint64_t kSplitKey = 105;  // the same for all seeds

uint64_t hash_text(uint64_t key, std::string_view text) {
  for (const char c : text) key = (key ^ static_cast<unsigned char>(c)) * 0x100000001b3u;  // FNV-1a
  return mix64(key);
}

Texts split(std::string_view text, char separator) {
  Texts parts;
  for (size_t end = 0; end != std::string_view::npos;
       text.remove_prefix(end == text.npos ? 0 : end + 1)) {
    end = text.find(separator);
    parts.push_back(text.substr(0, end));
  }
  return parts;
}

template <class T>
const T& draw(const std::vector<T>& table, Random& random) {
  return table[random.below(table.size())];
}

// An entry other than those whose name is in `taken`.
template <class T, class Name>
const T& draw_other(const std::vector<T>& table, const Texts& taken, Random& random, Name name) {
  for (;;) {
    const T& entry = draw(table, random);
    if (std::find(taken.begin(), taken.end(), name(entry)) == taken.end()) return entry;
  }
}

constexpr auto kSelf = [](std::string_view text) { return text; };
constexpr auto kNoun = [](const auto& entry) { return entry.noun; };

void bind_pronouns(Bindings& bindings, const std::string& who, bool girl) {
  bindings[who + ".he"] = girl ? "she" : "he";
  bindings[who + ".him"] = girl ? "her" : "him";
  bindings[who + ".his"] = girl ? "her" : "his";
  bindings[who + ".kind"] = girl ? "girl" : "boy";
}

void bind_item(Bindings& bindings, const std::string& slot, const Item& item, Random& random) {
  bindings[slot] = item.noun;
  bindings[slot + ".look"] = str(draw(split(item.looks, '|'), random), " ", item.noun);
  bindings[slot + ".can"] = item.can;
}

void bind_animal(Bindings& bindings, const Animal& animal) {
  bindings["animal"] = animal.noun;
  bindings["animal.sound"] = animal.sound;
  bindings["animal.home"] = animal.home;
}

void bind_place(Bindings& bindings, const Place& place) {
  bindings["place"] = place.noun;
  bindings["place.in"] = str(place.preposition, " the ", place.noun);
  bindings["place.to"] = str("to the ", place.noun);
}

void bind_row(Bindings& bindings, const Texts& row) {
  for (size_t i = 0; i < row.size(); ++i) bindings[std::to_string(i + 1)] = row[i];
}

// Exchanges everything two names are bound to: a, a.x with b, b.x.
void exchange(Bindings& bindings, const std::string& a, const std::string& b) {
  Bindings exchanged;
  for (const auto& [slot, value] : bindings) {
    const auto dot = slot.find('.');
    const auto name = slot.substr(0, dot), rest = dot == std::string::npos ? "" : slot.substr(dot);
    exchanged[(name == a ? b : name == b ? a : name) + rest] = value;
  }
  bindings = std::move(exchanged);
}

std::vector<Item> items_of(const std::vector<Kind>& kinds) {
  std::vector<Item> found;
  for (const auto& item : items()) {
    if (std::find(kinds.begin(), kinds.end(), item.kind) != kinds.end()) found.push_back(item);
  }
  return found;
}

// Replaces every [a|b|c] by one of its alternatives.
std::string choose_alternatives(std::string_view line, uint64_t key, Wording wording) {
  std::string text;
  for (size_t open = line.find('['); open != line.npos; open = line.find('[')) {
    const auto close = line.find(']', open);
    auto options = split(line.substr(open + 1, close - open - 1), '|');
    if (wording == Wording::kFirst) options.resize(1);
    if (wording == Wording::kOther && options.size() > 1) options.erase(options.begin());
    text.append(line.substr(0, open)).append(options[pick(key = mix64(key), options.size())]);
    line.remove_prefix(close + 1);
  }
  return text.append(line);
}

// Replaces every {slot}; what it is bound to may hold slots again.
std::string fill_slots(std::string_view line, const Bindings& bindings) {
  std::string text;
  for (size_t open = line.find('{'); open != line.npos; open = line.find('{')) {
    const auto close = line.find('}', open);
    auto slot = line.substr(open + 1, close - open - 1);
    const bool article = slot.starts_with("a ");
    if (article) slot.remove_prefix(2);
    const auto bound = bindings.find(slot);
    TORCH_CHECK(bound != bindings.end(), "story: no slot {", std::string(slot), "}");
    const auto value = fill_slots(bound->second, bindings);
    text.append(line.substr(0, open));
    if (article)
      text += std::string_view("aeiou").find(value[0]) == std::string_view::npos ? "a " : "an ";
    text += value;
    line.remove_prefix(close + 1);
  }
  return text.append(line);
}

// A capital at the beginning and after the end of each sentence.
std::string with_capitals(std::string text) {
  bool begins = true;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool letter = (text[i] >= 'a' && text[i] <= 'z') || (text[i] >= 'A' && text[i] <= 'Z');
    if (begins && letter) {
      if (text[i] >= 'a') text[i] = static_cast<char>(text[i] - 'a' + 'A');
      begins = false;
    } else if (text[i] == ' ' && i > 0 &&
               (text[i - 1] == '.' || text[i - 1] == '!' || text[i - 1] == '?')) {
      begins = true;
    }
  }
  return text;
}

}  // namespace

Story::Story(uint64_t key) : key_(key) {
  Random random(key);
  plot_ = &draw(plots(), random);
  bind_cast(random);
  bind_things(random);
  choose_lines();
}

void Story::bind_cast(Random& random) {
  const bool hero_girl = random.below(2) == 0, friend_girl = random.below(2) == 0;
  const auto hero = draw(hero_girl ? girls() : boys(), random);
  const auto companion = draw_other(friend_girl ? girls() : boys(), {hero}, random, kSelf);
  const auto adult = random.below(adults().size());
  bindings_["hero"] = hero;
  bindings_["friend"] = companion;
  bindings_["adult"] = adults()[adult];
  bindings_["trait"] = draw(traits(), random);
  bind_pronouns(bindings_, "hero", hero_girl);
  bind_pronouns(bindings_, "friend", friend_girl);
  bind_pronouns(bindings_, "adult", adult % 2 == 0);
}

void Story::bind_things(Random& random) {
  if (!plot_->kinds.empty()) {
    const auto choice = items_of(plot_->kinds);
    const auto& item = draw(choice, random);
    bind_item(bindings_, "item", item, random);
    bind_item(bindings_, "other", draw_other(choice, {item.noun}, random, kNoun), random);
  }
  bind_animal(bindings_, draw(animals(), random));
  const auto& place = draw(places(), random);
  bind_place(bindings_, place);
  spots_ = place.spots;
  const auto spots = split(spots_, '|');
  const auto spot = draw(spots, random);
  bindings_["spot"] = spot;
  bindings_["spot2"] = draw_other(spots, {spot}, random, kSelf);
  if (!plot_->rows.empty()) {
    const auto& row = draw(plot_->rows, random);
    bind_row(bindings_, row);
    row_ = row[0];
  }
}

void Story::choose_lines() {
  const auto opening = openings()[pick(mix_keys(key_, kKeepKey), openings().size())];
  lines_.push_back({opening, {}, mix64(key_)});
  for (size_t i = 0; i < plot_->lines.size(); ++i) {
    auto text = plot_->lines[i];
    Texts foils;
    if (text[0] == '?') {
      if (mix_keys(key_, kKeepKey, i) % 2 == 0) continue;
      text.remove_prefix(1);
    } else if (text[0] == '@') {
      const auto colon = text.find(':');
      foils = split(text.substr(1, colon - 1), ',');
      text.remove_prefix(colon + 2);
    }
    lines_.push_back({text, foils, mix_keys(key_, i)});
  }
}

bool Story::held_out() const {
  auto key = hash_text(kSplitKey, plot_->name);
  const auto item = bindings_.find("item");
  key = hash_text(key, item != bindings_.end() ? item->second : row_);
  return hash_text(key, bindings_.at("place")) % kHeldOutShare == 0;
}

std::string Story::told(size_t first, size_t last, const Bindings& bindings,
                        Wording wording) const {
  std::string text;
  for (size_t i = first; i < last; ++i) {
    const auto line = choose_alternatives(lines_[i].text, lines_[i].key, wording);
    if (i > first) text += " ";
    text += with_capitals(fill_slots(line, bindings));
  }
  return text;
}

std::string Story::text() const { return told(0, lines_.size(), bindings_); }

size_t Story::decisive(uint64_t key) const {
  std::vector<size_t> places;
  for (size_t i = 0; i < lines_.size(); ++i) {
    if (!lines_[i].foils.empty()) places.push_back(i);
  }
  return places[pick(key, places.size())];
}

Bindings Story::with_foil(std::string_view foil, Random& random) const {
  Bindings wrong = bindings_;
  const auto& bound = bindings_;
  if (foil == "hero" || foil == "friend") {
    const auto slot = std::string(foil);
    const auto& names = bound.at(slot + ".he") == "she" ? girls() : boys();
    wrong[slot] = draw_other(names, {bound.at("hero"), bound.at("friend")}, random, kSelf);
  } else if (foil == "he") {
    bind_pronouns(wrong, "hero", bound.at("hero.he") == "he");
  } else if (foil == "swap") {
    exchange(wrong, "hero", "friend");
  } else if (foil == "exchange") {
    exchange(wrong, "item", "other");
  } else if (foil == "spots") {
    exchange(wrong, "spot", "spot2");
  } else if (foil == "item" || foil == "other" || foil == "can") {
    const Texts taken{bound.at("item"), bound.at("other")};
    const auto choice = items_of(plot_->kinds);
    const auto& item = draw_other(choice, taken, random, kNoun);
    if (foil == "can") {
      wrong["item.can"] = item.can;
    } else {
      bind_item(wrong, std::string(foil), item, random);
    }
  } else if (foil == "animal") {
    bind_animal(wrong, draw_other(animals(), {bound.at("animal")}, random, kNoun));
  } else if (foil == "place") {
    bind_place(wrong, draw_other(places(), {bound.at("place")}, random, kNoun));
  } else if (foil == "adult") {
    wrong["adult"] = draw_other(adults(), {bound.at("adult")}, random, kSelf);
  } else if (foil == "spot" || foil == "spot2") {
    wrong[std::string(foil)] =
        draw_other(split(spots_, '|'), {bound.at("spot"), bound.at("spot2")}, random, kSelf);
  } else {
    TORCH_CHECK(foil == "row", "story: no foil '", std::string(foil), "'");
    bind_row(wrong,
             draw_other(plot_->rows, {row_}, random, [](const Texts& row) { return row[0]; }));
  }
  return wrong;
}

MultipleChoice Story::question() const {
  Random random(mix_keys(key_, kFoilKey));
  const auto line = decisive(mix_keys(key_, kQuestionKey));
  const auto& foils = lines_[line].foils;
  const auto truth = " " + told(line, line + 1, bindings_);
  std::vector<std::string> wrong;
  const auto first = random.below(foils.size());
  for (size_t tries = 0; wrong.size() < 3; ++tries) {
    TORCH_CHECK(tries < 100, "story: too few foils for '", std::string(lines_[line].text), "'");
    auto text =
        " " + told(line, line + 1, with_foil(foils[(first + tries) % foils.size()], random));
    if (text != truth && std::find(wrong.begin(), wrong.end(), text) == wrong.end())
      wrong.push_back(text);
  }
  MultipleChoice question{
      .context = told(0, line, bindings_), .choices = std::move(wrong), .answer = 0};
  question.answer = static_cast<int64_t>(pick(mix_keys(key_, kAnswerKey), 4));
  question.choices.insert(question.choices.begin() + question.answer, truth);
  return question;
}

Story::Pair Story::pair() const {
  Random random(mix_keys(key_, kFoilKey));
  const auto line = decisive(mix_keys(key_, kQuestionKey));
  const auto& foils = lines_[line].foils;
  const auto truth = told(line, line + 1, bindings_);
  Bindings wrong = bindings_;
  for (size_t tries = 0; told(line, line + 1, wrong) == truth; ++tries) {
    TORCH_CHECK(tries < 100, "story: too few foils for '", std::string(lines_[line].text), "'");
    wrong = with_foil(draw(foils, random), random);
  }
  return {.prompt = told(0, line, bindings_),
          .chosen = " " + told(line, lines_.size(), bindings_, Wording::kFirst),
          .rejected = " " + told(line, lines_.size(), wrong, Wording::kOther)};
}

Story make_story(uint64_t seed, uint64_t stream, int64_t index, bool held_out) {
  for (uint64_t attempt = 0;; ++attempt) {
    Story story(mix_keys(seed, stream, index, attempt));
    if (story.held_out() == held_out) return story;
  }
}

}  // namespace zebra::story

namespace zebra {
namespace {

enum Stream : uint64_t { kTrain = 1, kValid = 2, kQuestions = 3, kPairs = 4, kValidPairs = 5 };

std::string story_file(uint64_t seed, Stream stream, int64_t count, bool held_out) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    text += (i > 0 ? "\n" : "") + story::make_story(seed, stream, i, held_out).text() + "\n";
  }
  return text;
}

std::string pair_file(uint64_t seed, Stream stream, int64_t count, bool held_out) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    const auto pair = story::make_story(seed, stream, i, held_out).pair();
    text +=
        nlohmann::ordered_json{
            {"prompt", pair.prompt}, {"chosen", pair.chosen}, {"rejected", pair.rejected}}
            .dump() +
        "\n";
  }
  return text;
}

std::string question_file(uint64_t seed, int64_t count) {
  std::string text;
  for (int64_t i = 0; i < count; ++i) {
    const auto asked = story::make_story(seed, kQuestions, i, /*held_out=*/true).question();
    text +=
        nlohmann::ordered_json{
            {"context", asked.context}, {"choices", asked.choices}, {"answer", asked.answer}}
            .dump() +
        "\n";
  }
  return text;
}

}  // namespace

void write_stories(const std::filesystem::path& folder, const StoryOptions& options) {
  for (const auto count : {options.stories, options.held_out, options.questions, options.pairs,
                           options.held_out_pairs}) {
    if (count < 0) throw ConfigError(str("stories: expected counts of at least 0, got ", count));
  }
  make_folders(folder);
  const auto seed = options.seed;
  write_file_atomic(folder / "train.txt",
                    story_file(seed, kTrain, options.stories, /*held_out=*/false));
  write_file_atomic(folder / "valid.txt",
                    story_file(seed, kValid, options.held_out, /*held_out=*/true));
  write_file_atomic(folder / "choices.jsonl", question_file(seed, options.questions));
  write_file_atomic(folder / "pairs.jsonl",
                    pair_file(seed, kPairs, options.pairs, /*held_out=*/false));
  write_file_atomic(folder / "pairs-valid.jsonl",
                    pair_file(seed, kValidPairs, options.held_out_pairs, /*held_out=*/true));
}

}  // namespace zebra
