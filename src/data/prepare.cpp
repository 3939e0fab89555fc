#include "zebra/prepare.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <thread>

#include "base/file.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/signals.h"
#include "data/prepared_index.h"
#include "data/shard_maker.h"
#include "zebra/error.h"

namespace zebra {

namespace fs = std::filesystem;

namespace {

constexpr double kMegabyte = 1e6;
constexpr double kShortTask = 2;  // seconds; shorter ones show no progress
constexpr auto kLockPause = std::chrono::milliseconds(100);

DocumentKind kind_of(const PreparePlan& plan) {
  return plan.pairs ? DocumentKind::kPairs : DocumentKind::kText;
}

// Where a source's tokens lie: by what it is, not by what it holds, so that a change is seen.
fs::path folder_of(const PreparePlan& plan, const fs::path& cache) {
  Hasher hasher;
  hasher.add(fs::absolute(plan.source.path).lexically_normal().string());
  hasher.add(plan.pairs ? "pairs" : std::string(enum_name(plan.source.format)));
  char name[32];
  std::snprintf(name, sizeof name, "%016llx", static_cast<unsigned long long>(hasher.value()));
  return cache / (plan.role + "-" + name);
}

fs::path shard_path(const fs::path& folder, size_t number) {
  char name[32];
  std::snprintf(name, sizeof name, "shard-%06zu.tokens", number);
  return folder / name;
}

const char* side_of(Split split) {
  if (split == Split::kAll) return "";
  return split == Split::kTrain ? " left for training by data.validation_split"
                                : " held out by data.validation_split";
}

// One process at a time works on a folder; the others wait.
class FolderLock {
 public:
  explicit FolderLock(const fs::path& folder) {
    const auto path = folder.parent_path() / ("." + folder.filename().string() + ".lock");
    file_ = ::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0644);
    if (file_ < 0) {
      throw ConfigError(str(path.string(), ": cannot be written: ", std::strerror(errno)));
    }
    if (::flock(file_, LOCK_EX | LOCK_NB) == 0) return;
    log_info(str(folder.string(), ": another process prepares it; waiting"));
    // Not one call that waits: a stop request would not end it.
    while (::flock(file_, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
      if (stop_requested()) {
        ::close(file_);
        throw StoppedError("prepare: stopped while waiting");
      }
      std::this_thread::sleep_for(kLockPause);
    }
  }
  ~FolderLock() { ::close(file_); }
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_;
};

// A shard that changed since it was listed is read whole to see whether it is damaged.
std::shared_ptr<const Shard> open_listed(const fs::path& folder, const IndexedFile& listed,
                                         uint64_t identity) {
  const auto path = folder / listed.path;
  auto shard = std::make_shared<Shard>(path);
  if (shard->header().identity != identity) {
    throw ConfigError(path.string() + ": belongs to another preparation than index.json");
  }
  if (stamp_of(path) != listed.stamp) {
    shard->check_body();
    shard->release();
  }
  return shard;
}

PreparedSource open_complete(const fs::path& folder, const PreparedIndex& index) {
  std::vector<std::shared_ptr<const Shard>> shards;
  for (const auto& listed : index.shards) {
    shards.push_back(open_listed(folder, listed, index.identity()));
  }
  PreparedSource source{.store = std::make_shared<TokenStore>(std::move(shards), index.path),
                        .folder = folder,
                        .text_hash = index.text_hash()};
  source.documents = index.total_documents;
  source.tokens = index.total_tokens;
  source.text_bytes = index.text_bytes;
  source.bad_records = index.bad_records;
  if (source.store->documents() != index.total_documents ||
      source.store->tokens() != index.total_tokens) {
    throw ConfigError(str(index_path(folder).string(), ": documents and tokens: expected ",
                          index.total_documents, " and ", index.total_tokens, ", got ",
                          source.store->documents(), " and ", source.store->tokens()));
  }
  return source;
}

// One source's shards on their way into a folder.
class Preparation {
 public:
  Preparation(fs::path folder, PreparedIndex index)
      : folder_(std::move(folder)), index_(std::move(index)), identity_(index_.identity()) {}

