// The byte spelling of a trace. Each field has its own fixed byte, so that a mutation of one byte changes one thing;
// any value of any byte is legal (Normal brings it into range). Decoding takes the bytes as they are and leaves the
// rest to Normal; encoding is its inverse on normal traces.
//
//   header                               one op
//    0      region size (0..3)            0      kind
//    1      number of backings - 1        1      target
//    2      failing host call             2      seen
//    3      length of the handler script  3..5   address: anchor, index, delta
//    4      length of the fallback script 6      length
//    6..13  handler script                7      size
//   14..21  fallback script               8..15  value, little endian
//   22..61  four backings, 10 bytes each  16..23 desired, little endian
//   62      length of the lock script      24..31 the GPNs
//   63      length of the subrange script
//   64..71  lock script
//   72..77  subrange script
//   78      host error
//                                         32 number of GPNs, 33 backing, 34 page, 35 count or within, 36 choice, 37 access,
//                                         38 slot (low two bits), object (next two), form (next), 39 offset or bytes
//   one backing
//    0      flags: 1 absent, 2 not mapped, 4 bitmap, 8 IOVA, 16 not lockable, 32 fickle, 64 wrapped, 128 managed
//    1      pages, so that 0 is 3
//    2..3   trim, little endian
//    4      bit offset (low three bits), null bitmaps (next three)
//    5..8   pages: state (low two bits), refused accesses (next three)
//    9      sharing (low two bits); 8: sparse, where bytes 0 to 4 say four pages and, but for `wrapped`, nothing else

#include <algorithm>
#include <utility>

#include "reference/lockstep/op_fields.h"
#include "reference/lockstep/trace.h"

