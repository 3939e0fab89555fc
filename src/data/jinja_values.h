// What Jinja's operators, tests, filters and methods do to values. All throw JinjaError for what
// they do not know.
#pragma once

#include <string>
#include <vector>

#include "base/json.h"

namespace zebra {

json jinja_undefined();  // a discarded JSON value
bool jinja_true(const json& value);
std::string jinja_text(const json& value);

json jinja_arithmetic(const std::string& sign, const json& a, const json& b);
bool jinja_compare(const std::string& sign, const json& a, const json& b);
bool jinja_test(const std::string& name, const json& value);  // is NAME
json jinja_filter(const std::string& name, const json& value);
json jinja_method(const json& object, const std::string& name, const std::vector<json>& arguments);
json jinja_element(const json& object, const json& key);
json jinja_slice(const json& list, const json& begin, const json& end);  // undefined: open

}  // namespace zebra
