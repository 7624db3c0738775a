// The gold standard: guest memory as an array of bytes with flags, each rule of the contract as one plain
// loop over bytes. Slow on purpose. Knows nothing of lib/.

#ifndef GUESTMEM_REFERENCE_MODEL_MODEL_H_
#define GUESTMEM_REFERENCE_MODEL_MODEL_H_

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "reference/model/vocabulary.h"

namespace reference {

class Model {
 public:
  // Told where a step is about to change something, before it does: each page once a step, and each bit.
  class Watch {
   public:
    virtual ~Watch() = default;
    virtual void BeforeStore(uint64_t backing, uint64_t page, bool slow) = 0;
    virtual void BeforeBit(uint64_t backing, uint64_t page, Access access) = 0;
  };
  explicit Model(Watch* watch = nullptr) : watch_(watch) {}

  // Forgets everything and builds `world`.
  void Start(const World& world);
  // Carries one step out. `outcome` is overwritten (its vectors keep their capacity).
  void Run(const Step& step, Outcome& outcome);

  // The 4096 bytes of a page, as the mapping has them (seen or not) and as the fallbacks have them.
  std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page) const;
  std::span<const uint8_t> SlowPage(uint64_t backing, uint64_t page) const;
  PageState State(uint64_t backing, uint64_t page) const;
  // The pages on which the last step moved bytes (mapped or slow), possibly more than once.
  struct PageId {
    uint64_t backing;
    uint64_t page;
  };
  std::span<const PageId> TouchedPages() const { return touched_; }
  // Mapped bytes that the last step has left unspecified: where they can be seen, they become what they are.
  std::span<const Span> Unspecified() const { return unspecified_; }
  void Become(uint64_t backing, uint64_t address, uint8_t byte) { memories_[backing].mapped.Store(address, byte); }
  // What a bit says; true where there is no such bit.
  bool Bit(uint64_t backing, uint64_t page, Access access) const;
  // Whether a lock is held there.
  bool Holds(uint64_t object) const { return !locks_[object].pages.empty(); }

 private:
  // Bytes by address. A page shows bytes of its own, or somebody else's.
  struct Bytes {
    std::vector<uint8_t> own;
    std::array<uint8_t*, kMaxPages> shown = {};
    std::array<bool, kMaxPages> stored = {};  // whether the page may be other than at the start
    Watch* watch = nullptr;
    uint64_t backing = 0;
    bool slow = false;
    std::array<bool, kMaxPages> announced = {};  // in this step
    void Announce(uint64_t page) {
      if (watch && !announced[page]) watch->BeforeStore(backing, page, slow);
      announced[page] = true;
    }
    uint8_t operator[](uint64_t address) const { return shown[address / kPageSize][address % kPageSize]; }
    void Store(uint64_t address, uint8_t byte) { ToStore(address, 1)[0] = byte; }
    // Bytes [address, address + length), all on one page.
    std::span<const uint8_t> ToSee(uint64_t address, uint64_t length) const {
      return {shown[address / kPageSize] + address % kPageSize, length};
    }
    std::span<uint8_t> ToStore(uint64_t address, uint64_t length) {
      Announce(address / kPageSize);
      stored[address / kPageSize] = true;
      return {shown[address / kPageSize] + address % kPageSize, length};
    }
    void ShowOwn(uint64_t page) { shown[page] = &own[page * kPageSize]; }
    bool ShowsOwn(uint64_t page) const { return shown[page] == &own[page * kPageSize]; }
    void StartAs(std::span<const uint8_t> bytes);
  };
  struct Memory {
    Backing setup;
    Bytes mapped;
    Bytes slow;
    std::array<PageState, kMaxPages> state = {};
    std::array<std::array<bool, kMaxPages>, 3> allowed = {};  // by Access, then page
    std::array<std::array<bool, kMaxPages>, 3> announced = {};  // in this step
    std::array<uint64_t, kMaxPages> locks = {};          // of a managed bitmap, or of a sparse mapping
    std::optional<Made> made = {};                       // memory that a step has made: calls of it are not recorded
    std::optional<uint64_t> refused_page = {};           // of it: every access
  };
  // Bytes [start, start + length) of a handle are bytes [offset, offset + length) of a backing.
  struct Part {
    uint64_t backing;
    uint64_t start;
    uint64_t offset;
    uint64_t length;
    bool own = false;  // a view of the backing's own: no mapping
  };
  struct Handle {
    std::vector<Part> parts;  // ascending
    bool one_region;
    const char* name = kWorldName;
    bool held = true;             // false: an empty slot
    bool owns_heap = false;       // made by kMake, no view
  };
  // One access of a caller, and where its bytes come from or go to.
  struct Request {
    StepKind kind;
    uint64_t gpa;
    uint64_t length;
    uint64_t value;
    uint64_t desired;
    std::span<uint8_t> host;
    Outcome& outcome;
  };
  // Bytes of a request that lie in one backing, in the handle's coordinates (gpa) and in the backing's (address).
  struct Piece {
    uint64_t backing;
    uint64_t address;
    uint64_t gpa;
    uint64_t length;
    bool own = false;
  };
  // What an object holds: a piece for each page, and the spans that they make.
  struct Lock {
    Access access;
    std::vector<Piece> pages;
    std::vector<Piece> spans;
    const char* name = kWorldName;
  };
  enum class Action : uint8_t { kFail, kRetry, kFallback };
  struct Answer {
    Action action;
    ErrorKind kind;
    int code;  // kBackend only
    std::optional<uint64_t> named;
  };