  // Takes over the complete shards of an earlier attempt.
  void resume() {
    for (size_t i = 0; fs::exists(shard_path(folder_, i)); ++i) {
      try {
        const Shard shard(shard_path(folder_, i));
        if (shard.header().identity != identity_) break;
        shard.check_body();
        add(shard_path(folder_, i), shard.header());
        start_ = shard.next();
      } catch (const ConfigError& error) {
        log_warning(str("prepare ", index_.path, ": made again: ", error.what()));
        break;
      }
    }
    if (index_.shards.empty()) return;
    kept_bytes_ = index_.text_bytes;
    log_info(str("prepare ", index_.path, ": continuing after ", index_.shards.size(), " shards"));
  }

  PreparedIndex run(const PreparePlan& plan, const Tokenizer& tokenizer, uint64_t shard_text) {
    const DocumentEncoder encoder(kind_of(plan), plan.source.format, plan.documents, tokenizer,
                                  plan.no_template);
    std::vector<fs::path> files;
    for (const auto& file : index_.files) files.emplace_back(file.path);
    ShardMaker maker(RecordReader(std::move(files), encoder.record_kind(), start_), encoder,
                     {.kind = kind_of(plan),
                      .bad_lines = plan.documents.bad_lines,
                      .identity = identity_,
                      .bad_records = static_cast<uint64_t>(index_.bad_records),
                      .shard_text = shard_text});
    Progress progress(str("prepare ", index_.path), megabytes(maker.reader().bytes()), 0);
    const double before = static_cast<double>(maker.reader().bytes_read());
    const auto began = std::chrono::steady_clock::now();
    std::chrono::duration<double> spent{0};
    const auto show = [&](const ShardMaker& now) {
      spent = std::chrono::steady_clock::now() - began;
      const double read = static_cast<double>(now.reader().bytes_read());
      char rate[32];
      std::snprintf(rate, sizeof rate, "%.1f MB/s",
                    (read - before) / kMegabyte / std::max(spent.count(), 1e-9));
      progress.update(megabytes(now.reader().bytes_read()), rate);
      if (stop_requested()) {
        throw StoppedError(str("prepare ", index_.path, ": stopped; ", index_.shards.size(),
                               " shards are complete"));
      }
    };
    while (const auto bytes = maker.next(show)) write(*bytes);
    if (spent.count() > kShortTask) progress.finish();
    index_.bad_records = static_cast<int64_t>(maker.bad_records());
    if (index_.total_documents == 0) {
      throw ConfigError(str("data: expected ", plan.pairs ? "preference pairs" : "text", ", got ",
                            plan.pairs ? "none" : "no token", side_of(plan.documents.split),
                            " from ", index_.path));
    }
    index_.complete = true;
    write_index(folder_, index_);
    return index_;
  }

  // Whether what went wrong is the disk's fault: then the complete shards may serve later.
  bool writing() const { return writing_; }
  int64_t kept_bytes() const { return kept_bytes_; }  // of text, in the shards taken over
  const fs::path& folder() const { return folder_; }

 private:
  static int64_t megabytes(uint64_t bytes) {
    return static_cast<int64_t>(static_cast<double>(bytes) / kMegabyte);
  }

  void write(const std::string& bytes) {
    const auto path = shard_path(folder_, index_.shards.size());
    writing_ = true;
    write_file_atomic(path, bytes);
    writing_ = false;
    ShardHeader header;
    std::memcpy(&header, bytes.data(), sizeof header);
    add(path, header);
  }

