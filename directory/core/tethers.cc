#include "core/tethers.h"

#include "datawire/wire.h"

namespace datawire::directory {
namespace {

constexpr int kAttempts = 8;  // a guard that loses so often meets more than a coincidence
constexpr size_t kIdBytes = 16, kSecretBytes = 32;
constexpr size_t kHostBytes = 253, kProgramBytes = 128;

Status CheckHello(const pb::TetherRequest::Hello& hello) {
  const auto ttl = std::chrono::milliseconds(hello.ttl_ms());
  if (hello.session_id().empty() && hello.ttl_ms() != 0 &&
      (ttl < limits::kSessionTtlLeast || ttl > limits::kSessionTtlMost))
    return {Code::kInvalid,
            "session TTL " + std::to_string(hello.ttl_ms()) + " ms is out of range, 3 s to 1 h"};
  if (hello.host().size() > kHostBytes)
    return {Code::kInvalid, "host is " + std::to_string(hello.host().size()) + " bytes, at most " +
                                std::to_string(kHostBytes)};
  if (hello.program().size() > kProgramBytes)
    return {Code::kInvalid, "program is " + std::to_string(hello.program().size()) +
                                " bytes, at most " + std::to_string(kProgramBytes)};
  if (!hello.session_id().empty() && hello.session_id().size() != kIdBytes)
    return {Code::kInvalid, "session id is " + std::to_string(hello.session_id().size()) +
                                " bytes, must be " + std::to_string(kIdBytes)};
  return {};
}

std::string ReasonName(pb::Reason reason) {
  switch (reason) {
    case pb::REASON_CLOSED:
      return "closed";
    case pb::REASON_WITHDRAWN:
      return "withdrawn";
    case pb::REASON_ENDED:
      return "ended";
    default:
      return "expired";
  }
}

}  // namespace

/// The front-end's handle on one line.
class TetherStream final : public Tether {
 public:
  TetherStream(std::shared_ptr<Tethers> tethers, std::shared_ptr<TetherLine> line,
               Quotas::Held held)
      : tethers_(std::move(tethers)), line_(std::move(line)), held_(std::move(held)) {}
  ~TetherStream() override {
    line_->gate.Detach();
    tethers_->Gone(line_);
  }
  void OnMessage(const pb::TetherRequest& request) override { tethers_->OnMessage(line_, request); }
  std::optional<pb::TetherResponse> Next() override { return line_->Next(); }

