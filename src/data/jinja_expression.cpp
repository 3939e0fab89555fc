#include "data/jinja_expression.h"

#include <algorithm>

#include "data/jinja_values.h"
#include "zebra/error.h"

namespace zebra {
namespace {

using Kind = JinjaToken::Kind;
using Expression = JinjaExpression;
using Scopes = JinjaScopes;

bool name_start(char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0 || c == '_'; }
bool digit(char c) { return c >= '0' && c <= '9'; }

// The text between the quotes that begin at `at`, which moves behind them.
std::string read_string(std::string_view tag, size_t& at) {
  const char quote = tag[at++];
  std::string text;
  for (; at < tag.size() && tag[at] != quote; ++at) {
    if (tag[at] != '\\' || at + 1 == tag.size()) {
      text += tag[at];
      continue;
    }
    const char c = tag[++at];
    text += c == 'n' ? '\n' : c == 't' ? '\t' : c == 'r' ? '\r' : c;
  }
  if (at == tag.size()) throw JinjaError("a string without an end");
  ++at;
  return text;
}

std::vector<JinjaToken> tokens_of(std::string_view tag) {
  std::vector<JinjaToken> tokens;
  for (size_t at = 0; at < tag.size();) {
    const char c = tag[at];
    const size_t begin = at;
    if (std::isspace(static_cast<unsigned char>(c)) != 0) {
      ++at;
    } else if (name_start(c)) {
      while (at < tag.size() && (name_start(tag[at]) || digit(tag[at]))) ++at;
      tokens.push_back({Kind::kName, std::string(tag.substr(begin, at - begin))});
    } else if (digit(c)) {
      while (at < tag.size() && digit(tag[at])) ++at;
      tokens.push_back({Kind::kNumber, std::string(tag.substr(begin, at - begin))});
    } else if (c == '"' || c == '\'') {
      tokens.push_back({Kind::kString, read_string(tag, at)});
    } else {
      const auto two = tag.substr(at, 2);
      const bool pair = two == "==" || two == "!=" || two == "<=" || two == ">=" || two == "//";
      at += pair ? 2 : 1;
      tokens.push_back({Kind::kSign, std::string(tag.substr(begin, at - begin))});
    }
  }
  tokens.push_back({Kind::kEnd, "the end of the tag"});
  return tokens;
}

std::vector<json> values_of(const std::vector<Expression>& expressions, Scopes& scopes) {
  std::vector<json> values;
  for (const auto& expression : expressions) values.push_back(expression(scopes));
  return values;
}

}  // namespace

json* JinjaScopes::find(const std::string& name) {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    if (const auto found = scope->find(name); found != scope->end()) return &*found;
  }
  return nullptr;
}

JinjaParser::JinjaParser(std::string_view tag) : tokens_(tokens_of(tag)) {}

bool JinjaParser::accept(std::string_view text) {
  const bool word = next().kind == Kind::kName || next().kind == Kind::kSign;
  if (!word || next().text != text) return false;
  ++at_;
  return true;
}

void JinjaParser::expect(std::string_view text) {
  if (!accept(text)) throw JinjaError(str("expected ", text, ", got ", next().text));
}

std::string JinjaParser::name() {
  if (next().kind != Kind::kName) throw JinjaError("expected a name, got " + next().text);
  return tokens_[at_++].text;
}

Expression JinjaParser::expression() {
  const auto value = either();
  if (!accept("if")) return value;
  const auto condition = either();
  const auto otherwise = accept("else") ? expression() : [](Scopes&) { return jinja_undefined(); };
  return [=](Scopes& scopes) {
    return jinja_true(condition(scopes)) ? value(scopes) : otherwise(scopes);
  };
}

Expression JinjaParser::either() {
  auto left = both();
  while (accept("or")) {
    left = [left, right = both()](Scopes& scopes) {
      auto value = left(scopes);
      return jinja_true(value) ? value : right(scopes);
    };
  }
  return left;
}

Expression JinjaParser::both() {
  auto left = negation();
  while (accept("and")) {
    left = [left, right = negation()](Scopes& scopes) {
      auto value = left(scopes);
      return jinja_true(value) ? right(scopes) : value;
    };
  }
  return left;
}

Expression JinjaParser::negation() {
  if (!accept("not")) return comparison();
  return [value = negation()](Scopes& scopes) -> json { return !jinja_true(value(scopes)); };
}

Expression JinjaParser::comparison() {
  auto left = sum();
  while (true) {
    if (accept("is")) {
      const bool no = accept("not");
      left = [left, no, test_name = name()](Scopes& scopes) -> json {
        return jinja_test(test_name, left(scopes)) != no;
      };
      continue;
    }
    const bool no = accept("not");
    const std::string sign = next().text;
    static const std::vector<std::string> kSigns = {"==", "!=", "<", ">", "<=", ">=", "in"};
    const bool known = std::find(kSigns.begin(), kSigns.end(), sign) != kSigns.end();
    if (!known || !accept(sign)) {
      if (no) throw JinjaError("not before " + sign);
      return left;
    }
    left = [left, sign, no, right = sum()](Scopes& scopes) -> json {
      return jinja_compare(sign, left(scopes), right(scopes)) != no;
    };
  }
}

