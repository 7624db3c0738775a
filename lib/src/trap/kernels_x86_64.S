// Bulk copies between host and guest memory in which only the guest side's instructions may fault and be recovered.
//
// Runs in ordinary context; a fault resumes at the function's landing with rax and rdx set by the handler
// (trap_inside.cc). Throughout each function the guest range is [r10, r11), which the handler checks.
//
// Rules the callers rely on (SPEC 4 and 5):
//   - guest accesses ascend, so the first one to fault is on the first faulting page;
//   - a guest store wider than 8 bytes never straddles a page (a wider one may be committed in part: Intel SDM
//     volume 3, "Memory ordering": only accesses up to a quadword are all or nothing across pages);
//   - host stores follow the guest loads they depend on, so nothing from at or above a fault reaches the host;
//   - after a fault at F at most 4 vectors below F are missing (detail::kKernelLag); C++ finishes them.
//
// Each body is assembled three times: 16-byte vectors (any x86-64), 32-byte (AVX), 64-byte (AVX-512 VL).

#define TRAP_READ 1
#define TRAP_WRITE 2

#define JOIN_(a, b, c) a##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define SYMBOL(function) JOIN(guestmem_, function, WIDTH)
#define L_(label, function, width) .L##label##_##function##_##width
#define L__(label, function, width) L_(label, function, width)
#define L(label) L__(label, FUNCTION, WIDTH)

// One instruction with an entry in the recovery table (detail::TrapEntry).
#define GUEST_ACCESS(flags, ...)                    \
  771: __VA_ARGS__;                                 \
  772: .pushsection guestmem_traps, "aR", @progbits; \
  .balign 4;                                        \
  .long 771b - .;                                   \
  .long 772b - .;                                   \
  .long L(fault) - .;                               \
  .long flags;                                      \
  .popsection
#define GUEST_LOAD(...) GUEST_ACCESS(TRAP_READ, __VA_ARGS__)
#define GUEST_STORE(...) GUEST_ACCESS(TRAP_WRITE, __VA_ARGS__)

#define BEGIN(name)                    \
  .globl SYMBOL(name);                 \
  .hidden SYMBOL(name);                \
  .type SYMBOL(name), @function;       \
  .p2align 6;                          \
  SYMBOL(name):;                       \
  .cfi_startproc;                      \
  endbr64
#define FINISH(name) \
  .cfi_endproc;          \
  .size SYMBOL(name), . - SYMBOL(name)

        .text

#define WIDTH sse2
#define W 16
#define VLOAD movdqu
#define VSTORE movdqu
#define VEC(n) %xmm##n
#define VEXIT
#include "trap/kernels_x86_64.inc"
#undef WIDTH
#undef W
#undef VLOAD
#undef VSTORE
#undef VEC
#undef VEXIT

#define WIDTH avx
#define W 32
#define VLOAD vmovdqu
#define VSTORE vmovdqu
#define VEC(n) %ymm##n
#define XMM(n) %xmm##n
#define VEXIT vzeroupper
#include "trap/kernels_x86_64.inc"
#undef WIDTH
#undef W
#undef VLOAD
#undef VSTORE
#undef VEC
#undef XMM
#undef VEXIT

        // Registers 16 and up do not exist for SSE code, so that mixing with it costs nothing and needs no vzeroupper.
#define WIDTH avx512
#define W 64
#define VLOAD vmovdqu64
#define VSTORE vmovdqu64
#define VEC(n) %zmm2##n
#define YMM(n) %ymm2##n
#define XMM(n) %xmm2##n
#define VEXIT
#include "trap/kernels_x86_64.inc"

        .section .note.GNU-stack, "", @progbits
        // Keeps -fcf-protection's promise for the whole link: every entry above has its endbr64, and landings are reached
        // by sigreturn, which needs none.
        .section .note.gnu.property, "a"
        .p2align 3
        .long   4, 16, 5
        .asciz  "GNU"
        .long   0xc0000002, 4, 3, 0
