#include "reference/lockstep/engine_trap.h"

#include <signal.h>
#include <ucontext.h>

#include <cstddef>
#include <optional>
#include <utility>

#include "guestmem/fault.h"

namespace reference {
namespace {

using guestmem::Fault;
using guestmem::GuestSide;

template <typename T>
std::optional<Fault> TryObject(const Step& step, std::byte* guest, Outcome& outcome) {
  auto value = static_cast<T>(step.value);
  std::optional<Fault> fault;
  if (step.choice == 3) {
    fault = guestmem::TryRead(guest, value);
  } else if (step.choice == 4) {
    return guestmem::TryWrite(guest, value);
  } else {
    fault = guestmem::TryCompareExchange(guest, value, static_cast<T>(step.desired), outcome.swapped);
  }
  if (!fault) {
    outcome.number = value;
  }
  return fault;
}

std::optional<Fault> TryBytes(const Step& step, std::byte* guest, Outcome& outcome) {
  if (step.choice == 2) {
    return guestmem::TryFill(guest, static_cast<std::byte>(step.value), step.length);
  }
  outcome.data.assign(kGuardBytes + step.length + kGuardBytes, kUntouched);
  uint8_t* const host = outcome.data.data() + kGuardBytes;
  const auto copy = step.form == 1 ? guestmem::TryCopyShared : guestmem::TryCopy;
  if (step.choice == 0) {
    return copy(GuestSide::kSource, host, guest, step.length);
  }
  PutDataPattern(step.value, {host, step.length});
  return copy(GuestSide::kDestination, guest, host, step.length);
}

}  // namespace

void Try(const Step& step, ScriptedBacking& backing, Outcome& outcome) {
  const uint64_t length = step.choice < 3 ? step.length : step.size;
  std::byte* const page = backing.Arena(step.page);
  const uint64_t room = (kMaxPages - step.page) * kPageSize;
  const bool aligned = step.choice != 5 || step.offset % step.size == 0;
  if (step.offset > room || length > room - step.offset || !aligned) {
    return;
  }
  std::byte* const guest = page + step.offset;
  std::optional<Fault> fault;
  switch (step.choice < 3 ? 0 : step.size) {
    case 0: fault = TryBytes(step, guest, outcome); break;
    case 1: fault = TryObject<uint8_t>(step, guest, outcome); break;
    case 2: fault = TryObject<uint16_t>(step, guest, outcome); break;
    case 4: fault = TryObject<uint32_t>(step, guest, outcome); break;
    default: fault = TryObject<uint64_t>(step, guest, outcome); break;
  }
  if (!fault) {
    return;
  }
  const uint64_t start = step.page * kPageSize + step.offset;
  outcome.ok = false;
  outcome.kind = ErrorKind::kNotMapped;
  outcome.code = 9;
  outcome.operation = fault->side == Fault::Side::kWrite ? Operation::kWrite : Operation::kRead;
  outcome.range = Range{start, length};
  outcome.fault_address = start + (fault->address - reinterpret_cast<uintptr_t>(guest));
  outcome.transferred = fault->offset;
}

bool HandlesForeignFault(uint8_t which) {
  static constexpr std::pair<int, int> kFaults[] = {
      {SIGSEGV, SEGV_MAPERR}, {SIGSEGV, SEGV_ACCERR}, {SIGSEGV, SEGV_PKUERR}, {SIGSEGV, SI_USER},
      {SIGBUS, BUS_ADRERR},   {SIGBUS, BUS_MCEERR_AR}, {SIGBUS, BUS_ADRALN},  {SIGTRAP, TRAP_BRKPT}};
  siginfo_t info = {};
  info.si_signo = kFaults[which].first;
  info.si_code = kFaults[which].second;
  ucontext_t context = {};
  context.uc_mcontext.gregs[REG_RIP] = which % 2 == 0 ? 0 : -1;  // below and above all that can recover
  const uint64_t before = guestmem::RecoveredFaults();
  const bool handled = guestmem::TryHandleFault(info.si_signo, &info, &context);
  return handled || guestmem::RecoveredFaults() != before || !guestmem::FaultHandlerIsInstalled();
}

}  // namespace reference
