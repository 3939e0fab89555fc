// The part of Jinja that harness tasks are written in: text with {{expressions}} over a document.
//
//   names and members   question   choices.text   choices[0]   parts[:-1]   doc['a b']
//   literals            'text'  3  [a, b], escapes as in Python
//   sums                ' ' + text
//   methods             strip lstrip rstrip lower upper capitalize split join replace index
//   filters             | trim  | lower  | upper  | capitalize  | join(', ')  | first  | last
//                       | length
//   remarks             {# text #}
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace zebra {

using Document = nlohmann::ordered_json;

// `where` begins the text of a ConfigError: a name that the document lacks, a method that does not
// exist, a type that does not fit.
Document evaluate_expression(std::string_view expression, const Document& document,
                             const std::string& where);

// A template that is one expression and nothing else keeps its value's type; any other gives text.
Document evaluate_template(std::string_view text, const Document& document,
                           const std::string& where);

// Always text: numbers are written as in Python.
std::string render_template(std::string_view text, const Document& document,
                            const std::string& where);

bool is_template(std::string_view text);  // holds an expression, a remark or a statement

}  // namespace zebra
