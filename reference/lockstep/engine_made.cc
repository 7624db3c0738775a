#include "reference/lockstep/engine_made.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "guestmem/detail/host_calls.h"
#include "guestmem/access_bitmap.h"
#include "guestmem/heap_memory.h"
#include "guestmem/shared_backing.h"
#include "guestmem/shared_memory.h"
#include "guestmem/sparse_mapping.h"
#include "reference/lockstep/engine_observe.h"
#include "reference/lockstep/engine_trap.h"

namespace reference {
namespace {

using guestmem::AccessBitmap;
using guestmem::GuestMemory;
using guestmem::SparseMapping;

// A mapping that an access bitmap guards.
class Guarded final : public guestmem::SharedBacking<SparseMapping> {
 public:
  Guarded(std::shared_ptr<SparseMapping> inner, std::shared_ptr<AccessBitmap> bits)
      : SharedBacking(std::move(inner)), bits_(std::move(bits)) {}
  std::optional<guestmem::BitmapInfo> access_bitmap() const override { return bits_->info(); }

 private:
  const std::shared_ptr<AccessBitmap> bits_;
};

// No mapping, and every other method as it is inherited.
class Bare final : public guestmem::GuestMemoryAccess {
 public:
  explicit Bare(uint64_t size) : size_(size) {}
  std::byte* mapping() const override { return nullptr; }
  uint64_t max_address() const override { return size_; }

