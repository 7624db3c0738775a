// One of the two sides of operations.h: it carries each call out on the engine and writes down what a caller sees.

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "guestmem/fault.h"
#include "guestmem/guest_memory.h"
#include "guestmem/heap_memory.h"
#include "reference/lockstep/engine_subject.h"
#include "reference/model/vocabulary.h"
#include "reference/support/made.h"
#include "reference/support/objects.h"
#include "reference/support/scripted_backing.h"

namespace reference {

class Engine {
 public:
  explicit Engine(Decorate decorate);
  // Builds the world, from a pool of backings that is kept.
  void Start(const World& world);
  // Where observations go from here on.
  void ObserveIn(Outcome& outcome) { outcome_ = &outcome; }
  Script& script() { return script_; }
  ScriptedBacking& pool(uint64_t backing) { return *pool_[backing]; }
  const MadeMemory& made(uint64_t made) const { return made_[made]; }

  // What a host buffer is: memory of the guest's, or the one between guards.
  struct HostBytes : std::span<std::byte> {
    bool own;
  };

  // ---- what calls are made on
  const World& world() const { return *world_; }
  const guestmem::GuestMemory& Memory(const Step& step) const { return handles_[step.target] ? *handles_[step.target] : *handles_[0]; }
  bool IsHeld(uint8_t slot) const { return handles_[slot].has_value(); }
  guestmem::GuestMemory& Slot(uint8_t slot) { return handles_[slot] ? *handles_[slot] : handles_[slot].emplace(); }
  ScriptedBacking& BackingOf(size_t backing) { return *pool_[backing]; }
  guestmem::AccessBitmap& Bits(uint8_t backing) { return *pool_[backing]->bits(); }
  std::shared_ptr<guestmem::GuestMemoryAccess> Handed(size_t backing, size_t null) const { return backing == null ? nullptr : handed_[backing]; }
  std::vector<std::shared_ptr<guestmem::GuestMemoryAccess>> AllHanded(size_t null) const {
    auto all = handed_;
    if (null < all.size()) all[null] = nullptr;
    return all;
  }
  RangeBuffer& Buffer(uint8_t object) { return Used().buffers[object]; }
  Reader& ReaderOf(uint8_t object) { return Used().readers[object]; }
  Writer& WriterOf(uint8_t object) { return Used().writers[object]; }
  uint64_t Length(uint8_t object) { return Buffer(object).length(); }
  template <typename Use>
  void WithView(uint8_t object, Use use) {
    std::visit(use, Buffer(object).view());
  }
  size_t Spans(uint8_t object) const { return locks_[object].spans().size(); }
  guestmem::GuestSpan SpanOf(uint8_t object, size_t i) const { return locks_[object].spans()[i]; }
  uint64_t SizeOf(uint8_t object, size_t i) const { return SpanOf(object, i).size(); }
  // At is for memory that is there; under a lock, that is the backing's business, which steps may have neglected.
  bool MayTouch(const guestmem::GuestSpan& span, uint64_t offset) const;
  std::shared_ptr<guestmem::AlignedHeapMemory>& Taken() { return taken_; }
  template <typename T>
  static T Local(std::string_view, std::string_view, T value = {}) {
    return value;
  }
  static decltype(auto) Of(const auto& callee, auto&&... arguments) { return callee.action(arguments...); }

  // `length` bytes, of the step's data where `written`. If they may, they lie where Step::within says.
  HostBytes HostOf(const Step& step, std::byte* within, uint64_t length, bool written, uint64_t misaligned);
  HostBytes Host(const Step& step, uint64_t length, bool written, uint64_t misaligned, bool may_lie_within) {
    const bool within = may_lie_within && step.within != 0 && step.HostBacking() < world_->backings.size() && buffers_within_;
    return HostOf(step, within ? pool_[step.HostBacking()]->PlainRam(step.HostAddress() + misaligned, length) : nullptr, length, written, misaligned);
  }
  // The start of `other`, in form 1 and if it may be one.
  HostBytes HostBeside(const Step& step, const guestmem::GuestSpan& other, bool written);
  static std::span<std::atomic<uint8_t>> Atomics(const HostBytes& host) { return AtomicsOf(host); }
  static std::byte* DataOf(const HostBytes& host) { return host.data(); }
  void Keep(const HostBytes& host) {
    if (host.own) KeepBytes(host_.guarded());
  }
  void KeepHost(const Writer& writer) {
    if (writer.host() != nullptr) KeepBytes(writer.host()->guarded());
  }

