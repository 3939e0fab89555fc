// A folder of rows for the tests of tasks, in the form of the Hugging Face data sets.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "eval/models.h"
#include "zebra/tasks.h"

namespace zebra::testing {

inline const std::map<std::string, std::string>& task_rows() {
  static const std::map<std::string, std::string> rows = {
      {"arc_easy/test.jsonl",
       R"({"id":"1","question":"What is hot?","choices":{"text":["ice","fire","snow"],"label":["A","B","C"]},"answerKey":"B"}
{"id":"2","question":"What is cold?","choices":{"text":["ice","fire"],"label":["1","2"]},"answerKey":"1"}
)"},
      {"arc_easy/train.jsonl",
       R"({"id":"3","question":"What is wet?","choices":{"text":["rain","sand"],"label":["A","B"]},"answerKey":"A"}
{"id":"4","question":"What is dry?","choices":{"text":["rain","sand"],"label":["A","B"]},"answerKey":"B"}
{"id":"5","question":"What is red?","choices":{"text":["blood","grass"],"label":["A","B"]},"answerKey":"A"}
{"id":"6","question":"What is green?","choices":{"text":["blood","grass"],"label":["A","B"]},"answerKey":"B"}
)"},
      {"hellaswag/validation.jsonl",
       R"({"ind":1,"activity_label":"Baking","ctx_a":"A man [substeps] bakes.","ctx_b":"he THEN","ctx":"x","endings":["eats [step] it.","sleeps.  ","[title] Goes.","is  done."],"label":"2"}
{"ind":2,"activity_label":"Home [title] Work","ctx_a":"She sits.","ctx_b":"","ctx":"x","endings":["a","b","c","d"],"label":"0"}
)"},
      {"openbookqa/test.jsonl",
       R"({"id":"7","question_stem":"The sun is","choices":{"text":["hot","cold"],"label":["A","B"]},"answerKey":" A"}
)"},
      {"piqa/validation.jsonl",
       R"({"goal":"Open a door","sol1":"Push it","sol2":"Eat it","label":0}
{"goal":"Close a door","sol1":"Burn it","sol2":"Pull it","label":1}
)"},
      {"winogrande/validation.jsonl",
       R"({"sentence":"Ann beat Sue because _  was fast .","option1":"Ann","option2":"Sue","answer":"1"}
{"sentence":"Tim fed Bob since _ was hungry.","option1":"Tim","option2":"Bob","answer":"2"}
)"},
      {"winogrande/train.jsonl",
       R"({"sentence":"Jo told Al that _ was late.","option1":"Jo","option2":"Al","answer":"2"}
{"sentence":"Max saw Kim while _ was out.","option1":"Max","option2":"Kim","answer":"1"}
{"sentence":"Ivy is taller than Roy as _ is older.","option1":"Ivy","option2":"Roy","answer":"1"}
)"},
      {"race/test.jsonl",
       R"({"article":"A dog ran.","problems":"[{'question': 'Who ran?', 'answer': 'B', 'options': ['A cat', \"A dog's pup\", 'A cow', 'Me']}, {'question': 'It was a  _  .', 'answer': 'A', 'options': ['dog', 'cat', 'cow', 'pig']}, {'question': 'Where?', 'answer': 'D', 'options': ['a', 'b', 'c', 'home']}]"}
)"},
      {"truthfulqa/validation.jsonl",
       R"({"question":"Is fire cold?","mc1_targets":{"choices":["No.","Yes.","Maybe."],"labels":[1,0,0]},"mc2_targets":{"choices":["No.","It is hot.","Yes."],"labels":[1,1,0]}}
)"},
      {"lambada_openai/test.jsonl", R"({"text":"he went to the old house"}
{"text":"she said to him : no"}
)"},
      {"wikitext/test.jsonl",
       R"({"page":" = Title = \n\n The \" old \" house ( 1 @,@ 000 m ) was Tom 's . It 's \n here ; 5 @-@ 6 N \n"}
)"},
      {"gsm8k/test.jsonl",
       R"({"question":"One and one?","answer":"1+1=2\n#### 2"}
{"question":"A lot?","answer":"It is $1,000.\n#### 1,000"}
)"},
      {"gsm8k/train.jsonl",
       R"({"question":"Two and two?","answer":"2+2=4\n#### 4"}
{"question":"Three?","answer":"3\n#### 3"}
)"},
      {"mmlu/anatomy/test.jsonl",
       R"({"question":" Which bone? ","subject":"anatomy","choices":["hip","toe","jaw","rib"],"answer":2}
{"question":"Which muscle?","subject":"anatomy","choices":["a","b","c","d"],"answer":0}
)"},
      {"mmlu/anatomy/dev.jsonl",
       R"({"question":"First?","subject":"anatomy","choices":["w","x","y","z"],"answer":3}
{"question":"Second?","subject":"anatomy","choices":["w","x","y","z"],"answer":1}
)"}};
  return rows;
}

// All rows as files below the folder.
inline void write_task_rows(const Folder& folder) {
  for (const auto& [name, text] : task_rows()) {
    std::filesystem::create_directories(std::filesystem::path(folder.path(name)).parent_path());
    folder.write(name, text);
  }
}

}  // namespace zebra::testing