 private:
  const uint64_t size_;
};

// The result's value; if there is none, the outcome says why.
template <typename T>
std::optional<T> ValueOf(guestmem::Result<T> result, Outcome& outcome) {
  Observe(result.status(), outcome);
  return result.ok() ? std::optional<T>(*std::move(result)) : std::nullopt;
}

}  // namespace

void EngineMade::Start(const Scripted& scripted, const Handed& handed) {
  scripted_ = &scripted;
  handed_ = &handed;
  made_.clear();
  taken_ = nullptr;
}

void EngineMade::Run(const Step& step, Handles& handles, Outcome& outcome) {
  std::optional<GuestMemory>& target = handles[step.target];
  switch (step.kind) {
    case StepKind::kMake:
      Make(step, handles[step.slot], outcome);
      break;
    case StepKind::kCreate:
      Create(step, handles[step.slot], outcome);
      break;
    case StepKind::kSharing:
      ShowFiles(target ? *target : *handles[0], outcome);
      break;
    case StepKind::kInnerBuffer: {
      if (target) {
        InnerBuffer(step, *target, outcome);
      }
      break;
    }
    case StepKind::kTry:
      Try(step, *(*scripted_)[step.backing], outcome);
      break;
    case StepKind::kMove:
      if (step.target != 0 && handles[step.target]) {
        handles[step.slot] = std::move(handles[step.target]).value();
      }
      break;
    case StepKind::kStarve:
      guestmem::detail::SetErrorMemory(step.choice == 0);
      break;
    case StepKind::kForeignFault:
      outcome.number = HandlesForeignFault(step.choice) ? 1 : 0;
      break;
    default: {
      const guestmem::Status status = (*scripted_)[step.backing]->ChangeBitmap(step);
      Observe(status, outcome);
      if (status.ok()) {  // 0 and "OK" are what a status that is no error has
        outcome.code = static_cast<int>(status.code());
        outcome.text = status.ToString() == "OK" ? "" : "not OK";
      }
      break;
    }
  }
}

void EngineMade::InnerBuffer(const Step& step, GuestMemory& memory, Outcome& outcome) {
  const auto value = static_cast<uint8_t>(step.value);
  if (step.choice == 0) {
    if (const auto buffer = memory.InnerBuffer()) {
      outcome.number = buffer->size();
      if (!buffer->empty()) {
        (*buffer)[0] = value;
      }
    }
    return;
  }
  std::optional<std::span<std::byte>> buffer;
  if (step.choice == 1) {
    buffer = memory.InnerBufferMutable();
  } else if (auto heap = std::move(memory).TakeInnerBuffer()) {
    buffer = std::span(heap->mapping(), heap->max_address());
    taken_ = std::move(heap);
  }
  if (buffer) {
    outcome.number = buffer->size();
    if (!buffer->empty()) {
      (*buffer)[0] = static_cast<std::byte>(value);
    }
  }
}

void EngineMade::Make(const Step& step, std::optional<GuestMemory>& slot, Outcome& outcome) {
  switch (static_cast<Made>(step.choice)) {
    case Made::kEmpty:
      slot = GuestMemory::Empty();
      outcome.number = 0;
      break;
    case Made::kHeap:
      if (auto memory = ValueOf(GuestMemory::Allocate(step.bytes), outcome)) {
        const auto buffer = *memory->InnerBuffer();
        Keep({reinterpret_cast<std::byte*>(buffer.data()), buffer.size(), -1, true}, outcome);
        slot = *std::move(memory);
      }
      break;
    case Made::kShared:
      if (const auto shared = ValueOf(guestmem::SharedMemory::Create(step.bytes), outcome)) {
        Keep({(*shared)->mapping(), (*shared)->size(), (*shared)->fd(), true}, outcome);
        slot = GuestMemory::Create(kMadeName, *shared).value();
      }
      break;
    case Made::kSparse: {
      const auto sparse = ValueOf(SparseMapping::Create(step.bytes), outcome);
      if (!sparse) {
        break;
      }
      std::shared_ptr<guestmem::GuestMemoryAccess> backing = *sparse;
      if (step.form == 1) {
        const uint64_t pages = (*sparse)->max_address() / kPageSize;
        const auto bits = ValueOf(AccessBitmap::Create(kBitmapName, pages, false), outcome);
        if (!bits) {
          break;
        }
        Observe((*bits)->Grant({0, pages}, guestmem::kAllAccess), outcome);
        // Beyond the last page it is refused, and nothing is to be refused.
        (void)(*bits)->Revoke({step.value, 1}, guestmem::kAllAccess);
        backing = std::make_shared<Guarded>(*sparse, *bits);
      }
      Keep({(*sparse)->mapping(), (*sparse)->max_address(), -1, false}, outcome);
      slot = GuestMemory::Create(kMadeName, backing).value();
      break;
    }
    case Made::kBitmap:
      if (const auto bits = ValueOf(AccessBitmap::Create(kBitmapName, step.bytes, false), outcome)) {
        outcome.number = (*bits)->pages();
      }
      break;
    case Made::kBare:
      if (auto memory = ValueOf(GuestMemory::Create(kMadeName, std::make_shared<Bare>(step.bytes)), outcome)) {
        Keep({nullptr, 0, -1, false}, outcome);
        slot = *std::move(memory);
      }
      break;
  }
}

void EngineMade::Keep(const Mapping& mapping, Outcome& outcome) {
  uint64_t largest = kPageSize;
  for (const uint64_t page : {uint64_t{1} << 21, uint64_t{1} << 30}) {
    largest = mapping.size >= page ? page : largest;
  }
  outcome.number = reinterpret_cast<uintptr_t>(mapping.base) % largest;
  made_.push_back(mapping);
}

void EngineMade::Create(const Step& step, std::optional<GuestMemory>& slot, Outcome& outcome) {
  const auto promise = static_cast<Promise>(step.choice);
  Handed backings = *handed_;
  for (const auto& backing : *scripted_) {
    backing->Break(Promise::kNone);
  }
  if (promise == Promise::kNull) {
    backings[step.backing] = nullptr;
  } else {
    (*scripted_)[step.backing]->Break(promise);
  }
  // The handler is installed already, so this must make no difference.
  const guestmem::CreateOptions options = {.install_fault_handler = step.slot != 1};
  auto memory = ValueOf(step.form == 1 ? GuestMemory::CreateMultiRegion(kMadeName, step.bytes, backings, options)
                                       : GuestMemory::Create(kMadeName, backings[step.backing], options),
                        outcome);
  if (memory) {
    slot = *std::move(memory);
  }
  for (const auto& backing : *scripted_) {
    backing->Made();
  }
}

void EngineMade::ShowFiles(const GuestMemory& memory, Outcome& outcome) const {
  for (const guestmem::SharedFile& shared : memory.sharing().value()) {
    File file = {0, shared.file_offset, shared.gpa, shared.size};
    const auto made = std::find_if(made_.rbegin(), made_.rend(), [&](const Mapping& m) { return m.file == shared.fd; });
    if (made != made_.rend()) {
      file.file = kMaxBackings + static_cast<uint64_t>(made_.rend() - made) - 1;
      constexpr int kKnownSeals = F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE;
      outcome.number = static_cast<uint64_t>(fcntl(shared.fd, F_GET_SEALS) & kKnownSeals);
      outcome.data.resize(std::min<uint64_t>(16, shared.size));
      const ssize_t got = pread(shared.fd, outcome.data.data(), outcome.data.size(), static_cast<off_t>(shared.file_offset));
      outcome.data.resize(got < 0 ? 0 : static_cast<size_t>(got));
    } else {
      file.file = static_cast<uint64_t>(shared.fd - kFirstFile);
    }
    outcome.files.push_back(file);
  }
}

std::optional<Span> EngineMade::PlaceOf(const void* host) const {
  for (size_t i = made_.size(); i > 0; --i) {  // the newest first: it is alive where places coincide
    const auto* const byte = static_cast<const std::byte*>(host);
    const Mapping& mapping = made_[i - 1];
    if (byte >= mapping.base && byte < mapping.base + mapping.size) {
      return Span{static_cast<uint8_t>(kMaxBackings + i - 1), static_cast<uint64_t>(byte - mapping.base), 0, 0};
    }
  }
  return std::nullopt;
}

std::span<const uint8_t> EngineMade::Page(uint64_t made, uint64_t page) const {
  const Mapping& mapping = made_[made];
  if (!mapping.populated) {
    return {};
  }
  return {reinterpret_cast<const uint8_t*>(mapping.base) + page * kPageSize, kPageSize};
}

}  // namespace reference
