// Recoverable accesses for x86-64; included by guestmem/detail/trap_inline.h, which says what they do.
//
// The guest pointer is pinned to rdi, so that the handler can check the fault address against it. The handler leaves the
// fault's description in rax and rdx. A kernel keeps its guest range in [r10, r11).

#ifndef GUESTMEM_DETAIL_X86_64_ACCESS_H_
#define GUESTMEM_DETAIL_X86_64_ACCESS_H_

#include <cstdint>

#include "guestmem/detail/schedule.h"
#include "guestmem/detail/trap_inline.h"

namespace guestmem::detail {

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

}  // namespace guestmem::detail

#endif  // GUESTMEM_DETAIL_X86_64_ACCESS_H_