 private:
  std::shared_ptr<Tethers> tethers_;
  std::shared_ptr<TetherLine> line_;
  const Quotas::Held held_;
};

void TetherLine::Put(pb::TetherResponse response) {
  const MutexLock lock(mu_);
  if (overrun_) return;
  if (out_.size() >= kTetherReplies) {
    overrun_ = true;
    out_.clear();
    response.Clear();
    auto* ended = response.mutable_ended();
    ToWire(Status(Code::kOverloaded, "this peer sends but does not read: " +
                                         std::to_string(kTetherReplies) + " replies wait"),
           ended->mutable_refusal());
  }
  out_.push_back(std::move(response));
}

std::optional<pb::TetherResponse> TetherLine::Next() {
  const MutexLock lock(mu_);
  if (out_.empty()) return std::nullopt;
  pb::TetherResponse response = std::move(out_.front());
  out_.pop_front();
  return response;
}

Result<std::shared_ptr<Tethers>> Tethers::Open(std::shared_ptr<Ground> ground, BootTime now) {
  auto tethers = std::make_shared<Tethers>(ground, now);
  // In a cluster those of former runs are orphans, wherever this node starts.
  if (ground->log.shared()) return tethers;
  std::unordered_map<std::string, SessionMark> marks;
  Status bad;
  DW_RETURN_IF_ERROR(ground->view.Scan("q/", "q0", [&](const Record& record) {
    record::v1::SessionMark mark;
    if (!mark.ParseFromString(record.value))
      bad = {Code::kCorrupt, "a session mark does not parse"};
    marks[record.key.substr(2)] = MarkOf(mark);
    return bad.ok();
  }));
  DW_RETURN_IF_ERROR(ground->view.Scan("s/", "s0", [&](const Record& record) {
    record::v1::Session session;
    const std::string id = record.key.substr(2);
    if (!session.ParseFromString(record.value))
      bad = {Code::kCorrupt, "a session record does not parse"};
    const auto mark = marks.find(id);
    const std::string principal = PrincipalOf(session.identity(), session.peer());
    const MutexLock lock(tethers->mu_);
    tethers->table_.Recover(id, std::move(session), record.modified,
                            mark == marks.end() ? SessionMark::kNone : mark->second, now);
    Ops& ops = tethers->ops_[id];
    ops.counted = false;
    ops.session = ground->quotas->Charge(Quotas::Kind::kSessions, principal);
    return bad.ok();
  }));
  if (!bad.ok()) return bad;
  return tethers;
}

std::unique_ptr<Tether> Tethers::OpenTether(const Peer& peer, Stream& stream) {
  Line line;
  After after;
  auto held = ground_->quotas->Take(Quotas::Kind::kStreams, PrincipalOf(peer));
  {
    const MutexLock lock(mu_);
    line = std::make_shared<TetherLine>(next_stream_++, peer, stream);
    lines_[line->id] = line;
    if (stopping_) EndLine(line, {Code::kUnavailable, "this node stops"}, "", 0, after);
    if (!held.ok()) EndLine(line, held.status(), "", 0, after);
  }
  after.Run();
  return std::make_unique<TetherStream>(shared_from_this(), line,
                                        held.ok() ? std::move(*held) : Quotas::Held());
}

void Tethers::OnMessage(const Line& line, const pb::TetherRequest& request) {
  After after;
  {
    const MutexLock lock(mu_);
    if (line->state == TetherLine::kOpening) {
      if (line->waiting.size() < kTetherOps)
        line->waiting.push_back(request);
      else
        EndLine(line, {Code::kOverloaded, "too many messages before the welcome"}, "", 0, after);
    } else {
      Handle(line, request, after);
    }
    Flush(after);
  }
  after.Run();
}

void Tethers::Handle(const Line& line, const pb::TetherRequest& request, After& after) {
  using Kind = pb::TetherRequest;
  if (line->state == TetherLine::kEnded) return;
  const bool hello = request.kind_case() == Kind::kHello;
  if (hello != (line->state == TetherLine::kNew)) {
    EndLine(line,
            {Code::kInvalid, hello ? "a second hello on a tether"
                                   : "the first message of a tether must be a hello"},
            "", 0, after);
    return;
  }
  auto op = std::make_shared<SessionOp>();
  switch (request.kind_case()) {
    case Kind::kHello:
      return OnHello(line, request.hello(), after);
    case Kind::kHeartbeat:
      return OnHeartbeat(line, request.heartbeat().number(), after);
    case Kind::kDrain:
      return OnDrain(line, request.drain(), after);
    case Kind::kBye:
      return table_.Close(line->session_id);
    case Kind::kRegister:
    case Kind::kWithdraw: {
      const bool registers = request.kind_case() == Kind::kRegister;
      op->op_id = registers ? request.register_().op_id() : request.withdraw().op_id();
      Status checked;
      if (registers) {
        auto list = Check(request.register_().registrations());
        if (list.ok()) op->registrations = std::move(list).value();
        checked = list.status();
      } else {
        auto list = Check(request.withdraw().withdrawals());
        if (list.ok()) op->withdrawals = std::move(list).value();
        checked = list.status();
      }
      if (checked.ok()) return Admit(line, std::move(op), after);
      ++ground_->counts.refused;
      pb::TetherResponse response;
      response.mutable_done()->set_op_id(op->op_id);
      ToWire(checked, response.mutable_done()->mutable_refusal());
      after.sends.emplace_back(line, std::move(response));
      return;
    }
    case Kind::KIND_NOT_SET:
      EndLine(line, {Code::kUnsupported, "a tether message of a kind this version does not know"},
              "", 0, after);
  }
}

void Tethers::OnHello(const Line& line, const pb::TetherRequest::Hello& hello, After& after) {
  if (Status status = CheckHello(hello); !status.ok()) {
    ++ground_->counts.refused;
    EndLine(line, status, "", 0, after);
    return;
  }
  line->state = TetherLine::kOpening;
  auto self = shared_from_this();
  after.calls.push_back([self, line, hello] {
    if (hello.session_id().empty())
      self->ProposeOpen(line, hello);
    else
      self->Resume(line, hello, 0);
  });
}

void Tethers::ProposeOpen(const Line& line, const pb::TetherRequest::Hello& hello) {
  auto held = ground_->quotas->Take(Quotas::Kind::kSessions, PrincipalOf(line->peer));
  if (!held.ok()) {
    ++ground_->counts.refused;
    After after;
    {
      const MutexLock lock(mu_);
      EndLine(line, held.status(), "", 0, after);
    }
    return after.Run();
  }
  const std::string id = ground_->ids.Bytes(kIdBytes);
  const std::string secret = ground_->ids.Bytes(kSecretBytes);
  record::v1::Session session;
  session.set_owner(ground_->options.node_id);
  session.set_owner_incarnation(ground_->options.incarnation);
  session.set_attach_number(hello.attach_number());
  session.set_ttl_ms(hello.ttl_ms() != 0
                         ? hello.ttl_ms()
                         : std::chrono::milliseconds(limits::kSessionTtlDefault).count());
  session.set_identity(line->peer.identity);
  session.set_secret_sha256(Sha256(secret));
  session.set_host(hello.host());
  session.set_pid(hello.pid());
  session.set_program(hello.program());
  session.set_opened_wall_ms(WallMillis());
  session.set_peer(line->peer.address);
  Op op;
  op.guards.push_back({Guard::kAbsent, keys::Session(id), 0});
  op.changes.push_back({false, keys::Session(id), session.SerializeAsString()});
  auto self = shared_from_this();
  auto done = [self, line, id, secret, session, held = std::move(*held)](const Outcome& outcome) {
    After after;
    {
      const MutexLock lock(self->mu_);
      if (!outcome.status.ok()) {
        self->EndLine(line, outcome.status, "", 0, after);
      } else {
        // Opened also when its stream is gone by now: then its TTL ends it.
        const bool here = line->state == TetherLine::kOpening;
        self->table_.Opened(id, session, outcome.at.number, here ? line->id : 0,
                            self->ground_->now());
        self->ops_[id].session = held;
        ++self->ground_->counts.sessions_opened;
        if (here) self->Welcome(line, *self->table_.Find(id), secret, false, outcome.at, after);
      }
      self->Flush(after);
    }
    after.Run();
  };
  ground_->log.Propose(std::move(op), ground_->commit_deadline(), std::move(done));
}

void Tethers::Resume(const Line& line, const pb::TetherRequest::Hello& hello, int attempt) {
  const std::string& id = hello.session_id();
  Op op;
  After after;
  {
    const MutexLock lock(mu_);
    if (line->state != TetherLine::kOpening) return;
    const auto verdict =
        table_.MayResume(id, Sha256(hello.secret()), line->peer.identity, hello.attach_number());
    const Session* const known = table_.Find(id);
    if (known == nullptr || known->orphan) {
      after.calls.push_back([self = shared_from_this(), line, hello, attempt] {
        self->TakeOver(line, hello, attempt);
      });
    } else if (verdict != SessionTable::Verdict::kOk) {
      ++ground_->counts.refused;
      RefuseResume(line, id, verdict, known->record.attach_number(), after);
    } else if (attempt >= kAttempts) {
      EndLine(line, {Code::kUnavailable, "the session keeps changing: try again"}, "", 0, after);
    } else {
      const Session& session = *table_.Find(id);
      const record::v1::Session record = Resumption(session.record, line->peer, hello);
      op.guards.push_back({Guard::kModEquals, keys::Session(id), session.modified});
      op.changes.push_back({false, keys::Session(id), record.SerializeAsString()});
      op.frees_space = true;  // takes none, and a refusal would end who is alive
    }
  }
  after.Run();
  if (op.changes.empty()) return;
  auto self = shared_from_this();
  ground_->log.Propose(std::move(op), ground_->commit_deadline(),
                       [self, line, hello, attempt](const Outcome& outcome) {
                         self->Resumed(line, hello, attempt, outcome);
                       });
}

record::v1::Session Tethers::Resumption(record::v1::Session record, const Peer& peer,
                                        const pb::TetherRequest::Hello& hello) const {
  record.set_owner(ground_->options.node_id);
  record.set_owner_incarnation(ground_->options.incarnation);
  record.set_attach_number(hello.attach_number());
  record.set_peer(peer.address);
  record.set_resumed_wall_ms(WallMillis());
  return record;
}

void Tethers::Resumed(const Line& line, const pb::TetherRequest::Hello& hello, int attempt,
                      const Outcome& outcome) {
  // Another resume, or the end of the session, was first: look again.
  if (outcome.status.code() == Code::kConflict) return Resume(line, hello, attempt + 1);
  const std::string& id = hello.session_id();
  After after;
  {
    const MutexLock lock(mu_);
    if (!outcome.status.ok()) {
      EndLine(line, outcome.status, "", 0, after);
    } else {
      const bool here = line->state == TetherLine::kOpening;
      const uint64_t former =
          table_.Resumed(id, hello.attach_number(), outcome.at.number, here ? line->id : 0,
                         ground_->now(), line->peer.address);
      ++ground_->counts.sessions_resumed;
      if (const auto it = lines_.find(former); it != lines_.end())
        EndLine(it->second, {Code::kFenced, "the session was resumed elsewhere"}, "",
                hello.attach_number(), after);
      const Session* session = table_.Find(id);
      if (here && session != nullptr) Welcome(line, *session, "", true, outcome.at, after);
    }
    Flush(after);
  }
  after.Run();
}

void Tethers::Welcome(const Line& line, const Session& session, const std::string& secret,
                      bool resumed, Revision at, After& after) {
  line->state = TetherLine::kOpen;
  line->session_id = session.id;
  pb::TetherResponse response;
  auto* welcome = response.mutable_welcome();
  welcome->set_session_id(session.id);
  welcome->set_secret(secret);
  welcome->set_attach_number(session.record.attach_number());
  welcome->set_ttl_ms(session.record.ttl_ms());
  *welcome->mutable_source() = ground_->source;
  welcome->set_resumed(resumed);
  ToWire(at, welcome->mutable_revision());
  after.sends.emplace_back(line, std::move(response));
  std::deque<pb::TetherRequest> waiting;
  waiting.swap(line->waiting);
  for (const auto& request : waiting) Handle(line, request, after);
}

void Tethers::RefuseResume(const Line& line, const std::string& id, SessionTable::Verdict verdict,
                           uint64_t present, After& after) {
  using Verdict = SessionTable::Verdict;
  if (verdict == Verdict::kForeignSecret) {
    EndLine(line, {Code::kDenied, "foreign secret for session " + Hex(id)}, "", 0, after);
  } else if (verdict == Verdict::kForeignIdentity) {
    EndLine(line,
            {Code::kDenied, "session " + Hex(id) + " belongs to another identity than " +
                                Shown(line->peer.identity)},
            "", 0, after);
  } else {
    EndLine(line,
            {Code::kFenced, "the session is held by attach number " + std::to_string(present) +
                                ": a greater one is needed"},
            "", present, after);
  }
}

void Tethers::EndUnknown(const Line& line, const std::string& id) {
  std::string reason = "unknown";
  record::v1::SessionEnded ended;
  const auto record = ground_->view.Get(keys::SessionEnded(id));
  if (record.ok() && *record && ended.ParseFromString((*record)->value))
    reason = ReasonName(ended.reason());
  After after;
  {
    const MutexLock lock(mu_);
    if (record.ok())
      EndLine(line, {Code::kSessionExpired, "session " + Hex(id) + " is over: " + reason}, reason,
              0, after);
    else
      EndLine(line, record.status(), "", 0, after);
  }
  after.Run();
}

void Tethers::OnHeartbeat(const Line& line, uint64_t number, After& after) {
  ++ground_->counts.heartbeats;
  const auto before = table_.Heartbeat(line->session_id, line->id, ground_->now());
  if (!before) return;
  pb::TetherResponse response;
  response.mutable_heartbeat()->set_number(number);
  response.mutable_heartbeat()->set_seen_ms(
      std::chrono::duration_cast<std::chrono::milliseconds>(*before).count());
  after.sends.emplace_back(line, std::move(response));
}

void Tethers::EndLine(const Line& line, const Status& status, const std::string& reason,
                      uint64_t present_attach_number, After& after) {
  if (line->state == TetherLine::kEnded) return;
  line->state = TetherLine::kEnded;
  line->waiting.clear();
  pb::TetherResponse response;
  auto* ended = response.mutable_ended();
  ToWire(status, ended->mutable_refusal());
  ended->set_reason(reason);
  ended->set_present_attach_number(present_attach_number);
  after.sends.emplace_back(line, std::move(response));
}

void Tethers::Gone(const Line& line) {
  const MutexLock lock(mu_);
  line->state = TetherLine::kEnded;
  line->waiting.clear();
  table_.Lost(line->session_id, line->id);
  lines_.erase(line->id);
}

void Tethers::Tick(BootTime now, bool healthy) {
  if (ground_->log.shared()) LookForOrphans(now);
  After after;
  {
    const MutexLock lock(mu_);
    if (ground_->log.shared()) {
      SendAway(now, healthy, after);
      table_.Tick(now, healthy, ground_->view.counts().sessions, expiring_ ? 0 : expire_most_);
    } else {
      table_.Tick(now, healthy);
    }
    ground_->counts.brake_trips = table_.brake_trips();
    Flush(after);
  }
  after.Run();
}

void Tethers::Stop() {
  After after;
  {
    const MutexLock lock(mu_);
    stopping_ = true;
    while (!ends_.empty())
      AnswerEnds(ends_.begin()->first, Status(Code::kUnavailable, "this node stops"), after);
    for (const auto& [id, ops] : ops_)
      if (!ops.drain_calls.empty())
        AnswerDrains(id, Status(Code::kUnavailable, "this node stops"), after);
    pb::TetherResponse move;
    move.mutable_move()->set_reason("this node stops");
    for (const auto& [id, line] : lines_)
      if (line->state != TetherLine::kEnded) after.sends.emplace_back(line, move);
  }
  after.Run();
}

Tethers::Summary Tethers::summary() const {
  const MutexLock lock(mu_);
  return {.sessions = table_.size(),
          .suspects = table_.suspects(),
          .brake_trips = table_.brake_trips(),
          .brake_on = table_.brake() != BrakeState::kOff,
          .brake_remaining =
              std::chrono::duration_cast<std::chrono::milliseconds>(table_.brake_remaining())};
}

std::string Tethers::Describe(const std::string& session_id) const {
  const MutexLock lock(mu_);
  const Session* session = table_.Find(session_id);
  if (session == nullptr) return "";
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(
      table_.clock(ground_->now()) - session->seen);
  return "host " + Shown(session->record.host()) + ", pid " +
         std::to_string(session->record.pid()) + ", program " + Shown(session->record.program()) +
         ", last heartbeat " + std::to_string(age.count()) + " ms ago";
}

BootTime Tethers::healthy_clock() const {
  const MutexLock lock(mu_);
  return table_.clock();
}

}  // namespace datawire::directory
