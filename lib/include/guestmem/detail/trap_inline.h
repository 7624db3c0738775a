// Single guest accesses that survive a fault: the inline half of the trap layer. For the library's own headers.
//
// Each function here is one instruction that may fault on guest memory, with one entry in its linked object's recovery
// table (section guestmem_traps). The fault handler finds the entry by instruction address, checks that the fault is
// the guest access's own, puts the fault's description into rax and rdx, and resumes at the landing.
//
// The guest pointer is pinned to rdi so that the handler can check the fault address against it.

#ifndef GUESTMEM_DETAIL_TRAP_INLINE_H_
#define GUESTMEM_DETAIL_TRAP_INLINE_H_

#include <cstddef>
#include <cstdint>

#include "guestmem/detail/schedule.h"

#if !defined(__x86_64__)
#error "guestmem: the trap layer knows x86-64 only; another architecture is one more file like this one"
#endif

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
  uint32_t flags;   // kTrapRead or kTrapWrite, and the access size << kTrapSizeShift (0: the range is [r10, r11))
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

// "aR?": kept by --gc-sections, and in the same COMDAT group as the function it describes.
#define GUESTMEM_TRAP_ENTRY_(flags)                                   \
  ".pushsection guestmem_traps,\"aR?\",@progbits\n .balign 4\n"       \
  " .long 771b - .\n .long 772b - .\n .long %l[fault] - .\n .long " flags "\n .popsection"

// Clobbering "memory" keeps std::atomic_thread_fence and neighbouring accesses in program order, as relaxed atomics.
#define GUESTMEM_TRAP_LOAD_(instruction, flags)                                            \
  asm volatile goto("771: " instruction "\n772:\n" GUESTMEM_TRAP_ENTRY_(flags)             \
                    : "=a"(first), "=d"(second)                                            \
                    : "D"(guest)                                                           \
                    : "memory"                                                             \
                    : fault)
#define GUESTMEM_TRAP_STORE_(instruction, value, flags)                                    \
  asm volatile goto("771: " instruction "\n772:\n" GUESTMEM_TRAP_ENTRY_(flags)             \
                    : "=a"(first), "=d"(second)                                            \
                    : "D"(guest), "S"(value)                                               \
                    : "memory", "cc"                                                       \
                    : fault)

// gcc before 11.5, 12.4 and 13.3 puts the copies that merge values behind an asm goto on its exits, before those that take the
// outputs out of their registers: the merged value is then not the one that was loaded (or another value is gone). A statement that
// stays, first thing on each exit, makes such copies belong to the edge behind it. It costs no instruction.
#if !defined(__clang__) && ((__GNUC__ == 11 && __GNUC_MINOR__ < 5) || (__GNUC__ == 12 && __GNUC_MINOR__ < 4) || \
                            (__GNUC__ == 13 && __GNUC_MINOR__ < 3))
#define GUESTMEM_TRAP_EXIT_ asm volatile("" : "+r"(first), "+r"(second))
#else
#define GUESTMEM_TRAP_EXIT_ static_cast<void>(0)
#endif

// The empty asm keeps gcc 12 from storing the two as one vector, which it does not survive with -march=haswell.
#define GUESTMEM_TRAP_DESCRIBE_(result) \
  GUESTMEM_TRAP_EXIT_;                  \
  asm("" : "+r"(first));                \
  result = {first, second}

// Loads Size bytes (1, 2, 4, 8) into `value`, zero-extended. True: done. False: `result` says why, `value` is
// unspecified.
template <int Size>
GUESTMEM_TRAP_INLINE bool TrapLoad(const void* guest, uint64_t& value, TrapResult& result) noexcept {
  GUESTMEM_SCHEDULE_POINT(kLoad, guest);
  uint64_t first, second;
  if constexpr (Size == 8) {
    GUESTMEM_TRAP_LOAD_("movq (%%rdi), %%rax", "0x801");
  } else if constexpr (Size == 4) {
    GUESTMEM_TRAP_LOAD_("movl (%%rdi), %%eax", "0x401");
  } else if constexpr (Size == 2) {
    GUESTMEM_TRAP_LOAD_("movzwl (%%rdi), %%eax", "0x201");
  } else {
    static_assert(Size == 1);
    GUESTMEM_TRAP_LOAD_("movzbl (%%rdi), %%eax", "0x101");
  }
  GUESTMEM_TRAP_EXIT_;
  value = first;
  return true;
fault:
  GUESTMEM_TRAP_DESCRIBE_(result);
  return false;
}

