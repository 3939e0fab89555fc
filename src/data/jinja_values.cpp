#include "data/jinja_values.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

#include "data/jinja.h"
#include "data/utf8.h"

namespace zebra {
namespace {

constexpr int64_t kLargest = 1'000'000'000;  // of what is calculated with: products fit

const std::string& as_string(const json& value) {
  if (!value.is_string()) throw JinjaError("a text was expected");
  return value.get_ref<const std::string&>();
}

int64_t as_integer(const json& value) {
  if (!value.is_number_integer()) throw JinjaError("an integer was expected");
  return value.get<int64_t>();
}

int64_t length_of(const json& value) {
  if (!value.is_string()) return static_cast<int64_t>(value.size());
  int64_t length = 0;
  for (const char c : as_string(value)) length += (c & 0xC0) != 0x80 ? 1 : 0;
  return length;
}

json add(const json& a, const json& b) {
  if (a.is_string() && b.is_string()) return as_string(a) + as_string(b);
  if (!a.is_array() || !b.is_array()) throw JinjaError("+ of values that do not add");
  json sum = a;
  sum.insert(sum.end(), b.begin(), b.end());
  return sum;
}

bool contains(const json& all, const json& item) {
  if (all.is_string()) return as_string(all).find(as_string(item)) != std::string::npos;
  if (all.is_object()) return all.contains(as_string(item));
  return std::find(all.begin(), all.end(), item) != all.end();
}

std::string cased(std::string text, int (*change)(int)) {
  for (auto& c : text) {
    if ((c & 0x80) == 0) c = static_cast<char>(change(static_cast<unsigned char>(c)));
  }
  return text;
}

}  // namespace

json jinja_undefined() { return json(json::value_t::discarded); }

bool jinja_true(const json& value) {
  if (value.is_discarded() || value.is_null()) return false;
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value != json(0);
  return length_of(value) > 0;
}

std::string jinja_text(const json& value) {
  if (value.is_discarded()) return "";
  if (value.is_string()) return as_string(value);
  if (value.is_null()) return "None";
  if (value.is_boolean()) return value.get<bool>() ? "True" : "False";
  if (value.is_number_integer()) return value.dump();
  throw JinjaError("a list or an object as text");
}

json jinja_arithmetic(const std::string& sign, const json& a, const json& b) {
  if (sign == "+" && !a.is_number()) return add(a, b);
  if (sign == "~") return jinja_text(a) + jinja_text(b);
  const int64_t x = as_integer(a), y = as_integer(b);
  if (std::max(std::abs(x), std::abs(y)) > kLargest) throw JinjaError("a large number");
  if (sign == "+") return x + y;
  if (sign == "-") return x - y;
  if (sign == "*") return x * y;
  if (y <= 0) throw JinjaError("a division by what is not positive");
  const int64_t remainder = ((x % y) + y) % y;
  if (sign == "%") return remainder;
  if (sign == "//") return (x - remainder) / y;
  throw JinjaError("the operator " + sign);
}

bool jinja_compare(const std::string& sign, const json& a, const json& b) {
  if (sign == "in") return contains(b, a);
  if (a.is_discarded() || b.is_discarded()) {
    if (sign == "==") return a.is_discarded() && b.is_discarded();
    if (sign == "!=") return a.is_discarded() != b.is_discarded();
    throw JinjaError("a comparison with an undefined value");
  }
  if (sign == "==") return a == b;
  if (sign == "!=") return a != b;
  if (sign == "<") return a < b;
  if (sign == ">") return a > b;
  return sign == "<=" ? a <= b : a >= b;
}

bool jinja_test(const std::string& name, const json& value) {
  if (name == "defined") return !value.is_discarded();
  if (name == "undefined") return value.is_discarded();
  if (name == "none") return value.is_null();
  if (name == "string") return value.is_string();
  if (name == "mapping") return value.is_object();
  if (name == "sequence" || name == "iterable") return value.is_array() || value.is_string();
  if (name == "number") return value.is_number();
  if (name == "boolean") return value.is_boolean();
  if (name == "true") return value == json(true);
  if (name == "false") return value == json(false);
  throw JinjaError("the test " + name);
}

json jinja_filter(const std::string& name, const json& value) {
  if (name == "trim") return std::string(strip_white_space(as_string(value)));
  if (name == "length" || name == "count") return length_of(value);
  if (name == "upper") return cased(as_string(value), std::toupper);
  if (name == "lower") return cased(as_string(value), std::tolower);
  if (name == "string") return jinja_text(value);
  if (name == "first" && value.is_array() && !value.empty()) return value.front();
  if (name == "last" && value.is_array() && !value.empty()) return value.back();
  if (name == "list" && value.is_array()) return value;
  throw JinjaError("the filter " + name);
}

json jinja_method(const json& object, const std::string& name, const std::vector<json>& arguments) {
  if (arguments.empty()) {
    if (name == "strip") return jinja_filter("trim", object);
    if (name == "upper" || name == "lower") return jinja_filter(name, object);
  }
  if (arguments.size() == 1 && object.is_string()) {
    const auto& text = as_string(object);
    if (name == "startswith") return text.starts_with(as_string(arguments[0]));
    if (name == "endswith") return text.ends_with(as_string(arguments[0]));
  }
  if (name == "get" && object.is_object() && !arguments.empty()) {
    return object.value(as_string(arguments[0]),
                        arguments.size() > 1 ? arguments[1] : json(nullptr));
  }
  throw JinjaError("the method " + name);
}

json jinja_element(const json& object, const json& key) {
  if (object.is_discarded()) throw JinjaError("an element of an undefined value");
  if (object.is_object() && key.is_string()) {
    const auto found = object.find(as_string(key));
    return found == object.end() ? jinja_undefined() : *found;
  }
  if (!object.is_array() || !key.is_number_integer()) return jinja_undefined();
  const auto size = static_cast<int64_t>(object.size());
  const int64_t index = as_integer(key) < 0 ? as_integer(key) + size : as_integer(key);
  return index >= 0 && index < size ? object[index] : jinja_undefined();
}

json jinja_slice(const json& list, const json& begin, const json& end) {
  if (!list.is_array()) throw JinjaError("a slice of what is no list");
  const auto size = static_cast<int64_t>(list.size());
  const auto place = [&](const json& value, int64_t usual) {
    if (value.is_discarded()) return usual;
    const int64_t index = as_integer(value);
    return std::clamp<int64_t>(index < 0 ? index + size : index, 0, size);
  };
  json result = json::array();
  for (int64_t i = place(begin, 0); i < place(end, size); ++i) result.push_back(list[i]);
  return result;
}

}  // namespace zebra
