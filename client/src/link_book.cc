#include "link_book.h"

namespace datawire {

std::shared_ptr<LinkBook::Page> LinkBook::Open(LinkReport names) {
  auto page = std::make_shared<Page>(shared_from_this(), std::move(names));
  {
    const std::lock_guard lock(mutex_);
    open_.insert(page.get());
  }
  Tell(page->Report());
  return page;
}

std::vector<LinkReport> LinkBook::Reports() {
  const std::lock_guard lock(mutex_);
  std::vector<LinkReport> reports;
  for (const Page* page : open_) reports.push_back(page->Report());
  return reports;
}

void LinkBook::Tell(const LinkReport& report) {
  if (!observer_) return;
  try {
    observer_(report);
  } catch (...) {  // the user's: it must not end the thread that links need
  }
}

void LinkBook::Page::End(const std::string& why) {
  if (ended_.exchange(true)) return;
  {
    const std::lock_guard lock(book_->mutex_);
    book_->open_.erase(this);
  }
  LinkReport report = Report();
  report.ended = why.empty() ? "the link was closed" : why;
  book_->Tell(report);
}

LinkReport LinkBook::Page::Report() const {
  LinkReport report = names_;
  report.messages = messages_;
  report.accepted = accepted_;
  report.rejected = rejected_;
  report.given_back = given_back_;
  return report;
}

}  // namespace datawire
