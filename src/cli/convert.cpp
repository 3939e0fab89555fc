// zebra convert
#include "base/log.h"
#include "base/signals.h"
#include "cli/command.h"
#include "convert/published.h"
#include "train/job.h"
#include "zebra/checkpoint.h"

namespace zebra {

void add_convert(CLI::App& app, Action& action) {
  struct Flags {
    std::string source, target, dtype = "bf16", model, tokenizer;
    uint64_t shard_bytes = 5'000'000'000;
    bool force = false;
  };
  auto flags = std::make_shared<Flags>();
  auto* verb = add_verb(app, "convert",
                        "Write a model folder in another dtype or shard size, and compare logits;\n"
                        "or the weights of a training checkpoint as a model folder",
                        "zebra convert models/Llama-3.2-1B models/llama-fp32 --dtype fp32");
  verb->add_option("source", flags->source, "Model folder, checkpoint, or a folder of checkpoints")
      ->required()
      ->type_name("SRC");
  verb->add_option("target", flags->target, "Folder to be made")->required()->type_name("DST");
  verb->add_option("--dtype", flags->dtype, "fp32, bf16, fp16 or fp64 [bf16]")->type_name("NAME");
  verb->add_option("--shard-size", flags->shard_bytes, "Largest file, such as 500MB [5GB]")
      ->transform(CLI::AsSizeValue(/*kb_is_1000=*/true).description(""))
      ->type_name("SIZE");
  verb->add_option("--model", flags->model, "Of a checkpoint that holds several: mla or mamba2")
      ->type_name("NAME");
  verb->add_option("--tokenizer", flags->tokenizer,
                   "Of a checkpoint's model, when it is not where the run had it from")
      ->type_name("PATH");
  verb->add_flag("--force", flags->force, "Replace DST when it exists");
  verb->callback([flags, &action] {
    action = [flags] {
      install_stop_handlers();
      const ConvertOptions options{.dtype = parse_dtype(flags->dtype),
                                   .shard_bytes = flags->shard_bytes,
                                   .overwrite = flags->force};
      if (is_checkpoint(flags->source)) {
        convert_checkpoint(
            {.checkpoint = flags->source, .model = flags->model, .tokenizer = flags->tokenizer},
            flags->target, options);
      } else {
        convert_folder(flags->source, flags->target, options);
      }
      const auto shape = published_shape(read_model_options(flags->target));
      if (!shape.empty()) log_info(str(flags->target, ": the shape is that of ", shape));
      print(flags->target + "\n");
    };
  });
}

}  // namespace zebra