Expression JinjaParser::sum() {
  auto left = product();
  while (true) {
    const std::string sign = next().text;
    if (!accept("+") && !accept("-") && !accept("~")) return left;
    left = [left, sign, right = product()](Scopes& scopes) {
      return jinja_arithmetic(sign, left(scopes), right(scopes));
    };
  }
}

Expression JinjaParser::product() {
  auto left = unary();
  while (true) {
    const std::string sign = next().text;
    if (!accept("*") && !accept("//") && !accept("%")) return left;
    left = [left, sign, right = unary()](Scopes& scopes) {
      return jinja_arithmetic(sign, left(scopes), right(scopes));
    };
  }
}

Expression JinjaParser::unary() {
  if (!accept("-")) return postfix();
  return
      [value = unary()](Scopes& scopes) -> json { return jinja_arithmetic("-", 0, value(scopes)); };
}

Expression JinjaParser::postfix() {
  auto value = primary();
  while (true) {
    if (accept(".")) {
      value = member(std::move(value));
    } else if (accept("[")) {
      value = subscript(std::move(value));
    } else if (accept("|")) {
      const auto filter_name = name();
      const auto options = accept("(") ? arguments() : std::vector<Expression>();
      value = [value, filter_name, plain = options.empty()](Scopes& scopes) {
        if (!plain) throw JinjaError("options of the filter " + filter_name);
        return jinja_filter(filter_name, value(scopes));
      };
    } else {
      return value;
    }
  }
}

Expression JinjaParser::member(Expression object) {
  const auto key = name();
  if (!accept("(")) {
    return [object, key](Scopes& scopes) { return jinja_element(object(scopes), key); };
  }
  return [object, key, given = arguments()](Scopes& scopes) {
    return jinja_method(object(scopes), key, values_of(given, scopes));
  };
}

Expression JinjaParser::subscript(Expression object) {
  const Expression nothing = [](Scopes&) { return jinja_undefined(); };
  const bool open = next().text == ":" && next().kind == Kind::kSign;
  const auto key = open ? nothing : expression();
  if (accept(":")) {
    const bool to_end = next().text == "]" && next().kind == Kind::kSign;
    const auto end = to_end ? nothing : expression();
    expect("]");
    return [object, key, end](Scopes& scopes) {
      return jinja_slice(object(scopes), key(scopes), end(scopes));
    };
  }
  expect("]");
  return [object, key](Scopes& scopes) { return jinja_element(object(scopes), key(scopes)); };
}

std::vector<Expression> JinjaParser::arguments() {
  std::vector<Expression> result;
  while (!accept(")")) {
    const bool keyword = next().kind == Kind::kName && tokens_[at_ + 1].text == "=" &&
                         tokens_[at_ + 1].kind == Kind::kSign;
    if (keyword) {  // read, and refused only where the template comes to it
      at_ += 2;
      expression();
      result.emplace_back([](Scopes&) -> json { throw JinjaError("a named argument"); });
    } else {
      result.push_back(expression());
    }
    if (!accept(",") && !(next().text == ")" && next().kind == Kind::kSign)) {
      throw JinjaError("expected ), got " + next().text);
    }
  }
  return result;
}

Expression JinjaParser::call(const std::string& function) {
  if (function == "namespace") {
    std::vector<std::pair<std::string, Expression>> members;
    while (!accept(")")) {
      const auto key = name();
      expect("=");
      members.emplace_back(key, expression());
      accept(",");
    }
    return [members](Scopes& scopes) {
      json object = json::object();
      for (const auto& [key, value] : members) object[key] = value(scopes);
      return object;
    };
  }
  return [function, given = arguments()](Scopes& scopes) -> json {
    if (function == "raise_exception" && given.size() == 1) {
      throw JinjaError(jinja_text(given[0](scopes)));
    }
    if (function != "strftime_now") throw JinjaError("the function " + function);
    const auto* today = scopes.find("zebra_today");
    return today == nullptr ? jinja_undefined() : *today;
  };
}

Expression JinjaParser::list() {
  std::vector<Expression> items;
  while (!accept("]")) {
    items.push_back(expression());
    if (!accept(",") && next().text != "]") throw JinjaError("expected ], got " + next().text);
  }
  return [items](Scopes& scopes) { return json(values_of(items, scopes)); };
}

Expression JinjaParser::primary() {
  const JinjaToken token = next();
  if (token.kind == Kind::kString || token.kind == Kind::kNumber) {
    ++at_;
    const bool text = token.kind == Kind::kString;
    if (!text && token.text.size() > 15) throw JinjaError("the number " + token.text);
    return
        [value = text ? json(token.text) : json(std::stoll(token.text))](Scopes&) { return value; };
  }
  if (accept("(")) {
    auto value = expression();
    expect(")");
    return value;
  }
  if (accept("[")) return list();
  const auto word = name();
  if (word == "true" || word == "True") return [](Scopes&) -> json { return true; };
  if (word == "false" || word == "False") return [](Scopes&) -> json { return false; };
  if (word == "none" || word == "None") return [](Scopes&) -> json { return nullptr; };
  if (accept("(")) return call(word);
  return [word](Scopes& scopes) {
    const auto* value = scopes.find(word);
    return value == nullptr ? jinja_undefined() : *value;
  };
}

}  // namespace zebra
