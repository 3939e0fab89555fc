// A reader of chat templates: the part of Jinja that they are written in. It serves to find out
// what a template does, not to run templates in training.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.h"

namespace zebra {

// What the reader does not know, or what the template itself refuses (raise_exception).
class JinjaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class JinjaTemplate {
 public:
  // Blocks take the line break behind them and the blanks before them away, as in Hugging Face.
  explicit JinjaTemplate(const std::string& source);
  ~JinjaTemplate();
  JinjaTemplate(JinjaTemplate&&) noexcept;
  JinjaTemplate& operator=(JinjaTemplate&&) noexcept;

  // `variables` is an object; a name that is not in it is undefined.
  std::string render(const json& variables) const;

  struct Block;  // statements in a row

 private:
  std::unique_ptr<Block> block_;
};

}  // namespace zebra
