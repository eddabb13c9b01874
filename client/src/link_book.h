#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "datawire/client.h"

namespace datawire {

/// The links of a client and what goes over them. Thread-safe.
class LinkBook : public std::enable_shared_from_this<LinkBook> {
 public:
  using Observer = std::function<void(const LinkReport&)>;
  explicit LinkBook(Observer observer) : observer_(std::move(observer)) {}

  /// One link, open until End or its destruction. Thread-safe.
  class Page {
   public:
    Page(std::shared_ptr<LinkBook> book, LinkReport names)
        : book_(std::move(book)), names_(std::move(names)) {}
    ~Page() { End("the link was closed"); }
    void Message() { ++messages_; }
    void Accepted() { ++accepted_; }
    void Rejected() { ++rejected_; }
    void GivenBack() { ++given_back_; }
    /// Once; the observer is told.
    void End(const std::string& why);
    bool ended() const { return ended_; }
    LinkReport Report() const;

   private:
    const std::shared_ptr<LinkBook> book_;
    const LinkReport names_;
    std::atomic<uint64_t> messages_ = 0, accepted_ = 0, rejected_ = 0, given_back_ = 0;
    std::atomic<bool> ended_ = false;
  };
  /// `names`: what it has but for the counts.
  std::shared_ptr<Page> Open(LinkReport names);
  std::vector<LinkReport> Reports();

 private:
  void Tell(const LinkReport& report);

  const Observer observer_;
  std::mutex mutex_;
  std::set<Page*> open_;  // guarded by mutex_; each leaves before it is destroyed
};

}  // namespace datawire
