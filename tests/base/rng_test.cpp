#include "base/rng.h"

#include "support/testing.h"

using namespace zebra;

TEST_CASE("rng: generators of one seed agree and leave the default generator alone") {
  torch::manual_seed(7);
  const auto expected = torch::rand({8});
  torch::manual_seed(7);
  auto one = make_generator(11), two = make_generator(11), other = make_generator(12);
  const auto first = torch::rand({8}, one);
  CHECK(torch::equal(first, torch::rand({8}, two)));
  CHECK(!torch::equal(first, torch::rand({8}, other)));
  CHECK(torch::equal(torch::rand({8}), expected));
}

TEST_CASE("rng: the default generator continues as if nothing had been drawn") {
  torch::manual_seed(7);
  torch::rand({3});
  const auto expected = torch::randn({5});
  torch::manual_seed(7);
  torch::rand({3});
  {
    const KeepDefaultGenerator keep;
    torch::randn({100});
  }
  CHECK(torch::equal(torch::randn({5}), expected));
}
