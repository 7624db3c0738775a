#include "trap/kernels_outside.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "guestmem/detail/trap_inline.h"

extern "C" {
#define GUESTMEM_DECLARE_KERNELS(width)                                                                             \
  guestmem::detail::TrapResult guestmem_copy_from_guest_##width(void* host, const void* guest, size_t length);     \
  guestmem::detail::TrapResult guestmem_copy_to_guest_##width(void* guest, const void* host, size_t length);       \
  guestmem::detail::TrapResult guestmem_fill_guest_##width(void* guest, int value, size_t length)
GUESTMEM_DECLARE_KERNELS(sse2);
GUESTMEM_DECLARE_KERNELS(avx);
GUESTMEM_DECLARE_KERNELS(avx512);
extern uint64_t guestmem_string_bytes;
}

namespace guestmem {
namespace trap {
namespace {

constexpr detail::TrapKernels kSse2Kernels = {guestmem_copy_from_guest_sse2, guestmem_copy_to_guest_sse2,
                                              guestmem_fill_guest_sse2, "sse2"};
constexpr detail::TrapKernels kAvxKernels = {guestmem_copy_from_guest_avx, guestmem_copy_to_guest_avx,
                                             guestmem_fill_guest_avx, "avx"};

constexpr detail::TrapKernels kAvx512Kernels = {guestmem_copy_from_guest_avx512, guestmem_copy_to_guest_avx512,
                                                guestmem_fill_guest_avx512, "avx512"};
// With rep movsb wherever it can go, instead of from a length on.
constexpr detail::TrapKernels kStringKernels = {guestmem_copy_from_guest_avx512, guestmem_copy_to_guest_avx512,
                                                guestmem_fill_guest_avx512, "string"};

}  // namespace

// The widest that the CPU has. GUESTMEM_KERNELS=sse2, avx, avx512 or string forces one that it has; for tests, which run every path.
const detail::TrapKernels& ChooseKernels() {
  __builtin_cpu_init();
  const bool avx = __builtin_cpu_supports("avx2") != 0;
  // VBMI2 came with the CPUs (Ice Lake, Zen 4) on which 64-byte moves no longer lower the clock, rep movsb is fast, and a memory
  // error met by it can be survived.
  const bool avx512 = __builtin_cpu_supports("avx512vl") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
                      __builtin_cpu_supports("avx512vbmi2") != 0;
  const char* wish = std::getenv("GUESTMEM_KERNELS");
  const auto forced = [&](const char* name) { return wish != nullptr && std::strcmp(wish, name) == 0; };
  if (!avx || forced("sse2")) {
    return kSse2Kernels;
  }
  if (!avx512 || forced("avx")) {
    return kAvxKernels;
  }
  if (forced("string")) {
    guestmem_string_bytes = 0;
    return kStringKernels;
  }
  return kAvx512Kernels;
}

}  // namespace trap

namespace detail {

constinit TrapKernels g_trap_kernels = trap::kSse2Kernels;

}  // namespace detail
}  // namespace guestmem
