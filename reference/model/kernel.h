// The gold standard's kernel: guest memory as bytes, bits and page states, and one access to it, as SPEC 2 to 4 say it, byte by
// byte. Slow on purpose. What stands on it has files of its own: views, locks, ranges, streams, made memory, host calls.
// Knows nothing of lib/, and nothing of the kinds of steps.

#ifndef GUESTMEM_REFERENCE_MODEL_KERNEL_H_
#define GUESTMEM_REFERENCE_MODEL_KERNEL_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "reference/model/outcome.h"
#include "reference/model/vocabulary.h"

namespace reference::model {

// Bytes [address, address + length) of a backing, which are [gpa, gpa + length) of a GuestMemory.
struct Piece {
  uint64_t backing;
  uint64_t address;
  uint64_t gpa;
  uint64_t length;
  bool own = false;  // in a view of the backing's own (SPEC 9, Subrange), which has no mapping
};
// Its bytes [skip, skip + length).
Piece Cut(const Piece& piece, uint64_t skip, uint64_t length);
bool Has(const Piece& piece, std::optional<uint64_t> address);
bool Overlap(const Piece& one, const Piece& other);
Span SpanOf(const Piece& piece);

// A GuestMemory.
struct Handle {
  std::vector<Piece> parts = {};  // ascending: its regions, or the one part of a backing that a view shows
  bool one_region = true;
  const char* name = kWorldName;
  bool owns_heap = false;         // from Allocate, and no view
};
// SPEC 2: where a range lies, a piece in each backing, up to the first byte that is in none: it is in range if they are as long as it.
std::vector<Piece> PiecesOf(const Handle& memory, uint64_t gpa, uint64_t length);
uint64_t LengthOf(std::span<const Piece> pieces);

// One access of a caller's.
enum class Transfer : uint8_t { kRead, kWrite, kFill, kCompareExchange, kProbe };
Operation OperationOf(Transfer transfer);
struct Request {
  Transfer transfer;
  Access access;                 // whose bits are asked. kWrite: the page must be writable, too
  uint64_t gpa = 0;
  uint64_t length = 0;
  std::span<uint8_t> host = {};  // the host buffer. Of a compare-exchange: what is expected, then what was there
  uint64_t value = 0;            // of a fill, in its low byte; of a compare-exchange, what is new
  bool whole = false;            // a plain access or compare-exchange: all of it or nothing
};

class Kernel {
 public:
  // Told where a store or a change of a bit is about to happen.
  class Watch {
   public:
    virtual ~Watch() = default;
    virtual void BeforeStore(uint64_t backing, uint64_t page, bool slow) = 0;
    virtual void BeforeBit(uint64_t backing, uint64_t page, Access access) = 0;
  };

  explicit Kernel(Watch* watch) : watch_(watch) {}
  virtual ~Kernel() = default;

  // Forgets everything and builds the backings of `world`.
  void Start(const World& world);
  // SPEC 3 and 4.
  Status Carry(const Handle& memory, const Request& request);

  // ---- What the neighbours stand on.

  // A backing.
  struct Memory {
    Backing setup;
    bool scripted = true;        // its callbacks answer as the world says, and are recorded
    std::optional<Made> made = {};
    std::array<uint8_t, kMaxPages * kPageSize> mapped = {};  // what the mapping shows, where it doesn't show the file
    std::array<uint8_t, kMaxPages * kPageSize> slow = {};    // what the fallbacks see
    std::array<PageState, kMaxPages> state = {};             // beyond them there is nothing
    std::array<std::optional<uint64_t>, kMaxPages> file_page = {};  // which page of the world's file the mapping shows, if one
    std::array<std::array<bool, kMaxPages>, 3> allowed = {};        // the bits, by Access
    std::optional<uint64_t> refused_page = {};                      // all of whose bits are clear, whatever `allowed` says
    std::array<uint64_t, kMaxPages> locks = {};
  };
  std::vector<Memory> memories;  // the world's backings; from kMaxBackings on, what steps have made
  uint64_t backings = 0;         // how many the world has
  std::vector<Call> calls;       // that backings got
  std::vector<Span> unspecified;  // mapped bytes that an access has left so (SPEC 4)

  uint8_t& ByteAt(uint64_t backing, uint64_t address, bool slow = false);
  void Store(uint64_t backing, uint64_t address, uint8_t byte, bool slow = false);
  std::vector<uint8_t> Load(const Piece& piece);
  void Store(const Piece& piece, std::span<const uint8_t> bytes);
  // Something else is mapped there: zeroes, or a page of the file (kBus behind its end).
  void Remap(uint64_t backing, uint64_t page, PageState state, std::optional<uint64_t> file_page = {});
  // Bytes that are not the file's become zero.
  void Decommit(uint64_t backing, uint64_t page);
  PageState State(uint64_t backing, uint64_t page) const;
  void SetState(uint64_t backing, uint64_t page, PageState state);
  bool Bit(uint64_t backing, uint64_t page, Access access) const;
  void SetBit(uint64_t backing, uint64_t page, Access access, bool bit);
  // Wholly inside the mapping, kRam, and not the file's.
  bool IsPlainRam(const Piece& piece) const;

  // Steps 4 to 7 of SPEC 3.
  Status CarryPiece(const Request& request, Piece rest);
  // Step 5: the first refused page's place in the piece.
  std::optional<uint64_t> FirstRefused(const Piece& piece, Access access) const;
  // Step 6, bits aside: moves the piece in ascending order, up to the first fault, which it returns.
  std::optional<uint64_t> MoveUpToFault(const Request& request, const Piece& piece);
  // Step 7. kFail: with the kind and code of `error`.
  struct Answer {
    enum class Action : uint8_t { kFail, kRetry, kFallback } action;
    Error error = {};
  };
  Answer AskHandler(const Piece& rest, Access access, bool bitmap_failure);
  // What a caller is told of a failing callback that was handed `pieces` (SPEC 8).
  static Error FailureOf(const Reply& reply, std::span<const Piece> pieces);
  // False: the host refuses. Each attempt counts (World::failing_host_call).
  bool HostCall();
  ErrorKind HostFailure() const;

  Answers<LockAnswer> lock_answers;
  Answers<SubrangeAnswer> subrange_answers;

 protected:
  // All bytes become those of a new world.
  virtual void StartBytes();
  virtual void ZeroPage(uint64_t backing, uint64_t page);
  virtual void AnnounceStore(uint64_t backing, uint64_t page, bool slow);
  // Moves the first `count` bytes of a piece; `slow`: of the fallbacks' bytes.
  virtual void Move(const Request& request, const Piece& piece, uint64_t count, bool slow);

  std::array<uint8_t, kFilePages * kPageSize> file_ = {};

 private:
  Status CarryPieces(const Handle& memory, const Request& request);
  Status FallBack(const Request& request, Piece rest);
  Status CallFallback(const Request& request, const Piece& piece);
  std::optional<uint64_t> FirstFaulting(const Piece& piece, Access access) const;
  bool Fix(uint64_t backing, uint64_t page, Access access, bool bitmap_failure);

  Watch* const watch_;
  Answers<HandlerAnswer> handler_answers_;
  Answers<FallbackAnswer> fallback_answers_;
  uint64_t host_calls_ = 0;
  uint64_t failing_host_call_ = 0;
  HostError host_error_ = HostError::kNoMemory;
};

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_KERNEL_H_
