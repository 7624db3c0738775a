// Single guest accesses that survive a fault: the inline half of the trap layer. For the library's own headers.
//
// Each function here is one instruction that may fault on guest memory, with one entry in its linked object's recovery
// table (section guestmem_traps). The fault handler finds the entry by instruction address, checks that the fault is
// the guest access's own, leaves the fault's description in two registers, and resumes at the landing. The instructions, and
// which registers these are, differ by architecture: detail/<architecture>/access.h.

#ifndef GUESTMEM_DETAIL_TRAP_INLINE_H_
#define GUESTMEM_DETAIL_TRAP_INLINE_H_

#include <cstddef>
#include <cstdint>

#include "guestmem/detail/schedule.h"

#if (defined(__clang_major__) && __clang_major__ < 17) || (!defined(__clang__) && __GNUC__ < 11)
#error "guestmem: this compiler has no asm goto with outputs that are valid at its labels; clang 17 and gcc 11 do"
#endif

// Hidden: each linked object runs its own copy, covered by its own table, whatever else the process loads.
#define GUESTMEM_TRAP_INLINE [[gnu::always_inline, gnu::visibility("hidden")]] inline

namespace guestmem::detail {

// One recoverable instruction. Offsets are relative to their own field, so the table needs no relocation.
struct TrapEntry {
  int32_t start;    // first byte of the instruction
  int32_t end;      // first byte after it
  int32_t landing;  // where to resume
  uint32_t flags;   // kTrapRead or kTrapWrite, and the access size << kTrapSizeShift (0: a kernel's, which keeps the range in registers)
};
inline constexpr uint32_t kTrapRead = 1;
inline constexpr uint32_t kTrapWrite = 2;
inline constexpr int kTrapSizeShift = 8;

// What the handler leaves at the landing. `info` is 0 where there was no fault.
struct TrapResult {
  uint64_t address;  // si_addr
  uint64_t info;     // signal | si_code << 8 | kTrapInfoWrite | a kernel's signed lag << kTrapInfoLagShift
};
inline constexpr uint64_t kTrapInfoWrite = uint64_t{1} << 40;
inline constexpr int kTrapInfoLagShift = 41;
inline constexpr uint64_t kTrapInfoOverlap = 1;  // a kernel's: nothing was done, the two sides overlap

// The recovery table of one linked object, known to the engine from its load on, and for as long as it is loaded.
class TrapTable {
 public:
  TrapTable(const TrapEntry* begin, const TrapEntry* end) noexcept;
  TrapTable(const TrapTable&) = delete;
  TrapTable& operator=(const TrapTable&) = delete;

  // The object's destructors have run: it is being unloaded, or the process ends and threads may still be in it. Idempotent.
  void Close() noexcept;

 private:
  void* registration_;
};

// The linker makes these two for each object. Not weak: a table lost to --gc-sections is a link error, not a crash later.
extern "C" {
[[gnu::visibility("hidden")]] extern const TrapEntry __start_guestmem_traps[];
[[gnu::visibility("hidden")]] extern const TrapEntry __stop_guestmem_traps[];
}

// One hidden registrar an object, constructed before ordinary static objects. The zero entry makes the section exist.
[[gnu::visibility("hidden"), gnu::init_priority(101)]] inline TrapTable g_object_trap_table(
    (
        [] {
          asm volatile(".pushsection guestmem_traps,\"aR\",@progbits\n .balign 4\n .long 0, 0, 0, 0\n .popsection");
        }(),
        __start_guestmem_traps),
    __stop_guestmem_traps);

// After everything else that the object destroys. Each file that includes this calls it.
[[gnu::visibility("hidden"), gnu::destructor(101)]] inline void CloseObjectTrapTable() { g_object_trap_table.Close(); }

// Loads Size bytes (1, 2, 4, 8) into `value`, zero-extended. True: done. False: `result` says why, `value` is
// unspecified.
template <int Size>
GUESTMEM_TRAP_INLINE bool TrapLoad(const void* guest, uint64_t& value, TrapResult& result) noexcept;

// Stores the low Size bytes of `value`. False: nothing was stored.
template <int Size>
GUESTMEM_TRAP_INLINE bool TrapStore(void* guest, uint64_t value, TrapResult& result) noexcept;

// Sequentially consistent compare-exchange of Size bytes. On return true, `seen` is the value found; it equals
// the low bytes of `current` exactly if the swap was made.
template <int Size>
GUESTMEM_TRAP_INLINE bool TrapCompareExchange(void* guest, uint64_t current, uint64_t desired, uint64_t& seen,
                                              TrapResult& result) noexcept;

// Makes one byte's page present and dirty without changing the byte: one atomic read-modify-write.
GUESTMEM_TRAP_INLINE bool TrapTouchWrite(void* guest, TrapResult& result) noexcept;

// The bulk kernels (lib/src/trap/<architecture>/), chosen once at load by CPU feature. Ascending in the guest; after a
// fault all below MovedUpTo(result) was moved and nothing from there on, a few vectors below the faulting address.
struct TrapKernels {
  TrapResult (*copy_from_guest)(void* host, const void* guest, size_t length);
  TrapResult (*copy_to_guest)(void* guest, const void* host, size_t length);
  TrapResult (*fill_guest)(void* guest, int value, size_t length);
  const char* name;
};
inline uint64_t MovedUpTo(TrapResult result) {
  return result.address - static_cast<uint64_t>(static_cast<int64_t>(result.info) >> kTrapInfoLagShift);
}
extern TrapKernels g_trap_kernels;  // constant after load

}  // namespace guestmem::detail

#if defined(__x86_64__)
#include "guestmem/detail/x86_64/access.h"
#else
#error "guestmem: no recoverable accesses for this architecture: add detail/<architecture>/access.h"
#endif

#endif  // GUESTMEM_DETAIL_TRAP_INLINE_H_
