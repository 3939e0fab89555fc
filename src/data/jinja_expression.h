// Expressions of Jinja: their tokens, and functions that evaluate them.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.h"
#include "data/jinja.h"

namespace zebra {

// Variables, the innermost scope last. Undefined is a discarded JSON value.
class JinjaScopes {
 public:
  explicit JinjaScopes(json variables) : scopes_{std::move(variables)} {}
  json* find(const std::string& name);
  void set(const std::string& name, json value) { scopes_.back()[name] = std::move(value); }
  void push() { scopes_.push_back(json::object()); }
  void pop() { scopes_.pop_back(); }

 private:
  std::vector<json> scopes_;
};

using JinjaExpression = std::function<json(JinjaScopes&)>;

struct JinjaToken {
  enum class Kind { kName, kString, kNumber, kSign, kEnd } kind = Kind::kEnd;
  std::string text;
};

// Reads one tag's words; throws JinjaError for what it does not know.
class JinjaParser {
 public:
  explicit JinjaParser(std::string_view tag);

  const JinjaToken& next() const { return tokens_[at_]; }
  bool accept(std::string_view text);  // the next name or sign, if it is this
  void expect(std::string_view text);
  std::string name();
  bool at_end() const { return next().kind == JinjaToken::Kind::kEnd; }
  JinjaExpression expression();  // with `a if b else c`

 private:
  JinjaExpression either();
  JinjaExpression both();
  JinjaExpression negation();
  JinjaExpression comparison();
  JinjaExpression sum();
  JinjaExpression product();
  JinjaExpression unary();
  JinjaExpression postfix();
  JinjaExpression member(JinjaExpression object);
  JinjaExpression subscript(JinjaExpression object);
  JinjaExpression call(const std::string& function);
  JinjaExpression primary();
  JinjaExpression list();
  std::vector<JinjaExpression> arguments();

  std::vector<JinjaToken> tokens_;
  size_t at_ = 0;
};

bool jinja_true(const json& value);
std::string jinja_text(const json& value);

}  // namespace zebra
