#include "eval/tasks/template.h"

#include "data/fixtures.h"
#include "support/testing.h"
#include "zebra/error.h"

namespace zebra::testing {

namespace {

const Document kDocument = {{"question", "  Why? "},
                            {"choices", {{"text", {"red", "blue"}}, {"label", {"A", "B"}}}},
                            {"answerKey", " B"},
                            {"label", "3"},
                            {"count", 7},
                            {"text", "in the end"},
                            {"sol1", "x"},
                            {"sol2", "y"},
                            {"a b", "spaced"}};

Document value(const std::string& text) { return evaluate_template(text, kDocument, "f.jsonl:2"); }

}  // namespace

TEST_CASE("template: one expression keeps its type, text around it makes text") {
  CHECK(value("{{count}}") == 7);
  CHECK(value("{{choices.text}}") == Document{"red", "blue"});
  CHECK(value("n={{count}} {{ label }}\n") == "n=7 3\n");
  CHECK(value("plain") == "plain");
}

TEST_CASE("template: members, indices, slices, lists and sums") {
  CHECK(value("{{choices.text[1]}}") == "blue");
  CHECK(value("{{choices['text'][-2]}}") == "red");
  CHECK(value("{{[sol1, sol2]}}") == Document{"x", "y"});
  CHECK(value("{{text.split(' ')[:-1]|join(' ')}}") == "in the");
  CHECK(value("{{' '+text.split(' ')[-1]}}") == " end");
  CHECK(value("{{text.split(' ')[1:]|last}}") == "end");
  CHECK(value("{{0}}") == 0);
}

TEST_CASE("template: methods and filters") {
  CHECK(value("{{question.strip()}}") == "Why?");
  CHECK(value("{{question | trim | upper}}") == "WHY?");
  CHECK(value("{{choices.label.index(answerKey.lstrip())}}") == 1);
  CHECK(value("{{text.replace('the', 'an')|capitalize}}") == "In an end");
  CHECK(value("{{', '.join(choices.text)}}") == "red, blue");
  CHECK(value("{{choices.text|length}}") == 2);
}

TEST_CASE("template: escapes are read as in Python, remarks are left out") {
  CHECK(value(R"({{label + "\n"}}A:)") == "3\nA:");
  CHECK(value(R"({{'it\'s \x41'}})") == "it's A");
  CHECK(value("{# a {{b}} {% c %} #}n={# #}{{count}}") == "n=7");
  CHECK(value("{{sol1.replace('', '-')}}") == "-x-");
}

TEST_CASE("template: mistakes name the place, the expression and the nearest name") {
  const auto refused = [](const std::string& text, const std::string& what) {
    CHECK_THROWS_WITH(value(text), ContainsSubstring(what));
  };
  refused("{{questoin}}",
          "f.jsonl:2: {{questoin}}: field questoin: expected a value, got none; did you mean "
          "question?");
  refused("{{choices.text[2]}}", "expected an index below 2, got 2");
  refused("{{choices.label.index('E')}}", "expected one of [\"A\",\"B\"], got \"E\"");
  refused("{{text.stripp()}}", "unknown method or filter 'stripp'; did you mean strip?");
  refused("{{count.strip()}}", "expected text or a list before it, got number");
  refused("{{text + count}}", "only texts can be added");
  refused("{{text", "expected a closing }}");
  refused("{% if a %}", "got a statement");
  refused("{{text text}}", "is not understood");
  refused("a {{choices}}", "expected text or a number in a template");
  refused("{{choices.text['a':1]}}", "expected an integer as a slice's bound, got text");
  refused("{{choices.text[0:'b']}}", "expected an integer as a slice's bound, got text");
  refused("{{text.strip('.')}}", "strip: expected at most 0 arguments, got 1");
  refused("{{'\\x4'}}", "expected an escape at offset 1");
  refused("{# a", "'{# a': expected a closing #}");
  refused("a {{- text }}", "expected no white-space control");
  refused("{{" + std::string(200'000, '[') + "}}", "expected at most 100 brackets in each other");
}

TEST_CASE("template: a message is one line, whatever it quotes") {
  for (const auto* text :
       {"{{text\nA:\nB", "{{text\nA:\nB}}", "{{choices['a\nb']}}", "{% a\n %}"}) {
    const auto told = config_error([&] { value(text); });
    CHECK_THAT(told, ContainsSubstring("\\n"));
    CHECK(told.find('\n') == std::string::npos);
  }
}

}  // namespace zebra::testing
