// The tokenizer of a model folder as Hugging Face reads it, for scores that are compared with those
// of others.
#pragma once

#include <filesystem>
#include <memory>

#include "zebra/tokenizer.h"

namespace zebra {

// As load_tokenizer, but every space of a text counts, even where a SentencePiece file says that
// runs of them are one and that those at both ends are none: Hugging Face does not read that. A
// text that begins with a space gets no other one before it.
std::unique_ptr<Tokenizer> load_harness_tokenizer(const std::filesystem::path& folder);

}  // namespace zebra
