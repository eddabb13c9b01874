#pragma once

#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <rocksdb/utilities/write_batch_with_index.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "datawire/directory/v1/directory.pb.h"
#include "datawire/record/v1/record.pb.h"
#include "view/view.h"

namespace datawire::directory::testing_view {

namespace pb = ::datawire::directory::v1;
namespace record = ::datawire::record::v1;

class TempDir {
 public:
  TempDir() {
    std::string pattern = ::testing::TempDir() + "datawire-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline Address A(const std::string& text) {
  return Address::Parse(text).value();
}

/// A registration as a test writes it.
struct Reg {
  std::string session;  // empty: static
  std::string url = "amqp://h:1";
  bool subtree = false;
  uint32_t priority = 0;
  bool draining = false;
  pb::Reason ended = pb::REASON_NONE;
  std::string label = {};  // filler, for size
};

inline record::Registration Value(const Reg& reg) {
  record::Registration out;
  out.set_session_id(reg.session);
  out.mutable_endpoint()->set_url(reg.url);
  out.mutable_endpoint()->set_match(reg.subtree ? pb::MATCH_SUBTREE : pb::MATCH_EXACT);
  out.mutable_endpoint()->set_priority(reg.priority);
  if (!reg.label.empty()) (*out.mutable_endpoint()->mutable_labels())["filler"] = reg.label;
  out.set_draining(reg.draining);
  out.set_identity("id");
  if (reg.ended != pb::REASON_NONE) out.mutable_ended()->set_reason(reg.ended);
  return out;
}

/// Drives a view without an engine: batches as an engine would hand them over, unsynced.
class Driver {
 public:
  explicit Driver(View& view) : view_(view) {}

  Driver& Put(const std::string& key, const std::string& value) {
    const auto former = view_.Get(key).value();
    batch_.puts.push_back({key, value, former ? former->created : Next(), Next()});
    return *this;
  }
  Driver& Erase(const std::string& key) {
    batch_.erased.push_back(key);
    return *this;
  }
  Driver& Register(const std::string& address, const std::string& instance, const Reg& reg) {
    return Put(keys::Registration(A(address), instance), Value(reg).SerializeAsString());
  }
  Driver& Open(const std::string& session) {
    return Put(keys::Session(session), record::Session().SerializeAsString());
  }
  Driver& Mark(const std::string& session, pb::EndpointState state) {
    record::SessionMark mark;
    mark.set_state(state);
    return Put(keys::SessionMark(session), mark.SerializeAsString());
  }
  Driver& End(const std::string& session, pb::Reason reason) {
    record::SessionEnded ended;
    ended.set_reason(reason);
    ended.set_by("node");
    Erase(keys::Session(session));
    Erase(keys::SessionMark(session));
    return Put(keys::SessionEnded(session), ended.SerializeAsString());
  }
  /// Stages only; FinishCommit writes and publishes.
  void Stage() {
    batch_.at = {view_.authority().epoch, Next()};
    const Status staged = view_.Stage(batch_, out_);
    ASSERT_TRUE(staged.ok()) << staged.ToString();
  }
  void Write() { ASSERT_TRUE(view_.db().Write({}, out_.GetWriteBatch()).ok()); }
  void Publish() {
    view_.Publish(batch_.at);
    batch_ = {};
    out_.Clear();
  }
  uint64_t Commit() {
    const uint64_t at = Next();
    Stage();
    Write();
    Publish();
    return at;
  }

 private:
  uint64_t Next() const { return view_.Applied().number + 1; }
  View& view_;
  Batch batch_;
  rocksdb::WriteBatchWithIndex out_{rocksdb::BytewiseComparator(), 0, true};
};

/// An answer as text: `FOUND //d/a total=2: amqp://h:1/up amqp://h:2/suspect`.
inline std::string Shown(const Match& match) {
  pb::Row row;
  EXPECT_TRUE(row.ParseFromString(match.row->bytes));
  EXPECT_EQ(match.hash, row.hash());
  std::string out(AnswerStatusName(static_cast<AnswerStatus>(row.status())));
  EXPECT_EQ(match.row->status, static_cast<AnswerStatus>(row.status()));
  if (!match.matched) return out;
  out += " " + match.matched->text() + " total=" + std::to_string(row.total()) + ":";
  for (const pb::Endpoint& e : row.endpoints())
    out +=
        " " + e.url() + "/" + std::string(EndpointStateName(static_cast<EndpointState>(e.state())));
  return out;
}

inline std::string Answer(const View& view, const std::string& address) {
  std::vector<Match> out;
  const std::vector<Address> asked{A(address)};
  const auto at = view.Resolve(asked, &out);
  return at.ok() ? Shown(out[0]) : at.status().ToString();
}

inline pb::Row RowOf(const View& view, const std::string& address) {
  std::vector<Match> out;
  const std::vector<Address> asked{A(address)};
  EXPECT_TRUE(view.Resolve(asked, &out).ok());
  pb::Row row;
  EXPECT_TRUE(row.ParseFromString(out[0].row->bytes));
  return row;
}

class ViewTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto made = View::Create(dir_ / "data", {"cluster", 1}, Options());
    ASSERT_TRUE(made.ok()) << made.status().ToString();
    view_ = std::move(made).value();
    driver_ = std::make_unique<Driver>(*view_);
    Listen();
  }
  virtual ViewOptions Options() { return {}; }
  void Listen() {
    view_->SetListener([this](auto published) { published_.push_back(std::move(published)); });
  }
  void Reopen() {
    driver_.reset();
    view_.reset();
    auto opened = View::Open(dir_ / "data", Options());
    ASSERT_TRUE(opened.ok()) << opened.status().ToString();
    view_ = std::move(opened).value();
    driver_ = std::make_unique<Driver>(*view_);
    Listen();
  }
  /// Events of the last Publish as `PUT //d/a 69 up reason`.
  std::string LastEvents() const {
    record::History history;
    EXPECT_TRUE(history.ParseFromString(published_.back()->events));
    std::string out;
    for (const pb::Event& e : history.events()) {
      if (!out.empty()) out += "; ";
      out += std::string(e.kind() == pb::Event::KIND_PUT ? "PUT " : "GONE ") + e.address() + " " +
             e.endpoint().url() + " " +
             std::string(EndpointStateName(static_cast<EndpointState>(e.endpoint().state())));
      if (e.reason() != pb::REASON_NONE) out += " " + pb::Reason_Name(e.reason()).substr(7);
    }
    return out;
  }

  TempDir dir_;
  std::unique_ptr<View> view_;
  std::unique_ptr<Driver> driver_;
  std::vector<std::shared_ptr<const Published>> published_;
};

}  // namespace datawire::directory::testing_view