// Stores the low Size bytes of `value`. False: nothing was stored.
template <int Size>
GUESTMEM_TRAP_INLINE bool TrapStore(void* guest, uint64_t value, TrapResult& result) noexcept {
  GUESTMEM_SCHEDULE_POINT(kStore, guest);
  uint64_t first, second;
  if constexpr (Size == 8) {
    GUESTMEM_TRAP_STORE_("movq %%rsi, (%%rdi)", value, "0x802");
  } else if constexpr (Size == 4) {
    GUESTMEM_TRAP_STORE_("movl %%esi, (%%rdi)", value, "0x402");
  } else if constexpr (Size == 2) {
    GUESTMEM_TRAP_STORE_("movw %%si, (%%rdi)", value, "0x202");
  } else {
    static_assert(Size == 1);
    GUESTMEM_TRAP_STORE_("movb %%sil, (%%rdi)", value, "0x102");
  }
  GUESTMEM_TRAP_EXIT_;
  return true;
fault:
  GUESTMEM_TRAP_DESCRIBE_(result);
  return false;
}

// Sequentially consistent compare-exchange of Size bytes. On return true, `seen` is the value found; it equals
// the low bytes of `current` exactly if the swap was made.
template <int Size>
GUESTMEM_TRAP_INLINE bool TrapCompareExchange(void* guest, uint64_t current, uint64_t desired, uint64_t& seen,
                                              TrapResult& result) noexcept {
  GUESTMEM_SCHEDULE_POINT(kCompareExchange, guest);
  uint64_t first, second;
#define GUESTMEM_TRAP_CMPXCHG_(instruction, flags)                                \
  asm volatile goto("771: lock " instruction "\n772:\n" GUESTMEM_TRAP_ENTRY_(flags) \
                    : "=a"(first), "=d"(second)                                   \
                    : "D"(guest), "S"(desired), "0"(current)                      \
                    : "memory", "cc"                                              \
                    : fault)
  if constexpr (Size == 8) {
    GUESTMEM_TRAP_CMPXCHG_("cmpxchgq %%rsi, (%%rdi)", "0x802");
  } else if constexpr (Size == 4) {
    GUESTMEM_TRAP_CMPXCHG_("cmpxchgl %%esi, (%%rdi)", "0x402");
  } else if constexpr (Size == 2) {
    GUESTMEM_TRAP_CMPXCHG_("cmpxchgw %%si, (%%rdi)", "0x202");
  } else {
    static_assert(Size == 1);
    GUESTMEM_TRAP_CMPXCHG_("cmpxchgb %%sil, (%%rdi)", "0x102");
  }
#undef GUESTMEM_TRAP_CMPXCHG_
  GUESTMEM_TRAP_EXIT_;
  seen = first & (~uint64_t{0} >> (64 - 8 * Size));
  return true;
fault:
  GUESTMEM_TRAP_DESCRIBE_(result);
  return false;
}

// Makes one byte's page present and dirty without changing the byte: one atomic read-modify-write.
GUESTMEM_TRAP_INLINE bool TrapTouchWrite(void* guest, TrapResult& result) noexcept {
  GUESTMEM_SCHEDULE_POINT(kTouch, guest);
  uint64_t first, second;
  GUESTMEM_TRAP_STORE_("lock orb %%sil, (%%rdi)", uint64_t{0}, "0x102");
  GUESTMEM_TRAP_EXIT_;
  return true;
fault:
  GUESTMEM_TRAP_DESCRIBE_(result);
  return false;
}

#undef GUESTMEM_TRAP_DESCRIBE_
#undef GUESTMEM_TRAP_EXIT_
#undef GUESTMEM_TRAP_LOAD_
#undef GUESTMEM_TRAP_STORE_
#undef GUESTMEM_TRAP_ENTRY_

// The bulk kernels (lib/src/trap/x86_64/kernels.S), chosen once at load by CPU feature. Ascending in the guest; after a
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

#endif  // GUESTMEM_DETAIL_TRAP_INLINE_H_
