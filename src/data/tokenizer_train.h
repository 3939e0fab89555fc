// Training of small tokenizers, for models made from nothing.
#pragma once

#include <cstdint>
#include <filesystem>

namespace zebra {

// Learns a SentencePiece BPE of `vocab_size` entries from the lines of a text file and writes it
// as a tokenizer.model: Llama's settings (no normalisation, byte fallback, digits split; unknown,
// BOS and EOS are the ids 0, 1 and 2; the 256 bytes follow). The same text gives the same file.
// A vocabulary that the text cannot fill, or that has no room for bytes, is a ConfigError.
void train_tokenizer(const std::filesystem::path& texts, int64_t vocab_size,
                     const std::filesystem::path& output);

}  // namespace zebra