  void add(const fs::path& path, const ShardHeader& header) {
    index_.shards.push_back(
        {.path = path.filename().string(), .stamp = stamp_of(path), .hash = header.body_hash});
    index_.total_documents += static_cast<int64_t>(header.documents);
    index_.total_tokens += static_cast<int64_t>(header.tokens);
    index_.text_bytes += static_cast<int64_t>(header.text_bytes);
    index_.bad_records = static_cast<int64_t>(header.bad_records);
  }

  fs::path folder_;
  PreparedIndex index_;
  uint64_t identity_;
  Place start_;
  int64_t kept_bytes_ = 0;
  bool writing_ = false;
};

PreparedIndex make(const PreparePlan& plan, const Tokenizer& tokenizer, Preparation& preparation,
                   uint64_t shard_text) {
  try {
    preparation.resume();
    return preparation.run(plan, tokenizer, shard_text);
  } catch (const StoppedError&) {
    throw;
  } catch (const std::exception&) {
    std::error_code ignored;
    if (!preparation.writing()) fs::remove_all(preparation.folder(), ignored);
    throw;
  }
}

// What `read` finds; nothing where that is damaged and may be replaced.
template <class Read>
auto unless_damaged(bool replace, const Read& read) -> std::optional<decltype(read())> {
  try {
    return read();
  } catch (const ConfigError& error) {
    if (replace) return std::nullopt;
    throw ConfigError(str(error.what(), "; prepare it again with zebra data prepare --fresh"));
  }
}

// Files that were touched or copied, and are the same, are not hashed another time.
void renew_stamps(const fs::path& folder, const PreparedIndex& known, const PreparedIndex& wanted) {
  auto now = known;
  now.files = wanted.files;
  for (auto& shard : now.shards) shard.stamp = stamp_of(folder / shard.path);
  if (now.files != known.files || now.shards != known.shards) write_index(folder, now);
}

}  // namespace

PreparedSource prepare(const PreparePlan& plan, const Tokenizer& tokenizer,
                       const PrepareOptions& options) {
  const auto folder = folder_of(plan, options.cache);
  make_folders(options.cache);
  const FolderLock lock(folder);
  const auto index = unless_damaged(options.replace, [&] { return read_index(folder); });
  const auto known = index.value_or(std::nullopt);
  const auto wanted = wanted_index(plan, tokenizer, known);
  const auto difference = known ? known->difference(wanted) : "";
  if (!difference.empty() && !options.replace) {
    throw ConfigError(str("data: ", plan.source.path, " was prepared in ", folder.string(),
                          " from another ", difference,
                          "; prepare it again with zebra data prepare --fresh, or choose another "
                          "data.cache"));
  }
  bool usable = known && difference.empty();
  if (usable && known->complete) {
    auto source = unless_damaged(options.replace, [&] { return open_complete(folder, *known); });
    if (source) {
      renew_stamps(folder, *known, wanted);
      return *std::move(source);
    }
    usable = false;
  }
  const auto began = std::chrono::steady_clock::now();
  if (!usable) fs::remove_all(folder);
  make_folders(folder);
  write_index(folder, wanted);
  Preparation preparation(folder, wanted);
  const auto made = make(plan, tokenizer, preparation, options.shard_text);
  auto source = open_complete(folder, made);
  source.made_bytes = made.text_bytes - preparation.kept_bytes();
  source.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  return source;
}

std::optional<PreparedSource> find_prepared(const PreparePlan& plan, const Tokenizer& tokenizer,
                                            const fs::path& cache) {
  const auto folder = folder_of(plan, cache);
  const auto index = unless_damaged(/*replace=*/false, [&] { return read_index(folder); });
  const auto known = index.value_or(std::nullopt);
  if (!known || !known->complete) return std::nullopt;
  const auto wanted = wanted_index(plan, tokenizer, known);
  if (!known->difference(wanted).empty()) return std::nullopt;
  return unless_damaged(/*replace=*/false, [&] { return open_complete(folder, *known); });
}

}  // namespace zebra
