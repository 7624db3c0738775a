// Read-side sections. A plain hook for now: nobody can wait for readers yet (Rcu::Synchronize comes with the concurrency
// work), so a section has nothing to announce. Its places in the engine are already the final ones.

#ifndef GUESTMEM_SRC_RCU_SECTION_H_
#define GUESTMEM_SRC_RCU_SECTION_H_

namespace guestmem::rcu {

class Section {
 public:
  Section() {}
  ~Section() {}
  Section(const Section&) = delete;
  Section& operator=(const Section&) = delete;
};

}  // namespace guestmem::rcu

#endif  // GUESTMEM_SRC_RCU_SECTION_H_
