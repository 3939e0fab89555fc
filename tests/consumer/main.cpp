#include <zebra/zebra.h>

#include <iostream>

int main() {
  zebra::ModelOptions options;
  options.layers = {zebra::MixerKind::kMla, zebra::MixerKind::kMamba2};
  std::cout << "layers: " << options.num_layers() << ", a Llama: " << options.is_llama() << "\n";
  return options.is_llama() ? 1 : 0;
}
