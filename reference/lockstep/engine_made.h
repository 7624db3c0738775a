// The engine's adapter, for the steps that make memory and look at what is behind it.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_MADE_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_MADE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "reference/lockstep/scripted_backing.h"
#include "reference/model/vocabulary.h"

namespace reference {

using Handles = std::array<std::optional<guestmem::GuestMemory>, kHandles>;

class EngineMade {
 public:
  using Scripted = std::vector<std::shared_ptr<ScriptedBacking>>;
  using Handed = std::vector<std::shared_ptr<guestmem::GuestMemoryAccess>>;

  // `handed`: the world's backings as memory is made over them, null where there is none; of those of `scripted`.
  void Start(const Scripted& scripted, const Handed& handed);
  // Precondition: a step of kMake or behind.
  void Run(const Step& step, Handles& handles, Outcome& outcome);

  // Where a host address lies in memory that was made; nullopt: elsewhere.
  std::optional<Span> PlaceOf(const void* host) const;
  // Empty where nothing is populated.
  std::span<const uint8_t> Page(uint64_t made, uint64_t page) const;

 private:
  // What a step has made. It may be gone since, and something newer may have its place.
  struct Mapping {
    std::byte* base;
    uint64_t size;
    int file;
    bool populated;
  };

  void Make(const Step& step, std::optional<guestmem::GuestMemory>& slot, Outcome& outcome);
  void Keep(const Mapping& mapping, Outcome& outcome);
  void InnerBuffer(const Step& step, guestmem::GuestMemory& memory, Outcome& outcome);
  void Create(const Step& step, std::optional<guestmem::GuestMemory>& slot, Outcome& outcome);
  void ShowFiles(const guestmem::GuestMemory& memory, Outcome& outcome) const;

  const Scripted* scripted_ = nullptr;
  const Handed* handed_ = nullptr;
  std::vector<Mapping> made_;
  std::shared_ptr<guestmem::AlignedHeapMemory> taken_;  // until the comparison after the step has seen it, at least
};

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_MADE_H_
