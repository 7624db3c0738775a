// An entry of a caller's list of GPNs. The list may lie in memory that the guest writes meanwhile, so whoever judges an entry and
// then uses it reads it by this, once.

#ifndef GUESTMEM_SRC_GUEST_LISTED_GPN_H_
#define GUESTMEM_SRC_GUEST_LISTED_GPN_H_

#include <cstdint>

namespace guestmem::detail {

inline uint64_t ListedGpn(const uint64_t& entry) { return __atomic_load_n(&entry, __ATOMIC_RELAXED); }

}  // namespace guestmem::detail

#endif  // GUESTMEM_SRC_GUEST_LISTED_GPN_H_
