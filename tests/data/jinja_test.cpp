#include "data/jinja.h"

#include "data/fixtures.h"

using namespace zebra;
using namespace zebra::testing;

namespace {

std::string render(const std::string& source, const json& variables = json::object()) {
  return JinjaTemplate(source).render(variables);
}

}  // namespace

TEST_CASE("jinja: text, values and comments") {
  CHECK(render("a {{ 'b' }} {{ \"c\\n\" }}{# no #}d") == "a b c\nd");
  CHECK(render("{{ x }}{{ y }}", {{"x", 3}}) == "3");
  CHECK(render("{{ none }} {{ true }} {{ 1 == 2 }}") == "None True False");
  CHECK(render("end\n") == "end");  // one line break at the end goes
}

TEST_CASE("jinja: blocks take the line break behind and the blanks before them") {
  CHECK(render("a\n  {% if true %}\nb\n  {% endif %}\nc") == "a\nb\nc");
  CHECK(render("{% if true %}\n    {% if true %}\nb{% endif %}\n  {% endif %}\nc") == "bc");
  CHECK(render("a {%- if true -%} b {%- endif -%} c") == "abc");
  CHECK(render("a {% if true %} b {% endif %} c") == "a  b  c");
  CHECK(render("x {{- 1 -}} y") == "x1y");
  CHECK(render("{{ 1 }}\n{{ 2 }}") == "1\n2");
}

TEST_CASE("jinja: conditions and loops") {
  const json list = {{"list", {"a", "b", "c"}}};
  CHECK(render("{% for x in list %}{{ loop.index0 }}{{ x }}{% if not loop.last %},{% endif %}"
               "{% endfor %}",
               list) == "0a,1b,2c");
  CHECK(render("{% if x is defined %}1{% elif list[0] == 'a' %}2{% else %}3{% endif %}", list) ==
        "2");
  CHECK(render("{% for x in list[1:] %}{{ x }}{% endfor %}{{ list[-1] }}", list) == "bcc");
  CHECK(render("{% for x in list %}{% if loop.first %}<{% endif %}{{ x }}{% endfor %}", list) ==
        "<abc");
}

TEST_CASE("jinja: a set in a loop ends with its round, a namespace stays") {
  CHECK(
      render("{% set x = 1 %}{% for i in [1, 2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}") ==
      "231");
  CHECK(render("{% set n = namespace(x=1) %}{% for i in [1, 2] %}{% set n.x = n.x + i %}"
               "{% endfor %}{{ n.x }}") == "4");
}

TEST_CASE("jinja: operators, filters and methods") {
  CHECK(render("{{ 1 + 2 * 3 - 4 }} {{ 7 % 3 }} {{ 7 // 2 }} {{ -3 % 2 }}") == "3 1 3 1");
  CHECK(render("{{ 'a' + 'b' ~ 1 }}") == "ab1");
  CHECK(render("{{ ' a ' | trim }}{{ ' b '.strip() }}{{ 'xyz' | length }}") == "ab3");
  CHECK(render("{{ 'a' in 'cat' }} {{ 'z' not in ['a'] }} {{ 'x' if false else 'y' }}") ==
        "True True y");
  CHECK(render("{{ 1 < 2 and not 3 == 4 or false }}") == "True");
  CHECK(render("{{ m['role'] }}{{ m.content | upper }}",
               {{"m", {{"role", "r"}, {"content", "c"}}}}) == "rC");
  CHECK(render("{{ x is none }} {{ y is not string }}", {{"x", nullptr}, {"y", 1}}) == "True True");
  CHECK(render("{{ (user == 'u') != (1 % 2 == 0) }}", {{"user", "u"}}) == "True");
}

TEST_CASE("jinja: what is not known is refused when it is read or reached") {
  CHECK_THROWS_AS(render("{% macro f() %}{% endmacro %}"), JinjaError);
  CHECK_THROWS_AS(render("{% if true %}"), JinjaError);
  CHECK_THROWS_AS(render("{{ 'a }}"), JinjaError);
  CHECK_THROWS_AS(render("{{ x | tojson }}", {{"x", 1}}), JinjaError);
  CHECK(render("{% if false %}{{ x | tojson(indent=4) }}{% endif %}").empty());
  CHECK_THROWS_WITH(render("{{ raise_exception('no ' + 'way') }}"), "no way");
  CHECK_THROWS_AS(render("{{ undefined_name + 'a' }}"), JinjaError);
  CHECK_THROWS_AS(render("{{ " + std::string(100'000, '(') + " }}"), JinjaError);
  std::string deep;
  for (int i = 0; i < 100'000; ++i) deep += "{% if true %}";
  CHECK_THROWS_AS(render(deep), JinjaError);
  CHECK_THROWS_AS(render("{{ a.b.c }}", {{"a", json::object()}}), JinjaError);
}
