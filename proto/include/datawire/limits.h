#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>

/// Every bound of the system with its reason. Numbers that users may set are defaults here.
namespace datawire::limits {

using std::chrono::milliseconds;
using std::chrono::minutes;
using std::chrono::seconds;

// Names (DESIGN: address grammar).
inline constexpr size_t kAddressBytes = 512;
inline constexpr size_t kAddressSegments = 32;
inline constexpr size_t kSegmentBytes = 128;
inline constexpr size_t kDomainBytes = 253;  // RFC 1035
inline constexpr size_t kLabelBytes = 63;    // RFC 1035
inline constexpr size_t kUrlBytes = 512;
inline constexpr uint32_t kWeightMost = 1000;
inline constexpr uint32_t kWeightDefault = 100;
inline constexpr uint32_t kPriorityMost = 65535;  // an SRV priority is 16 bits
inline constexpr size_t kLabels = 16;             // of an endpoint; a value stays near 4 KiB
inline constexpr size_t kLabelKeyBytes = 63;
inline constexpr size_t kLabelValueBytes = 128;
inline constexpr size_t kLocalityBytes = 63;
inline constexpr size_t kIdentityBytes = 2048;  // SPIFFE ID, its section 2.3

// Answers.
inline constexpr size_t kAnswerEndpoints = 256;
inline constexpr size_t kAnswerBytes = 48 * 1024;
inline constexpr size_t kPushBytes = 64 * 1024;  // one Subscribe message: never delays a heartbeat
inline constexpr size_t kResolveBatch = 1000;
inline constexpr size_t kListPage = 1000;
inline constexpr size_t kListSnapshots = 32;
inline constexpr seconds kListSnapshotLife{60};

// Sessions.
inline constexpr seconds kSessionTtlDefault{15};
inline constexpr seconds kSessionTtlLeast{3};
inline constexpr seconds kSessionTtlMost{3600};
inline constexpr seconds kSessionGrace{60};  // after the directory was away: max(TTL, this)
inline constexpr seconds kOrphanLife{30};    // of a dead node's sessions: max(TTL, this)
inline constexpr seconds kMoveAfter{15};     // a node cut off for so long sends its tethers away
inline constexpr size_t kSessionRegistrations = 1000;  // its end is one revision
inline constexpr size_t kCallRegistrations = 50;       // all or nothing
inline constexpr seconds kBrakeWindow{60};
inline constexpr size_t kBrakeLeast = 10;  // budget = max(this, kBrakePercent of live sessions)
inline constexpr size_t kBrakePercent = 15;
inline constexpr minutes kBrakeMost{15};
inline constexpr minutes kLastEndpointLife{5};
inline constexpr minutes kTombstoneLife{10};

// Requests.
inline constexpr size_t kUnaryBytes = 64 * 1024;
inline constexpr size_t kBulkBytes = 1024 * 1024;
inline constexpr size_t kMetadataBytes = 2048;     // 1 KiB, and as much for gRPC's own headers
inline constexpr size_t kConnectionStreams = 100;  // open at once on one gRPC connection
inline constexpr seconds kFirstRequest{10};  // a stream that says nothing for so long is closed
inline constexpr seconds kBehindWait{2};     // min_revision waits so long, then BEHIND
inline constexpr seconds kMarkEvery{1};
inline constexpr seconds kStaleAge{5};
inline constexpr size_t kSubscriptions = 100'000;        // of one Subscribe stream
inline constexpr size_t kWatchQueueBytes = 1024 * 1024;  // held back by one watcher, then RESYNC
inline constexpr minutes kHistoryAge{10};
inline constexpr uint64_t kHistoryBytes = 256ull << 20;

// Admission: what costs more than its refusal waits in a queue of its class (grpc/executor.h).
inline constexpr size_t kSmallResolve = 2 * 1024;  // bytes; some 50 names. Answered at once
inline constexpr size_t kResolveQueue = 4096;      // larger ones that wait
inline constexpr size_t kListQueue = 1024;         // lists, exports, histories that wait
inline constexpr milliseconds kQueueWait{1000};    // who would wait for longer is refused
// New Subscribe and Watch streams, together under 500 in any second (P18): each asks for much.
inline constexpr size_t kStreamBurst = 100;
inline constexpr size_t kStreamsPerSecond = 400;
inline constexpr int kFilesKept = 64;           // of them for the store: connections take no more
inline constexpr size_t kHostConnections = 64;  // of one client IP, not loopback
inline constexpr uint64_t kFilesLeast = 256;    // open files: the store's, and some connections
inline constexpr uint64_t kFilesEnough = 4096;  // two connections a client process; less: a warning

// Quotas of one principal (P21): --quota-*. Loopback has none.
inline constexpr size_t kQuotaRegistrations = 10'000;
inline constexpr size_t kQuotaSessions = 10'000;
inline constexpr size_t kQuotaWatches = 1'000;
inline constexpr size_t kQuotaStreams = 100;

// Engine (CLUSTER.md).
inline constexpr size_t kKeyBytes = 1536;
inline constexpr size_t kValueBytes = 16 * 1024;
inline constexpr size_t kGroupOps = 512;         // ops in one group commit
inline constexpr size_t kProposeQueue = 65536;   // then kOverloaded
inline constexpr size_t kRegisterQueue = 16384;  // of these, changes that need space: under 1 s

// AMQP connections.
inline constexpr seconds kHandshake{5};
inline constexpr milliseconds kConnect{1000};      // vanished peers are passed by in <= 3 s (P29)
inline constexpr milliseconds kIdleTimeout{2000};  // both directions
inline constexpr seconds kWriteStall{5};           // a peer that reads nothing for so long is gone
inline constexpr milliseconds kFlush{250};  // for the close frame of a connection that failed
inline constexpr seconds kLinger{1};        // for the peer to read that frame before the reset
inline constexpr size_t kUnreadBytes = 4096 * 1024;  // read from a peer that does not read us
inline constexpr uint32_t kSessionFrames =
    1024;                                      // incoming window: the rate at 100 us a round trip
inline constexpr size_t kPartialMessages = 4;  // largest messages half received, a connection
inline constexpr uint32_t kFrameBytes = 32 * 1024;
inline constexpr uint32_t kChannels = 16;
inline constexpr uint32_t kLinks = 64;
inline constexpr size_t kMessageBytes = 1024 * 1024;  // one message, both directions
inline constexpr uint32_t kServiceCredit = 100;       // default credit a service gives a link
inline constexpr size_t kSpareMessages = 1024;        // of a service, kept for their memory
inline constexpr size_t kSenderLinks = 8;
inline constexpr size_t kSenderBuffer = 1024;              // messages accepted, not yet settled
inline constexpr size_t kSenderBufferBytes = 16ull << 20;  // of these; a stage has two such
inline constexpr seconds kSendDeadline{30};

// Links of the client library.
inline constexpr milliseconds kLinkOpen{2500};  // connect, handshake, attach: passed by (P29)
inline constexpr seconds kPeerHandshake{2};     // of these, until the peer's AMQP open
inline constexpr seconds kLinkIdle{60};         // an unused link is closed, and opened on use
inline constexpr seconds kConnectionIdle{5};    // a connection without links, for the next one
inline constexpr size_t kConnectionLinks = kLinks / 2;  // of ours; a requester is two
inline constexpr milliseconds kOutLeast{250};  // an endpoint that failed is left out, doubled each
inline constexpr milliseconds kOutMost{10'000};
inline constexpr milliseconds kOutWhenAll{1000};  // the last ones are never given up
inline constexpr milliseconds kPauseLeast{50};    // a message that nobody takes waits, doubled each
inline constexpr milliseconds kPauseMost{1000};
inline constexpr milliseconds kDrainAnswer{200};   // a round trip; many peers know no drain
inline constexpr milliseconds kFeedLook{50};       // before what a peer asks back is returned: many
                                                   // fetch what is there by asking for nothing more
inline constexpr uint32_t kReplyCredit = 100;      // replies under way to a requester's link
inline constexpr size_t kRequesters = 64;          // addresses that Request keeps a link for
inline constexpr milliseconds kVerdictGrace{500};  // a request's outcome is told so late at most
inline constexpr seconds kWaitGrace{5};  // Delivery::Wait returns so late, whatever happened

// Resolver (PROMISES: cache).
inline constexpr seconds kPositiveTtl{30};
inline constexpr seconds kNegativeTtl{5};
inline constexpr size_t kCacheEntries = 100'000;
inline constexpr size_t kCacheBytes = 64ull << 20;
inline constexpr seconds kResolveDeadline{2};
inline constexpr seconds kStreamSilence{10};
// Kept of the servers that DNS names, priorities first; of one priority, so that one whose names
// are all wrong leaves room for the next.
inline constexpr size_t kDirectoryServers = 16, kDirectoryServersOfPriority = 8;
inline constexpr seconds kSrvDeadline{5};  // of a look-up of them
inline constexpr size_t kResolverWaiters =
    100'000;  // look-ups that wait at a time; as many as entries

}  // namespace datawire::limits
