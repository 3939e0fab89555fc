// How long OpenMP's threads spin at a barrier before they sleep. libgomp lets them spin for
// milliseconds, which on a machine with other work makes a step several times slower; a tenth of
// that takes most of the harm away (docs/benchmarks.md). libgomp reads its environment when it is
// loaded, before any code of ours but this: the dynamic linker calls what stands in .preinit_array
// first, and there the program starts itself again with the setting. That costs 0.2 s, which verbs
// that compute can afford.
#include <unistd.h>

#include <climits>
#include <cstring>
#include <vector>

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)  // they are not ready so early

namespace {

constexpr const char* kShortSpin = "GOMP_SPINCOUNT=20000";

bool chosen_by_the_user(char** environment) {
  for (char** entry = environment; *entry != nullptr; ++entry) {
    for (const char* name : {"GOMP_SPINCOUNT=", "OMP_WAIT_POLICY="}) {
      if (std::strncmp(*entry, name, std::strlen(name)) == 0) return true;
    }
  }
  return false;
}

bool computes(const char* verb) {
  for (const char* name : {"run", "eval", "generate", "chat", "bench"}) {
    if (verb != nullptr && std::strcmp(verb, name) == 0) return true;
  }
  return false;
}

void start_again_with_a_short_spin(int argc, char** argv, char** environment) {
  if (argc < 2 || !computes(argv[1]) || chosen_by_the_user(environment)) return;
  char program[PATH_MAX];
  const ssize_t length = ::readlink("/proc/self/exe", program, sizeof program - 1);
  if (length <= 0) return;
  program[length] = '\0';
  std::vector<char*> more;
  for (char** entry = environment; *entry != nullptr; ++entry) more.push_back(*entry);
  more.push_back(const_cast<char*>(kShortSpin));
  more.push_back(nullptr);
  ::execve(program, argv, more.data());  // returns only when it failed: libgomp's own spin then
}

__attribute__((section(".preinit_array"),
               used)) void (*const kBeforeLibraries)(int, char**,
                                                     char**) = start_again_with_a_short_spin;

}  // namespace

#endif