  // The part of a buffer in one listed page. A buffer is its bytes' places, in order; `member` says which of its paged ranges
  // has them.
  struct PagePart {
    uint64_t member;
    uint64_t gpn;
    uint64_t offset;
    uint64_t length;
  };
  using Buffer = std::vector<PagePart>;
  // Guest bytes (`rest`, of `memory`) or host bytes (from `position` on) under limits, the innermost first.
  struct Stream {
    bool on_host = true;
    Handle memory = {};
    Buffer rest = {};
    std::vector<uint8_t> bytes = {};
    uint64_t position = 0;
    std::vector<uint64_t> limits = {};
  };

  void RunStep(const Step& step, Outcome& outcome);

  // False: not a step of theirs. model_ranges.cc, model_streams.cc
  bool RunRanges(const Handle& handle, const Step& step, Outcome& outcome);
  bool RunStreams(const Handle& handle, const Step& step, Outcome& outcome);
  void ForgetRanges();
  void AccessRange(const Handle& handle, const Step& step, const Buffer& buffer, Outcome& outcome);
  bool CarryBuffer(const Handle& handle, StepKind kind, const Buffer& buffer, uint64_t value, std::span<uint8_t> host, Outcome& outcome);
  static uint64_t Length(const Buffer& buffer);
  static void Drop(Buffer& buffer, uint64_t count);
  static void Keep(Buffer& buffer, uint64_t count);
  static std::vector<RangePart> Show(const Buffer& buffer);
  void OpenStream(const Handle& handle, const Step& step, Stream& stream);
  bool ReadStream(Stream& stream, uint64_t want, std::span<uint8_t> host, Outcome& outcome);
  bool WriteStream(Stream& stream, StepKind kind, uint64_t want, uint64_t value, std::span<uint8_t> host, Outcome& outcome);
  bool TakeArray(Stream& stream, uint64_t size, uint64_t count, Outcome& outcome);
  static uint64_t Remaining(const Stream& stream, uint64_t limits);
  static bool CheckRemaining(const Stream& stream, uint64_t want, Outcome& outcome);
  static void Advance(Stream& stream, uint64_t count);

  // False: not a step of theirs. model_made.cc
  bool RunMade(const Step& step, Outcome& outcome);
  void Make(const Step& step, Outcome& outcome);
  void Create(const Step& step, Outcome& outcome);
  void Try(const Step& step, Outcome& outcome);
  void ShowFiles(const Handle& handle, Outcome& outcome);
  void InnerBuffer(const Step& step, Outcome& outcome);
  void MoveHandle(const Step& step);
  bool IsShared(uint64_t memory) const;
  void ChangeBitmap(const Step& step, Outcome& outcome);
  static bool Hold(Memory& memory, std::span<const uint64_t> gpns);
  static bool Release(Memory& memory, std::span<const uint64_t> gpns);

