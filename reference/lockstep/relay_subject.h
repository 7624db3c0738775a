// A Subject that passes everything on to another: the base of tests that listen in on the engine or lie about it.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_RELAY_SUBJECT_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_RELAY_SUBJECT_H_

#include <span>

#include "reference/lockstep/lockstep.h"

namespace reference {

class RelaySubject : public Subject {
 public:
  // `inner` must outlive the relay.
  explicit RelaySubject(Subject& inner) : inner_(inner) {}

  void Start(const World& world) override { inner_.Start(world); }
  void Run(const Step& step, Outcome& outcome) override { inner_.Run(step, outcome); }
  std::span<const uint8_t> MappedPage(uint64_t backing, uint64_t page, bool final) override {
    return inner_.MappedPage(backing, page, final);
  }
  std::span<const uint8_t> SlowPage(uint64_t backing, uint64_t page) override { return inner_.SlowPage(backing, page); }
  bool Bit(uint64_t backing, uint64_t page, Access access) override { return inner_.Bit(backing, page, access); }

 private:
  Subject& inner_;
};

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_RELAY_SUBJECT_H_
