#include "view/view.h"

#include <thread>

#include "view/impl.h"

namespace datawire::directory {
namespace {

// Of a cached thing, by its store key: r/<key> is an address's text, u/ and y/ as in RowCache.
std::string NameOf(const std::string& key) {
  std::string name = key.substr(2);
  if (key[0] == 'y') return "y" + name;
  std::replace(name.begin(), name.end(), '\0', '/');
  return (key[0] == 'u' ? "u//" : "//") + name;
}

Result<Cached> CachedFrom(const std::string& key, const std::optional<std::string>& stored) {
  Cached out;
  if (!stored) return out;
  if (key[0] == 'y') {
    DW_ASSIGN(DomainState domain, DecodeDomain(*stored));
    out.domain_exists = domain.rows > 0;
    out.depths = domain.depths();
    return out;
  }
  out.row = RowFromStored(*stored);
  if (!out.row) return CorruptValue(key);
  return out;
}

bool Cacheable(const std::string& key) {
  return key[0] == 'r' || key[0] == 'u' || key[0] == 'y';
}

constexpr int kAttempts = 8;  // of reading at one generation, before reading from a snapshot

}  // namespace

// ---- Applier

Status View::Stage(const Batch& batch, rocksdb::WriteBatchWithIndex& out) {
  const AppliedState& before = impl_->staged.empty() ? impl_->state : impl_->staged.back().applied;
  if (batch.at <= before.at)
    return {Code::kInternal,
            "revision " + batch.at.ToString() + " staged after " + before.at.ToString()};
  Stager stager(*impl_->db, out, batch, before,
                impl_->staged.empty() ? impl_->recent.get() : nullptr);
  DW_RETURN_IF_ERROR(stager.Run());
  impl_->staged.push_back(stager.Take());
  return {};
}

void View::Publish(Revision at) {
  std::vector<std::shared_ptr<const Published>> told;
  // Before anybody can be told to read what happened meanwhile.
  for (const StagedRevision& staged : impl_->staged)
    if (staged.published->resync) {
      const MutexLock lock(impl_->history_mutex);
      impl_->Trim(staged.at.number);
    }
  impl_->generation.fetch_add(1);
  while (!impl_->staged.empty() && impl_->staged.front().at <= at) {
    impl_->PublishOne(impl_->staged.front());
    told.push_back(std::move(impl_->staged.front().published));
    impl_->staged.pop_front();
  }
  auto point = std::make_shared<const PublishedPoint>(impl_->db.get(), impl_->state.at);
  {
    const MutexLock lock(impl_->point_mutex);
    impl_->point.swap(point);
  }
  impl_->applied.store(impl_->state.at.number);
  impl_->generation.fetch_add(1);
  impl_->KeepHistoryBound(impl_->state.history_bytes);
  const MutexLock lock(impl_->listener_mutex);
  if (!impl_->listener) return;
  for (auto& published : told) impl_->listener(std::move(published));
}

void View::Impl::PublishOne(StagedRevision& revision) {
  for (auto& [key, stored] : revision.written) {
    if (Cacheable(key)) {
      auto value = CachedFrom(key, stored);
      DW_ASSERT(value.ok());  // staged a moment ago by this program
      cache->Replace(NameOf(key), std::move(value).value());
    }
    recent->Set(std::move(key), std::move(stored));
  }
  {
    const MutexLock lock(sweep_mutex);
    for (const auto& [queue, since] : revision.queued) {
      uint64_t& from = queue == keys::Queue::kTombstones ? tombstones_from : last_endpoints_from;
      from = std::min(from, since);
    }
  }
  state = revision.applied;
  const MutexLock lock(counts_mutex);
  counted = state;
}

void View::Discard(Revision at) {
  while (!impl_->staged.empty() && impl_->staged.back().at >= at) impl_->staged.pop_back();
}

Revision View::Applied() const {
  return {impl_->authority.epoch, impl_->applied.load()};
}

// ---- reading rows

Result<Cached> View::Impl::Read(const std::string& key, std::string_view name,
                                Lookup& lookup) const {
  if (lookup.use_cache)
    if (auto hit = cache->Find(name)) return *std::move(hit);
  if (!lookup.point) lookup.point = Point();
  DW_ASSIGN(std::optional<std::string> stored, lookup.point->reading().Get(key));
  Stop("read");
  DW_ASSIGN(Cached out, CachedFrom(key, stored));
  if (!lookup.use_cache) return out;
  Stop("fill");
  cache->Fill(name, out, [&] { return generation.load() == lookup.generation; });
  return out;
}

Status View::Impl::Match(const Address& address, Lookup& lookup, directory::Match* out) const {
  const auto found = [out](const Address& matched, std::shared_ptr<const Row> row) {
    out->matched = matched;
    out->hash = row->hash;
    out->row = std::move(row);
    return Status::Ok();
  };
  std::shared_ptr<const Row> own;  // a policy without registrations
  if (lookup.use_cache) {
    if (auto hit = cache->Find(address.text()); hit && hit->row) own = std::move(hit->row);
    if (own && own->registered) return found(address, std::move(own));
  }
  const std::string domain_name = "y" + std::string(address.domain());
  DW_ASSIGN(const Cached domain, Read(keys::Domain(address.domain()), domain_name, lookup));
  if (domain.domain_exists && !own) {
    DW_ASSIGN(Cached exact, Read(keys::Row(address), address.text(), lookup));
    own = std::move(exact.row);
    if (own && own->registered) return found(address, std::move(own));
  }
  for (size_t depth = address.depth(); depth-- > 0;) {
    if ((domain.depths >> depth & 1) == 0) continue;
    const Address ancestor = address.Ancestor(depth);
    DW_ASSIGN(Cached row, Read(keys::SubtreeRow(ancestor), "u" + ancestor.text(), lookup));
    if (row.row) return found(ancestor, own ? WithOwnPolicy(*row.row, *own) : std::move(row.row));
  }
  if (own) return found(address, std::move(own));
  out->matched.reset();
  out->row = NotFoundRow();
  out->hash = out->row->hash;
  return {};
}

Result<Revision> View::Resolve(std::span<const Address> addresses,
                               std::vector<directory::Match>* out) const {
  const Impl& impl = *impl_;
  out->resize(addresses.size());
  if (addresses.size() == 1) {
    const Revision at = Applied();
    if (auto hit = impl.cache->Find(addresses[0].text()); hit && hit->row && hit->row->registered) {
      (*out)[0] = {addresses[0], std::move(hit->row), 0};
      (*out)[0].hash = (*out)[0].row->hash;
      return at;
    }
  }
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    Impl::Lookup lookup;
    lookup.generation = impl.generation.load();
    if (lookup.generation % 2 != 0) {
      std::this_thread::yield();
      continue;
    }
    const Revision at = Applied();
    for (size_t i = 0; i < addresses.size(); ++i)
      DW_RETURN_IF_ERROR(impl.Match(addresses[i], lookup, &(*out)[i]));
    if (impl.generation.load() == lookup.generation) return at;
  }
  Impl::Lookup lookup{impl.Point(), 0, false};
  for (size_t i = 0; i < addresses.size(); ++i)
    DW_RETURN_IF_ERROR(impl.Match(addresses[i], lookup, &(*out)[i]));
  return lookup.point->at;
}

// ---- accessors

const View::Authority& View::authority() const {
  return impl_->authority;
}
void View::SetListener(Listener listener) {
  const MutexLock lock(impl_->listener_mutex);
  impl_->listener = std::move(listener);
}
void View::SetStopPoint(std::function<void(std::string_view)> stop) {
  impl_->stop_point = std::move(stop);
}
rocksdb::DB& View::db() {
  return *impl_->db;
}
const std::string& View::path() const {
  return impl_->path;
}
const ViewOptions& View::options() const {
  return impl_->options;
}

View::Counts View::counts() const {
  Counts out;
  {
    const MutexLock lock(impl_->counts_mutex);
    out.registrations = impl_->counted.registrations;
    out.addresses = impl_->counted.addresses;
    out.sessions = impl_->counted.sessions;
  }
  out.row_cache_hits = impl_->cache->hits();
  out.row_cache_misses = impl_->cache->misses();
  out.row_cache_bytes = impl_->cache->bytes();
  return out;
}

}  // namespace datawire::directory