  // ---- calls, by what they give
  static void Do(const auto& callee, auto&&... arguments) { callee.action(arguments...); }
  void Status(const auto& callee, auto&&... arguments) { Observe(callee.action(arguments...)); }
  void Value(const auto& callee, auto&&... arguments) {
    const auto result = callee.action(arguments...);
    Observe(result.status());
    if (result.ok()) outcome_->number = *result;
  }
  void Array(const auto& callee, auto&&... arguments) {
    const auto result = callee.action(arguments...);
    Observe(result.status());
    if (result.ok()) KeepBytes(AsBytes(*result));
  }
  void Exchanged(const auto& callee, auto&&... arguments) {
    const auto result = callee.action(arguments...);
    Observe(result.status());
    if (!result.ok()) return;
    outcome_->swapped = result->swapped;
    outcome_->number = result->value;
  }
  void Number(const auto& callee, auto&&... arguments) { outcome_->number = callee.action(arguments...); }
  void Flag(const auto& callee, auto&&... arguments) { outcome_->number = callee.action(arguments...) ? 1 : 0; }
  bool Fits(const auto& callee, auto&&... arguments) {
    outcome_->refused = !callee.action(arguments...);
    return !outcome_->refused;
  }
  void Parts(const auto& callee, auto&&... arguments) { outcome_->parts = callee.action(arguments...); }
  void Lengths(const auto& callee, auto&&... arguments) { outcome_->lengths = callee.action(arguments...); }
  void Mapping(const auto& callee, auto&&... arguments) {
    const std::optional<guestmem::HostMapping> mapping = callee.action(arguments...);
    if (!mapping) return;
    outcome_->number = mapping->size;
    if (mapping->size != 0) outcome_->spans.push_back(Place({mapping->base, mapping->size, 0}));
  }
  void Take(uint8_t slot, const auto& callee, auto&&... arguments) {
    auto result = callee.action(arguments...);
    Observe(result.status());
    if (result.ok()) handles_[slot] = *std::move(result);
  }
  void Empty(uint8_t slot, const auto& callee) {
    handles_[slot] = callee.action();
    outcome_->number = 0;
  }
  void Made(uint8_t slot, const auto& callee, auto&&... arguments) {
    guestmem::Result<MadeMemory> result = callee.action(arguments...);
    Observe(result.status());
    if (!result.ok()) return;
    outcome_->number = result->Misaligned();
    handles_[slot] = std::exchange(result->memory, {});
    made_.push_back(*std::move(result));
  }
  void Unlock(uint8_t object) { locks_[object] = {}; }
  void Lock(const Step& step, bool for_kernel, const auto& callee, auto&&... arguments) {
    auto result = callee.action(arguments...);
    Observe(result.status());
    if (!result.ok()) return;
    locks_[step.object] = *std::move(result);
    for (const HeldSpan& span : SpansOf(locks_[step.object], for_kernel)) outcome_->spans.push_back(Place(span));
  }
  void Files(const auto& callee, auto&&... arguments) {
    for (const guestmem::SharedFile& file : callee.action(arguments...).value()) ShowFile(file);
  }
  // A Try access of the bytes `tried` of a backing's mapping, which start at `guest`.
  void Tried(const Range& tried, const std::byte* guest, const auto& callee, auto&&... arguments) {
    if (const std::optional<guestmem::Fault> fault = callee.action(arguments...)) ShowFault(*fault, tried, guest);
  }
  void Swapped(bool swapped) { outcome_->swapped = swapped; }
  void Seen(uint64_t value) {
    if (outcome_->ok) outcome_->number = value;
  }

 private:
  struct Objects {
    std::array<RangeBuffer, kObjects> buffers;
    std::array<Reader, kObjects> readers;
    std::array<Writer, kObjects> writers;
  };
  Objects& Used() { return objects_ ? *objects_ : objects_.emplace(); }
  void Observe(const guestmem::Status& status);
  void KeepBytes(std::span<const uint8_t> bytes) { outcome_->data.assign(bytes.begin(), bytes.end()); }
  // Where host memory is in the backings'.
  Span Place(const HeldSpan& held) const;
  void ShowFile(const guestmem::SharedFile& shared);
  void ShowFault(const guestmem::Fault& fault, const Range& tried, const std::byte* guest);

  const Decorate decorate_;
  Script script_;
  std::vector<std::shared_ptr<ScriptedBacking>> pool_;
  std::vector<std::shared_ptr<guestmem::GuestMemoryAccess>> handed_;
  std::array<std::optional<guestmem::GuestMemory>, kHandles> handles_;
  std::optional<Objects> objects_;  // since a step used one
  std::vector<MadeMemory> made_;    // their memory is in the handles
  std::shared_ptr<guestmem::AlignedHeapMemory> taken_;  // until the comparison after the step has seen it, at least
  const World* world_ = nullptr;
  Outcome* outcome_ = nullptr;
  std::array<guestmem::detail::Lock, kObjects> locks_;  // after what their unlocking reaches
  bool buffers_within_ = true;
  HostBuffer host_;
};

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_ENGINE_H_
