#include "eval/samples.h"

#include "base/sha256.h"

namespace zebra {

namespace {

std::string dump(const Document& value, int indent) {
  return value.dump(indent, ' ', /*ensure_ascii=*/false, Document::error_handler_t::replace);
}

Document logged(const LogLikelihood& score) {
  return {Document(score.sum).dump(), score.greedy ? "True" : "False"};
}

Document arguments_of(const Sample& sample) {
  Document arguments = Document::object();
  const auto& requests = sample.question.requests;
  for (size_t i = 0; i < requests.size(); ++i) {
    auto& one = arguments["gen_args_" + std::to_string(i)];
    if (sample.spec.kind == TaskKind::kRolling) {
      one = {{"arg_0", requests[i].continuation}};
    } else if (sample.spec.kind == TaskKind::kGenerate) {
      one = {{"arg_0", requests[i].context},
             {"arg_1", {{"until", sample.spec.stop}, {"do_sample", false}, {"temperature", 0.0}}}};
    } else {
      one = {{"arg_0", requests[i].context}, {"arg_1", requests[i].continuation}};
    }
  }
  return arguments;
}

void add_responses(const Sample& sample, Document& json) {
  Document all = Document::array(), filtered = Document::array();
  const auto add = [&](const Document& response, const Document& kept) {
    all.push_back(Document::array({response}));
    filtered.push_back(kept);
  };
  if (sample.spec.kind == TaskKind::kGenerate) {
    add(sample.answer.text, filtered_answer(sample.answer.text, sample.filter));
  } else if (sample.spec.kind == TaskKind::kRolling) {
    double sum = 0;
    for (const auto& window : sample.answer.scores) sum += window.sum;
    add(Document(sum).dump(), Document(sum).dump());
  } else {
    for (const auto& score : sample.answer.scores) add(logged(score), logged(score));
  }
  json["resps"] = all;
  json["filtered_resps"] = filtered;
}

}  // namespace

std::string sample_json(const Sample& sample) {
  const auto& target = sample.question.target;
  const auto target_text = target.is_string() ? target.get<std::string>() : target.dump();
  const auto& first = sample.question.requests[0];
  Document json = {{"doc_id", sample.id},
                   {"doc", sample.document},
                   {"target", target_text},
                   {"arguments", arguments_of(sample)}};
  add_responses(sample, json);
  json["filter"] = sample.filter;
  json["metrics"] = Document::array();
  for (const auto& metric : sample.spec.metrics) json["metrics"].push_back(metric.name);
  json["doc_hash"] = sha256_hex(dump(sample.document, /*indent=*/2));
  json["prompt_hash"] =
      sha256_hex(sample.spec.kind == TaskKind::kRolling ? first.continuation : first.context);
  json["target_hash"] = sha256_hex(target_text);
  for (size_t m = 0; m < sample.values.size(); ++m) {
    const auto& [value, weight] = sample.values[m];
    const bool weighted = sample.spec.kind == TaskKind::kRolling;
    json[sample.spec.metrics[m].name] =
        weighted ? Document::array({value, weight}) : Document(value);
  }
  return dump(json, /*indent=*/-1);
}

}  // namespace zebra
