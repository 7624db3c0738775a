// What SPEC 14 says of an address space, restated for a few slots of four small backings: a list of slots, accesses byte by byte, one
// piece after the other, the layout looked up again wherever something else ran. Knows nothing of lib/.

#ifndef GUESTMEM_REFERENCE_VMM_MODEL_SPACE_H_
#define GUESTMEM_REFERENCE_VMM_MODEL_SPACE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "reference/vmm/machine.h"
#include "reference/vmm/space_world.h"

namespace reference::vmm {

class SpaceModel {
 public:
  explicit SpaceModel(const World& world);

  Outcome Run(const Op& op, bool host_call_failed);
  void Unlock(uint64_t slot) { locks_[slot].clear(); }
  const std::vector<uint8_t>& Bytes(uint64_t number) const { return backings_[number].bytes; }

 private:
  struct Backing {
    std::vector<uint8_t> bytes;
    bool mapped = true;
    std::vector<bool> present, writable;  // by page
  };
  struct Slot {
    uint64_t gpa, size, backing, offset;
    bool read_only;
    std::string name;
    uint64_t id;  // no two slots ever have the same
  };
  struct View {
    uint64_t slot;  // its id
    uint64_t offset, length;
  };
  struct Step {
    bool removes;
    Slot slot;
  };
  struct Listener {
    bool registered = false;
    std::optional<uint64_t> refuses;
  };
  // A byte of memory in the layout of now.
  struct Place {
    const Slot* slot;
    uint64_t address;  // the backing's
  };
  enum class Answer { kRetry, kFallback, kFail };
  enum class Act { kRead, kWrite, kFill, kExchange, kProbeRead, kProbeWrite, kProbeExecute };

  void Change(const char* operation, const std::vector<Step>& steps);
  bool Misfit(const char* operation, const Slot& slot);
  void Listen(const Op& op);
  void Drop();
  void Populated(const Op& op);
  void MakeView(const Op& op);
  void Access(const Op& op);
  void Lock(const Op& op);

  void TellRemoving(const Slot& slot);
  bool TellAdded(uint64_t listener, const Slot& slot);
  void TellCommitted(uint64_t listener) { outcome_.told.push_back("L" + std::to_string(listener) + " commit"); }
  void TakeBack(const std::vector<Slot>& added, size_t whole, const std::vector<uint64_t>& last, const std::vector<Slot>& removed);

  // An access that is being made.
  struct Doing {
    Act act;
    std::string operation;
    uint64_t gpa, length;
    std::vector<uint8_t> bytes;  // what is written; what is compared with
    bool whole, stores, moves;
    bool view;
    uint64_t at = 0;  // done so far
  };
  bool DoPiece(Doing& doing);
  bool DoFallback(Doing& doing, const Place& place, uint64_t from, uint64_t length);
  void DoByte(Doing& doing, uint64_t i, uint8_t& byte);
  void Exchange(Doing& doing, const Place& place);
  std::optional<Place> Find(bool view, uint64_t gpa) const;
  bool CheckLocked(const Op& op, const std::vector<uint64_t>& gpns, std::vector<Place>& places);
  Answer AskLazy(const std::string& access, uint64_t address, uint64_t length);
  bool Fail(const char* kind, const std::string& operation);
  bool FailAccess(const Doing& doing, const char* kind, uint64_t at, const char* note = "");

  uint64_t lazy_;
  std::array<Backing, kSpaceBackings> backings_;
  std::vector<Slot> layout_;  // ascending
  uint64_t layouts_ = 0;      // there have been
  uint64_t ids_ = 0;
  bool dropped_ = false;
  std::optional<View> view_;
  std::optional<std::vector<Step>> begun_;
  std::array<Listener, kSlots> listeners_;
  std::vector<uint64_t> order_;  // in which they registered
  struct Locked {
    uint64_t slot, gpn;  // the space's
  };
  std::array<std::vector<Locked>, kSlots> locks_;

  Outcome outcome_;
};

}  // namespace reference::vmm

#endif  // GUESTMEM_REFERENCE_VMM_MODEL_SPACE_H_
