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
//   - what has been moved when an access faults is a prefix of the range, and each access says which (`moved` below):
//     at most 8 vectors short of the fault, which C++ finishes.
//
// Each body is assembled three times: for vectors of 16 bytes (any x86-64), 32 (AVX) and 64 (AVX-512 VL and BW).

#define TRAP_READ 1
#define TRAP_WRITE 2

#define JOIN_(a, b, c) a##b##_##c
#define JOIN(a, b, c) JOIN_(a, b, c)
#define SYMBOL(function) JOIN(guestmem_, function, WIDTH)
#define L_(label, function, width) .L##label##_##function##_##width
#define L__(label, function, width) L_(label, function, width)
#define L(label) L__(label, FUNCTION, WIDTH)

// One instruction with an entry in the recovery table (detail::TrapEntry). `moved` is the guest address below which all of
// the transfer has been moved when the instruction faults, and above which nothing has. Its landing, behind the functions,
// takes that into rcx.
#define GUEST_ACCESS(flags, landing, moved, ...)      \
  771: __VA_ARGS__;                                 \
  772: .pushsection guestmem_traps, "aR", @progbits; \
  .balign 4;                                        \
  .long 771b - .;                                   \
  .long 772b - .;                                   \
  .long 773f - .;                                   \
  .long flags;                                      \
  .popsection;                                      \
  .subsection 1;                                    \
  773: lea moved, %rcx;                             \
  jmp L(landing);                                   \
  .previous
#define GUEST_LOAD(moved, ...) GUEST_ACCESS(TRAP_READ, fault, moved, __VA_ARGS__)
#define GUEST_STORE(moved, ...) GUEST_ACCESS(TRAP_WRITE, fault, moved, __VA_ARGS__)
// The same once the first vector has been moved, which `moved` may not have reached yet.
#define GUEST_LOAD_PAST_HEAD(moved, ...) GUEST_ACCESS(TRAP_READ, fault_past_head, moved, __VA_ARGS__)
#define GUEST_STORE_PAST_HEAD(moved, ...) GUEST_ACCESS(TRAP_WRITE, fault_past_head, moved, __VA_ARGS__)

// Returns the handler's rax and rdx, and in rdx how far the faulting address lies above what was moved (detail::MovedUpTo). A
// memory error's address may lie below that: then it counts as there.
#define FAULT_LANDING        \
  L(fault_past_head):        \
  lea     W(%r10), %r8;      \
  cmp     %r8, %rcx;         \
  cmovb   %r8, %rcx;         \
  L(fault):                  \
  cmp     %rcx, %rax;        \
  cmovb   %rcx, %rax;        \
  mov     %rax, %r8;         \
  sub     %rcx, %r8;         \
  shl     $41, %r8;          \
  or      %r8, %rdx;         \
  VEXIT;                     \
  ret;                       \
  L(overlap):                \
  mov     $1, %edx; /* kTrapInfoOverlap */ \
  ret

// Before a copy that stores more than once between loads, or in two pages: a fault between the stores could leave the
// other side half changed. The rest load everything first, so that an overlap does no harm.
#define REFUSE_OVERLAP       \
  mov     %rdi, %rax;        \
  sub     %rsi, %rax;        \
  cmp     %rdx, %rax;        \
  jb      L(overlap);        \
  neg     %rax;              \
  cmp     %rdx, %rax;        \
  jb      L(overlap)

// What a fill stores, eight times over.
#define REPEAT_ESI_IN_RAX            \
  movzbl  %sil, %esi;                \
  movabs  $0x0101010101010101, %rax; \
  imul    %rsi, %rax

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
#define BROADCAST_ESI REPEAT_ESI_IN_RAX; movq %rax, %xmm0; punpcklqdq %xmm0, %xmm0
#include "trap/x86_64/copy_from_guest.inc"
#include "trap/x86_64/copy_to_guest.inc"
#include "trap/x86_64/fill_guest.inc"
#undef WIDTH
#undef W
#undef VLOAD
#undef VSTORE
#undef VEC
#undef VEXIT
#undef BROADCAST_ESI

#define WIDTH avx
#define W 32
#define VLOAD vmovdqu
#define VSTORE vmovdqu
#define VEC(n) %ymm##n
#define XMM(n) %xmm##n
#define VEXIT vzeroupper
#define BROADCAST_ESI vmovd %esi, %xmm0; vpbroadcastb %xmm0, %ymm0
#include "trap/x86_64/copy_from_guest.inc"
#include "trap/x86_64/copy_to_guest.inc"
#include "trap/x86_64/fill_guest.inc"
#undef WIDTH
#undef W
#undef VLOAD
#undef VSTORE
#undef VEC
#undef XMM
#undef VEXIT
#undef BROADCAST_ESI

        // From this length on the widest read goes by rep movsb, which writes whole lines without fetching them first: faster once
        // the two sides no longer fit in the first cache, slower below. Loads and stores of one such instruction are in no order
        // for others, which SPEC 5 allows where the host is the destination.
        .data
        .balign 8
        .globl guestmem_string_bytes
        .hidden guestmem_string_bytes
        .type guestmem_string_bytes, @object
        .size guestmem_string_bytes, 8
guestmem_string_bytes:
        .quad 32768
        .text

        // Registers 16 and up do not exist for SSE code, so that mixing with it costs nothing and needs no vzeroupper.
#define WIDTH avx512
#define W 64
#define VLOAD vmovdqu64
#define VSTORE vmovdqu64
#define VEC(n) %zmm2##n
#define YMM(n) %ymm2##n
#define XMM(n) %xmm2##n
#define VEXIT
#define BROADCAST_ESI vpbroadcastb %esi, %zmm20
#include "trap/x86_64/copy_from_guest.inc"
#include "trap/x86_64/copy_to_guest.inc"
#include "trap/x86_64/fill_guest.inc"

        .section .note.GNU-stack, "", @progbits
        // Keeps -fcf-protection's promise for the whole link: every entry above has its endbr64, and landings are reached
        // by sigreturn, which needs none.
        .section .note.gnu.property, "a"
        .p2align 3
        .long   4, 16, 5
        .asciz  "GNU"
        .long   0xc0000002, 4, 3, 0