namespace reference {
namespace {

constexpr size_t kHandlerAt = 6;
constexpr size_t kFallbackAt = kHandlerAt + kMaxHandlerAnswers;
constexpr size_t kBackingsAt = kFallbackAt + kMaxFallbackAnswers;
constexpr size_t kBackingBytes = 10;
constexpr size_t kLockLengthAt = kBackingsAt + kMaxBackings * kBackingBytes;
constexpr size_t kSubrangeLengthAt = kLockLengthAt + 1;
constexpr size_t kLockAt = kSubrangeLengthAt + 1;
constexpr size_t kSubrangeAt = kLockAt + kMaxLockAnswers;
constexpr size_t kHostErrorAt = kSubrangeAt + kMaxSubrangeAnswers;
static_assert(kHostErrorAt < kWorldBytes);

constexpr size_t kValueAt = 8;
constexpr size_t kDesiredAt = 16;
constexpr size_t kGpnsAt = 24;
static_assert(kGpnsAt + kMaxGpns <= 32 && 39 < kOpBytes);

constexpr uint8_t kFlagAbsent = 1, kFlagNotMapped = 2, kFlagBitmap = 4, kFlagIova = 8, kFlagNotLockable = 16, kFlagFickle = 32,
                  kFlagWrapped = 64, kFlagManaged = 128;
constexpr uint8_t kSparse = 8;
// Added to a byte before it is taken modulo kMaxPages and counted from 1: makes byte 0 mean 3 pages.
constexpr uint8_t kPagesShift = 2;

uint64_t Load64(const uint8_t* bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value |= uint64_t{bytes[i]} << (8 * i);
  return value;
}

void Store64(uint64_t value, uint8_t* bytes) {
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (8 * i));
}

Backing DecodeBacking(const uint8_t* b) {
  Backing backing;
  backing.present = (b[0] & kFlagAbsent) == 0;
  backing.mapped = (b[0] & kFlagNotMapped) == 0;
  backing.has_bitmap = (b[0] & kFlagBitmap) != 0;
  backing.has_iova = (b[0] & kFlagIova) != 0;
  backing.lockable = (b[0] & kFlagNotLockable) == 0;
  backing.fickle = (b[0] & kFlagFickle) != 0;
  backing.wrapped = (b[0] & kFlagWrapped) != 0;
  backing.managed = (b[0] & kFlagManaged) != 0;
  backing.sharing = static_cast<Sharing>(b[9] & 3);
  backing.pages = static_cast<uint8_t>(1 + (b[1] + kPagesShift) % kMaxPages);
  backing.trim = static_cast<uint16_t>(b[2] | b[3] << 8);
  backing.bit_offset = b[4] & 7;
  for (size_t i = 0; i < 3; ++i) backing.null_bitmap[i] = (b[4] >> (3 + i) & 1) != 0;
  backing.sparse = b[9] == kSparse && (b[0] & ~kFlagWrapped) == 0 && backing.pages == kMaxPages && backing.trim == 0 && b[4] == 0;
  for (size_t i = 0; i < kMaxPages; ++i) {
    const uint8_t setup = b[5 + i];
    backing.page[i] = {static_cast<PageState>(setup & 3), (setup & 4) == 0, (setup & 8) == 0, (setup & 16) == 0};
  }
  return backing;
}

void EncodeBacking(const Backing& backing, uint8_t* b) {
  b[0] = static_cast<uint8_t>((backing.present ? 0 : kFlagAbsent) | (backing.mapped ? 0 : kFlagNotMapped) |
                              (backing.has_bitmap ? kFlagBitmap : 0) | (backing.has_iova ? kFlagIova : 0) |
                              (backing.lockable ? 0 : kFlagNotLockable) | (backing.fickle ? kFlagFickle : 0) |
                              (backing.wrapped ? kFlagWrapped : 0) | (backing.managed ? kFlagManaged : 0));
  b[1] = static_cast<uint8_t>((backing.pages + 2 * kMaxPages - 1 - kPagesShift) % kMaxPages);
  b[2] = static_cast<uint8_t>(backing.trim);
  b[3] = static_cast<uint8_t>(backing.trim >> 8);
  b[4] = backing.bit_offset & 7;
  for (size_t i = 0; i < 3; ++i) b[4] = static_cast<uint8_t>(b[4] | (backing.null_bitmap[i] ? 8u << i : 0u));
  for (size_t i = 0; i < kMaxPages; ++i) {
    const PageSetup& page = backing.page[i];
    b[5 + i] = static_cast<uint8_t>((static_cast<unsigned>(page.state) & 3) | (page.readable ? 0 : 4) |
                                    (page.writable ? 0 : 8) | (page.executable ? 0 : 16));
  }
  b[9] = backing.sparse ? kSparse : static_cast<uint8_t>(backing.sharing);
}

World DecodeWorld(const uint8_t* b) {
  World world;
  world.region_pages = kRegionPages[b[0] % std::size(kRegionPages)];
  world.backings.reserve(kMaxBackings);
  for (size_t i = 0; i <= b[1] % kMaxBackings; ++i) world.backings.push_back(DecodeBacking(b + kBackingsAt + i * kBackingBytes));
  world.failing_host_call = b[2];
  world.host_error = static_cast<HostError>(b[kHostErrorAt]);
  for (size_t i = 0; i < b[3] % (kMaxHandlerAnswers + 1); ++i) world.handler.push_back(static_cast<HandlerAnswer>(b[kHandlerAt + i]));
  for (size_t i = 0; i < b[4] % (kMaxFallbackAnswers + 1); ++i) {
    world.fallback.push_back(static_cast<FallbackAnswer>(b[kFallbackAt + i]));
  }
  for (size_t i = 0; i < b[kLockLengthAt] % (kMaxLockAnswers + 1); ++i) world.lock.push_back(static_cast<LockAnswer>(b[kLockAt + i]));
  for (size_t i = 0; i < b[kSubrangeLengthAt] % (kMaxSubrangeAnswers + 1); ++i) {
    world.subrange.push_back(static_cast<SubrangeAnswer>(b[kSubrangeAt + i]));
  }
  return Normal(std::move(world));
}

void EncodeWorld(const World& world, uint8_t* b) {
  for (size_t i = 0; i < std::size(kRegionPages); ++i) {
    if (kRegionPages[i] == world.region_pages) b[0] = static_cast<uint8_t>(i);
  }
  b[1] = static_cast<uint8_t>(world.backings.size() - 1);
  b[2] = world.failing_host_call;
  b[kHostErrorAt] = static_cast<uint8_t>(world.host_error);
  b[3] = static_cast<uint8_t>(world.handler.size());
  b[4] = static_cast<uint8_t>(world.fallback.size());
  for (size_t i = 0; i < world.handler.size(); ++i) b[kHandlerAt + i] = static_cast<uint8_t>(world.handler[i]);
  for (size_t i = 0; i < world.fallback.size(); ++i) b[kFallbackAt + i] = static_cast<uint8_t>(world.fallback[i]);
  b[kLockLengthAt] = static_cast<uint8_t>(world.lock.size());
  b[kSubrangeLengthAt] = static_cast<uint8_t>(world.subrange.size());
  for (size_t i = 0; i < world.lock.size(); ++i) b[kLockAt + i] = static_cast<uint8_t>(world.lock[i]);
  for (size_t i = 0; i < world.subrange.size(); ++i) b[kSubrangeAt + i] = static_cast<uint8_t>(world.subrange[i]);
  for (size_t i = 0; i < world.backings.size(); ++i) EncodeBacking(world.backings[i], b + kBackingsAt + i * kBackingBytes);
}

Op DecodeOp(const uint8_t* b) {
  Op op;
  op.kind = static_cast<StepKind>(b[0] % kStepKinds);
  op.target = b[1];
  op.seen = (b[2] & 1) != 0;
  op.at = {static_cast<Anchor>(b[3] % kAnchors), b[4], static_cast<int8_t>(b[5])};
  op.length = b[6];
  op.size = b[7];
  op.value = Load64(b + kValueAt);
  op.desired = Load64(b + kDesiredAt);
  if (FieldsOf(op.kind).Uses(kFieldGpns)) op.gpns.assign(b + kGpnsAt, b + kGpnsAt + b[32] % (kMaxGpns + 1));
  op.backing = b[33];
  op.page = b[34];
  op.count = b[35];
  op.within = b[35];
  op.choice = b[36];
  op.access = static_cast<Access>(b[37] % kAccesses);
  op.slot = static_cast<uint8_t>(1 + (b[38] & 3) % (kHandles - 1));
  op.object = b[38] >> 2 & 3;
  op.form = b[38] >> 4 & 1;
  op.offset = b[39];
  op.bytes = b[39];
  return Normal(std::move(op));
}

void EncodeOp(const Op& op, uint8_t* b) {
  b[0] = static_cast<uint8_t>(op.kind);
  b[1] = op.target;
  b[2] = op.seen ? 1 : 0;
  b[3] = static_cast<uint8_t>(op.at.anchor);
  b[4] = op.at.index;
  b[5] = static_cast<uint8_t>(op.at.delta);
  b[6] = op.length;
  b[7] = op.size;
  Store64(op.value, b + kValueAt);
  Store64(op.desired, b + kDesiredAt);
  std::copy(op.gpns.begin(), op.gpns.end(), b + kGpnsAt);
  b[32] = static_cast<uint8_t>(op.gpns.size());
  b[33] = op.backing;
  b[34] = op.page;
  b[35] = op.count | op.within;  // no kind uses both
  b[36] = op.choice;
  b[37] = static_cast<uint8_t>(op.access);
  b[38] = static_cast<uint8_t>((op.slot - 1) | op.object << 2 | op.form << 4);
  b[39] = op.offset | op.bytes;  // likewise
}

}  // namespace

Trace FromBytes(std::span<const uint8_t> bytes) {
  std::array<uint8_t, kWorldBytes> header = {};
  std::copy_n(bytes.begin(), std::min(bytes.size(), header.size()), header.begin());
  Trace trace;
  trace.world = DecodeWorld(header.data());
  if (bytes.size() < kWorldBytes) return trace;
  bytes = bytes.subspan(kWorldBytes);
  trace.ops.reserve(std::min(bytes.size() / kOpBytes, kMaxOps));
  for (; bytes.size() >= kOpBytes && trace.ops.size() < kMaxOps; bytes = bytes.subspan(kOpBytes)) {
    trace.ops.push_back(DecodeOp(bytes.data()));
  }
  return trace;
}

std::vector<uint8_t> ToBytes(const Trace& trace) {
  const size_t ops = std::min(trace.ops.size(), kMaxOps);
  std::vector<uint8_t> bytes(kWorldBytes + ops * kOpBytes);
  EncodeWorld(Normal(trace.world), bytes.data());
  for (size_t i = 0; i < ops; ++i) EncodeOp(Normal(trace.ops[i]), bytes.data() + kWorldBytes + i * kOpBytes);
  return bytes;
}

}  // namespace reference
