// System calls that a child process is refused from now on, also in what it execs: for failures that the library's own filter
// (detail/host_calls.h) doesn't reach. x86-64.

#ifndef GUESTMEM_LIB_TEST_REFUSE_H_
#define GUESTMEM_LIB_TEST_REFUSE_H_

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>

namespace guestmem::test {

inline constexpr uint32_t kAnyArgument = UINT32_MAX;

// `call` with this first argument fails with `error`. False: seccomp is not to be had here.
inline bool Refuse(uint32_t call, uint32_t argument, uint32_t error) {
  const uint8_t any = argument == kAnyArgument ? 1 : 0;
  sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 3),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, argument, 0, static_cast<uint8_t>(1 - any)),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog program = {sizeof code / sizeof *code, code};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

}  // namespace guestmem::test

#endif  // GUESTMEM_LIB_TEST_REFUSE_H_
