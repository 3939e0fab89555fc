// The tables that generated stories are made of. src/data/stories.cpp puts them together.
//
// A plot is a list of lines. In a line,
//   [a|b|c]        one of the alternatives,
//   {slot}         what the slot is bound to, {a slot} the same with "a" or "an" before it,
//   ?...           a line that half of the stories leave out,
//   @x,y,z: ...    a line that can be asked for: the wrong endings bind the foils x, y, z wrongly.
// Slots: hero and friend (each with .he .him .his), hero.kind (boy, girl), adult (.he), trait,
// item and other (each with .look and .can), animal (.sound .home), place (.in .to), spot, spot2,
// and 1 ... 4, the fields of the row that was drawn from the plot's own table.
// Foils: a slot's name (another of its kind), row (another row), swap (hero and friend change
// places), exchange (item and other do), spots (spot and spot2 do), he (the wrong pronoun), can
// (what another item can do).
#pragma once

#include <string_view>
#include <vector>

namespace zebra::story {

using Texts = std::vector<std::string_view>;

enum class Kind { kToy, kWear, kTool, kFood };

struct Item {
  std::string_view noun;
  std::string_view looks;  // adjectives that fit it, a|b|c
  std::string_view can;    // after "It could", for food after "It was"; no two are the same
  Kind kind;
};

struct Animal {
  std::string_view noun, sound, home;
};

struct Place {
  std::string_view noun, preposition;
  std::string_view spots;  // where things are hidden there, a|b|c|d
};

struct Plot {
  std::string_view name;
  std::vector<Kind> kinds;  // of item and other; empty: none
  std::vector<Texts> rows;  // empty: none
  Texts lines;
};

const Texts& girls();
const Texts& boys();
const Texts& adults();  // women at even places, men at odd ones
const Texts& traits();
const Texts& openings();
const std::vector<Item>& items();
const std::vector<Animal>& animals();
const std::vector<Place>& places();
const std::vector<Plot>& plots();

}  // namespace zebra::story
