// Ranks of a job as threads of the test, each with a Group of its own: real sockets on the loopback
// interface, one process.
#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <functional>
#include <latch>
#include <stdexcept>
#include <thread>
#include <vector>

#include "zebra/dist.h"

namespace zebra::testing {

// A port that nobody listens on just now.
inline int64_t free_port() {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  const bool bound = ::bind(socket, any, size) == 0 && ::getsockname(socket, any, &size) == 0;
  ::close(socket);
  if (!bound) throw std::runtime_error("no free port");
  return ntohs(address.sin_port);
}

// Runs `body` on every rank; what each threw, by rank. Groups end together, so that the store
// outlives its users.
inline std::vector<std::exception_ptr> try_ranks(
    int64_t world, const std::function<void(Group&)>& body,
    std::chrono::seconds timeout = std::chrono::seconds(20)) {
  std::vector<std::exception_ptr> thrown(static_cast<size_t>(world));
  const int64_t port = free_port();
  std::latch done(world);
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < world; ++rank) {
    threads.emplace_back([&, rank] {
      std::unique_ptr<Group> group;
      try {
        group = std::make_unique<Group>(RankInfo{.rank = rank,
                                                 .world = world,
                                                 .local_rank = rank,
                                                 .local_world = world,
                                                 .address = "127.0.0.1",
                                                 .port = port,
                                                 .source = "test"},
                                        timeout);
        body(*group);
      } catch (...) {
        thrown[static_cast<size_t>(rank)] = std::current_exception();
      }
      done.arrive_and_wait();
    });
  }
  for (auto& thread : threads) thread.join();
  return thrown;
}

// The same where nothing may be thrown.
inline void run_ranks(int64_t world, const std::function<void(Group&)>& body) {
  for (const auto& thrown : try_ranks(world, body)) {
    if (thrown) std::rethrow_exception(thrown);
  }
}

}  // namespace zebra::testing
