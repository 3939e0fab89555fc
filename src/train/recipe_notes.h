// Where each key of a recipe file stands, and what is wrong with it.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "zebra/error.h"
#include "zebra/options.h"

namespace zebra {

class RecipeNotes {
 public:
  // A key that was found in the file. Keys at or below an override have no line.
  void place(const std::string& path, int line);
  void overridden(const std::string& path) { overrides_.insert(path); }
  bool placed(const std::string& path) const { return lines_.contains(path); }

  // A mistake at a key, or at the place where it should stand. Only the first one of a key is kept:
  // the others follow from it.
  void fail(const std::string& path, const std::string& message);
  bool failed(const std::string& path) const;  // the key or one that it lies in

  // The rule "path: expected X, got Y". A key whose value could not be read is left out.
  template <class T>
  void expect(bool holds, const std::string& path, const std::string& expected, const T& got) {
    if (!holds) fail(path, str("expected ", expected, ", got ", got));
  }

  std::vector<RecipeMistake> mistakes() const;  // in the order of their lines

 private:
  int line_of(const std::string& path) const;

  std::map<std::string, int> lines_;
  std::set<std::string> overrides_;
  std::vector<RecipeMistake> mistakes_;
};

}  // namespace zebra
