// One generated story, and the questions that can be asked of it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "data/random.h"
#include "data/story_grammar.h"
#include "zebra/dataset.h"

namespace zebra::story {

// What each slot of the lines stands for.
using Bindings = std::map<std::string, std::string, std::less<>>;

// Which of a line's alternatives [a|b|c] are told.
enum class Wording { kDrawn, kFirst, kOther };

class Story {
 public:
  // Everything about the story is drawn from `key`.
  explicit Story(uint64_t key);

  // Whether the combination of plot, object (or row) and place is one that training never tells.
  bool held_out() const;
  std::string text() const;
  // The story up to one of its decisive sentences, that sentence, and three that contradict the
  // story: another object, name, pronoun, place or cause.
  MultipleChoice question() const;
  // The same beginning, the rest of the story in the first of all alternatives, and the rest in
  // others, with one thing wrong all through: what is preferred is a wording, and the truth.
  struct Pair {
    std::string prompt, chosen, rejected;
  };
  Pair pair() const;

  std::string_view plot() const { return plot_->name; }
  const Bindings& bindings() const { return bindings_; }

 private:
  struct Line {
    std::string_view text;
    Texts foils;   // of a line that can be asked for
    uint64_t key;  // picks its alternatives
  };
  void bind_cast(Random& random);
  void bind_things(Random& random);
  void choose_lines();
  size_t decisive(uint64_t key) const;
  std::string told(size_t first, size_t last, const Bindings& bindings,
                   Wording wording = Wording::kDrawn) const;
  Bindings with_foil(std::string_view foil, Random& random) const;

  uint64_t key_;
  const Plot* plot_;
  Bindings bindings_;
  std::string_view spots_;
  std::string row_;  // its first field
  std::vector<Line> lines_;
};

// The story `index` of a stream: the first that is, or is not, held out.
Story make_story(uint64_t seed, uint64_t stream, int64_t index, bool held_out);

}  // namespace zebra::story
