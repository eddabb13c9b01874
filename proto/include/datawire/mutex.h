#pragma once

#include <condition_variable>
#include <mutex>
#include <utility>

// Who holds which lock, proved by clang's -Wthread-safety (preset clang); nothing to other
// compilers.
#if defined(__clang__)
#define DW_LOCKS(x) __attribute__((x))
#else
#define DW_LOCKS(x)
#endif
/// Of a member: read and written only while the mutex is held.
#define DW_GUARDED_BY(mutex) DW_LOCKS(guarded_by(mutex))
/// Of a function: the caller holds the mutex, before and after; or must not hold it.
#define DW_REQUIRES(...) DW_LOCKS(requires_capability(__VA_ARGS__))
#define DW_EXCLUDES(...) DW_LOCKS(locks_excluded(__VA_ARGS__))
/// Of a function whose body the analysis cannot follow, with the reason beside it. Its callers are
/// still checked.
#define DW_UNCHECKED_LOCKS DW_LOCKS(no_thread_safety_analysis)

namespace datawire {

/// std::mutex that the analysis knows. It, MutexLock and Condition are spelled as the standard's,
/// since they stand in for those. Thread-safe.
class DW_LOCKS(capability("mutex")) Mutex {
 public:
  void lock() DW_LOCKS(acquire_capability()) { mutex_.lock(); }
  void unlock() DW_LOCKS(release_capability()) { mutex_.unlock(); }

 private:
  friend class MutexLock;
  std::mutex mutex_;
};

/// Holds a Mutex to the end of its scope, or from lock() to unlock(). Bound to its thread.
class DW_LOCKS(scoped_lockable) MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) DW_LOCKS(acquire_capability(mutex)) : lock_(mutex.mutex_) {}
  ~MutexLock() DW_LOCKS(release_capability()) {}
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;
  void lock() DW_LOCKS(acquire_capability()) { lock_.lock(); }
  void unlock() DW_LOCKS(release_capability()) { lock_.unlock(); }

 private:
  friend class Condition;
  std::unique_lock<std::mutex> lock_;
};

/// std::condition_variable for a MutexLock, which is held before and after each wait. A condition
/// given as a lambda says what it reads: `[this]() DW_REQUIRES(mutex_) { return ready_; }`.
/// Thread-safe.
class Condition {
 public:
  void notify_one() noexcept { condition_.notify_one(); }
  void notify_all() noexcept { condition_.notify_all(); }
  void wait(MutexLock& lock) { condition_.wait(lock.lock_); }
  template <typename Holds>
  void wait(MutexLock& lock, Holds holds) {
    condition_.wait(lock.lock_, std::move(holds));
  }
  template <typename Duration>
  std::cv_status wait_for(MutexLock& lock, const Duration& most) {
    return condition_.wait_for(lock.lock_, most);
  }
  template <typename Duration, typename Holds>
  bool wait_for(MutexLock& lock, const Duration& most, Holds holds) {
    return condition_.wait_for(lock.lock_, most, std::move(holds));
  }

 private:
  std::condition_variable condition_;
};

}  // namespace datawire
