// What a model keeps of the tokens it has seen: latents or keys and values of every token, and
// states. docs/generation.md.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "zebra/cached_attention.h"
#include "zebra/options.h"

namespace zebra {

enum class CacheDtype { kModel, kFloat32, kBfloat16, kInt8 };
template <>
struct EnumNames<CacheDtype> {
  static constexpr std::array<std::pair<CacheDtype, std::string_view>, 4> names = {
      {{CacheDtype::kModel, "model"},
       {CacheDtype::kFloat32, "fp32"},
       {CacheDtype::kBfloat16, "bf16"},
       {CacheDtype::kInt8, "int8"}}};
};

struct CacheOptions {
  CacheDtype tokens = CacheDtype::kModel;   // of keys, values and latents; int8 by token
  CacheDtype state = CacheDtype::kFloat32;  // of SSM states: fp32 or bf16; arithmetic stays fp32
  int64_t block_tokens = 256;               // memory of a sequence grows by so many tokens
  void validate() const;                    // throws ConfigError
};

// Where the tokens of one forward pass stand in the cached sequences.
struct CachePlace {
  std::vector<int64_t> first = {};   // (B) position of a row's first token
  std::vector<int64_t> counts = {};  // (B) tokens that are the row's; the rest of T is padding
  bool even = true;                  // rows are as long as each other, and nothing is padding
  bool tentative = false;            // states wait for keep()

  bool starts() const;  // no row has tokens yet
};

// One layer's memory of a batch of sequences.
class LayerCache {
 public:
  virtual ~LayerCache() = default;
  virtual int64_t bytes_per_token() const = 0;  // of one sequence; 0 before the first token
  virtual int64_t state_bytes() const = 0;      // of the whole batch, whatever its length
  virtual int64_t reserved_bytes() const = 0;   // memory that is held, used or not

  // Of the last, tentative piece the first counts[b] tokens of row b stay.
  virtual void keep(const std::vector<int64_t>& counts) = 0;
  // These rows, in this order; one may come several times.
  virtual std::unique_ptr<LayerCache> select(const std::vector<int64_t>& rows) const = 0;
  // The rows of another cache of this kind behind one's own.
  virtual void append(const LayerCache& other) = 0;
  // The states as they are, which later pieces leave alone; what is stored by token has none.
  virtual std::vector<at::Tensor> states() const = 0;
  virtual void restore(const std::vector<at::Tensor>& states) = 0;
};

// A place that a ModelCache can go back to.
struct CacheMark {
  std::vector<std::vector<at::Tensor>> states;  // of each layer
  std::vector<int64_t> lengths;
};

// Every layer's memory of one batch of sequences. Row b holds lengths[b] tokens; rows are
// independent of each other and need not be of one length.
struct ModelCache {
  std::vector<std::unique_ptr<LayerCache>> layers;
  std::vector<int64_t> lengths;  // (B)
  bool tentative = false;        // between CausalLm's propose() and keep()

  int64_t rows() const { return static_cast<int64_t>(lengths.size()); }
  int64_t length() const;          // of the longest row
  int64_t bytes() const;           // in use: tokens of all rows, and states
  int64_t reserved_bytes() const;  // held: whole blocks

  // Of a proposed piece the first counts[b] tokens of row b stay, the others never were.
  void keep(const std::vector<int64_t>& counts);
  ModelCache select(const std::vector<int64_t>& rows) const;
  void append(const ModelCache& other);

  // rewind() goes back to a mark: tokens since then are forgotten.
  CacheMark mark() const;
  void rewind(const CacheMark& mark);
};

}  // namespace zebra
