// Waiting for readers: how access bits are taken away safely while other threads access the memory.
//
// Every access through a bitmap runs in a read-side section. After a bit was cleared and Rcu::Synchronize() has returned,
// no transfer that the old bit allowed still touches the page, and every later access sees the new bit. Backings that
// use AccessBitmap (access_bitmap.h) get this from Revoke; those that own their bits call it themselves:
//
//   bits[page / 8].fetch_and(~mask);
//   guestmem::Rcu::Synchronize();
//   // the page may be unmapped, poisoned or given away now
//
// Cost: an access pays about half a nanosecond; Synchronize pays a system call (some hundred nanoseconds) and waits for
// the sections now running. A section covers at most 1 MiB of a transfer, but may sleep in the kernel (userfaultfd, swap,
// network file systems): a thread that resolves such faults must never call Synchronize or Revoke.
//
// When not: inside a section (a host bug, fatal with a message, never a silent deadlock). A backing's PageFault and
// fallbacks run outside sections, so they may call it. For the same reason an access inside a section of the caller's own fails with
// kInvalidArgument where one of them would have to be asked, and a lock always; what may destroy a backing or unlock pages does not
// belong in one.
//
// Threads: any; registered on first use and released at exit by the library. Where there is no memory for that, or no
// thread-specific key, threads share a few places instead: their sections are slower and may wait for each other's, but none
// fails. A fork child starts with its one thread and a clean state. A section that is left by a jump (siglongjmp out of a
// signal handler that was called in the middle of an access) goes on until its thread ends, and Synchronize waits for it.
// Signal context: no. A seccomp filter must allow membarrier: refused after it once worked, it is fatal.

#ifndef GUESTMEM_RCU_H_
#define GUESTMEM_RCU_H_

#include "guestmem/detail/read_section.h"

namespace guestmem {

class Rcu {
 public:
  // Waits until every section that was running when it was called has ended. Cannot fail.
  static void Synchronize();

  // Whether the calling thread is in a section.
  static bool InSection();

  // A section of the caller's own, for reading what a writer retires after Synchronize. Nests. Keep it short, do not block in it.
  using Section = detail::ReadSection;
};

}  // namespace guestmem

#endif  // GUESTMEM_RCU_H_