  // A host buffer inside guest memory. model_within.cc
  bool LiesWithin(const Step& step, uint64_t length) const;
  bool CarryWithin(const Handle& handle, const Step& step, std::span<const PagePart> parts, Outcome& outcome);
  bool IsPlainRam(uint64_t backing, uint64_t start, uint64_t length) const;
  std::optional<Range> CopyBetweenSpans(const Piece& piece, const Piece& other, StepKind kind, Outcome& outcome);

  bool FindPieces(const Handle& handle, uint64_t gpa, uint64_t length);
  bool Carry(const Handle& handle, const Request& request);
  bool CarryPiece(const Request& request, Piece rest);
  bool CarryByFallback(const Request& request, Piece rest);
  bool CallFallback(const Request& request, const Piece& piece);
  static Answer FailureOf(const Reply& reply);
  Answer AskHandler(Outcome& outcome, Access access, uint64_t backing, uint64_t address, uint64_t length, bool refused);
  bool Fix(Memory& memory, uint64_t page, Access access, bool refused);
  bool HostCall();
  ErrorKind HostFailure() const;
  static bool Allows(const Memory& memory, uint64_t page, Access access);
  static PageState StateOf(const Memory& memory, uint64_t page);
  static bool IsScripted(const Memory& memory) { return !memory.made && !memory.setup.sparse; }
  void ProbeGpns(const Handle& handle, const Step& step, Outcome& outcome);
  void Subrange(const Handle& handle, const Step& step, Outcome& outcome);
  bool AskHook(Part& view, const Step& step, Outcome& outcome);
  void MakeLock(const Handle& handle, const Step& step, Outcome& outcome);
  bool PagesToLock(const Handle& handle, const Step& step, Outcome& outcome, std::vector<Piece>& pages);
  bool TryLock(Lock& lock, bool expose, Outcome& outcome, bool& again);
  bool LockCall(Call call, std::span<const Piece> pages, Outcome& outcome);
  void Unlock(const Lock& lock, size_t pages, Outcome& outcome);
  void MakeSpans(Lock& lock, bool merge, Outcome& outcome);
  std::optional<Range> LockedCopy(const Step& step, Outcome& outcome);
  void LockedByte(const Piece& span, const Step& step, bool writable, Outcome& outcome);
  bool CanLock(const Handle& handle) const;
  void ChangeMapping(const Step& step, Range range, Outcome& outcome);
  void ChangePage(Memory& memory, uint64_t page, const Step& step);

  static std::optional<uint64_t> FirstRefused(const Memory& memory, const Piece& piece, Access access);
  static std::optional<uint64_t> FirstFaulting(const Memory& memory, const Piece& piece, bool stores);
  void Move(const Request& request, const Piece& piece, uint64_t count, Bytes& bytes);
  static void MoveOnPage(const Request& request, uint64_t done, Bytes& bytes, uint64_t address, uint64_t count);
  void SetBit(Memory& memory, uint64_t page, Access access, bool bit);
  static void SetState(Memory& memory, uint64_t page, PageState state);
  void ShowFile(Memory& memory, uint64_t page, uint64_t file_page);
  static void ZeroPage(Memory& memory, uint64_t page);

  Watch* const watch_;
  std::vector<Memory> memories_;  // of the backings; from kMaxBackings on, what steps have made
  uint64_t backings_ = 0;
  std::array<uint8_t, kFilePages * kPageSize> file_;
  bool file_shown_ = true;  // so that somebody may have stored there
  std::array<Handle, kHandles> handles_;
  Answers<HandlerAnswer> handler_;
  Answers<FallbackAnswer> fallback_;
  Answers<LockAnswer> lock_;
  Answers<SubrangeAnswer> subrange_;
  bool vanishes_ = false;  // some handler answers kVanishRetry
  std::array<Lock, kObjects> locks_;
  uint64_t host_calls_ = 0;
  uint64_t failing_host_call_ = 0;
  HostError host_error_ = HostError::kNoMemory;
  bool starved_ = false;  // there is no memory to describe errors with
  std::array<Buffer, kObjects> buffers_;
  std::array<Stream, kObjects> readers_;
  std::array<Stream, kObjects> writers_;
  std::vector<Piece> pieces_;  // of the access that is running
  std::vector<PageId> touched_;
  std::vector<Span> unspecified_;
};

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_MODEL_MODEL_H_
