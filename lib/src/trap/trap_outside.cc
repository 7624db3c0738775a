// Ordinary context: registering tables, staying loaded, the Try functions' out-of-line parts.

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <thread>
#include <utility>

#include "guestmem/detail/host_side.h"
#include "guestmem/fault.h"
#include "trap/kernels_outside.h"
#include "trap/trap_outside.h"
#include "trap/trap_table.h"
#include "types/error_rep.h"

namespace guestmem {
namespace trap {
namespace {

constinit bool g_started = false;  // guarded by the mutex

// Constructed by the first registrar, before any object's ordinary static objects; never destroyed.
std::mutex& TableMutex() {
  static auto* const mutex = new std::mutex;
  return *mutex;
}

uint64_t Absolute(const int32_t& offset) {
  return static_cast<uint64_t>(reinterpret_cast<int64_t>(&offset) + offset);
}

struct OwnedTable : RecoveryTable {
  OwnedTable(const void* inside, const detail::TrapEntry* first, const detail::TrapEntry* last) : object(inside) {
    auto* recoveries = new (std::nothrow) Recovery[static_cast<size_t>(last - first)];
    begin = end = recoveries;
    if (recoveries == nullptr) {
      return;
    }
    Recovery* out = recoveries;
    for (const detail::TrapEntry* entry = first; entry != last; ++entry) {
      if (entry->flags != 0) {  // zero entries only make the section exist
        const uint64_t start = Absolute(entry->start), after = Absolute(entry->end);
        *out = {start, after, Absolute(entry->landing), entry->flags, 0};
        // Safe because the instruction is code of the object that is being loaded.
        std::memcpy(&out->code, reinterpret_cast<const void*>(start), std::min(after - start, sizeof out->code));
        ++out;
      }
    }
    std::sort(recoveries, out, [](const Recovery& a, const Recovery& b) { return a.start < b.start; });
    end = out;
  }
  ~OwnedTable() { delete[] begin; }

  const void* const object;  // an address in it
};

// Whether the object at `inside` is loaded, and is another than the one at `other`. With no copy of the library in the way: the
// dynamic linker is asked.
bool IsLoadedBeside(const void* inside, const void* other) {
  struct Question {
    uint64_t inside, other;
    bool loaded;
  } question = {reinterpret_cast<uint64_t>(inside), reinterpret_cast<uint64_t>(other), false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& asked = *static_cast<Question*>(data);
        bool has_inside = false, has_other = false;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          const uint64_t begin = info->dlpi_addr + segment.p_vaddr;
          if (segment.p_type == PT_LOAD) {
            has_inside |= asked.inside - begin < segment.p_memsz;
            has_other |= asked.other - begin < segment.p_memsz;
          }
        }
        asked.loaded |= has_inside && !has_other;
        return has_inside ? 1 : 0;
      },
      &question);
  return question.loaded;
}

// Takes out the tables of objects that are gone, now that the object at `loading` comes, perhaps in the place of one of them. When
// an object's destructors run, nobody can tell whether it goes or the process ends. With the mutex held.
void RemoveTablesOfGoneObjects(const void* loading) {
  std::atomic<RecoveryTable*>* link = &g_tables;
  while (auto* const table = static_cast<OwnedTable*>(link->load(std::memory_order_relaxed))) {
    if (!table->closed.load(std::memory_order_relaxed) || IsLoadedBeside(table->object, loading)) {
      link = &table->next;
      continue;
    }
    link->store(table->next.load(std::memory_order_relaxed), std::memory_order_seq_cst);  // fence A
    while (g_table_readers.load(std::memory_order_seq_cst) != 0) {
      std::this_thread::yield();
    }
    delete table;
  }
}

// Once an engine, when the first object registers its table. With the mutex held.
void Start() {
  detail::g_trap_kernels = ChooseKernels();
  (void)StayLoaded(&g_started);  // other objects' registrars come here, at the latest when they are unloaded
  // In a fork child neither a thread that held the mutex nor one that was looking at the tables exists.
  pthread_atfork([] { TableMutex().lock(); }, [] { TableMutex().unlock(); },
                 [] {
                   g_table_readers.store(0, std::memory_order_relaxed);
                   TableMutex().unlock();
                 });
}

}  // namespace

bool StayLoaded(const void* inside) noexcept {
  Dl_info object;
  void* found = nullptr;
  if (dladdr1(inside, &object, &found, RTLD_DL_LINKMAP) == 0 || found == nullptr) {
    return true;  // the dynamic linker does not know the object and cannot unload it: a program linked with -static
  }
  // By the name that the dynamic linker knows it by: that finds it though its file is gone, or relative to another folder.
  const auto* const map = static_cast<const link_map*>(found);
  if (map->l_name[0] == '\0') {
    return true;  // the main program
  }
  void* const handle = dlopen(map->l_name, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  if (handle != nullptr) {
    dlclose(handle);
  }
  return handle == found;  // glibc's handles are its link maps
}

}  // namespace trap

namespace detail {

// Never inlined: where a program's copy of the library stands in for a plugin's, the plugin's registrar comes to the copy
// that is used, and starts that.
[[gnu::noinline]] TrapTable::TrapTable(const TrapEntry* begin, const TrapEntry* end) noexcept {
  auto* table = new (std::nothrow) trap::OwnedTable(this, begin, end);
  if (table == nullptr || table->begin == nullptr) {
    Fatal("no memory for the recovery table of an object that is being loaded");
  }
  registration_ = table;
  const std::lock_guard lock(trap::TableMutex());
  if (!trap::g_started) {
    trap::g_started = true;
    trap::Start();
  }
  trap::RemoveTablesOfGoneObjects(this);
  table->next.store(trap::g_tables.load(std::memory_order_relaxed), std::memory_order_relaxed);
  trap::g_tables.store(table, std::memory_order_release);
}

void TrapTable::Close() noexcept {
  if (registration_ != nullptr) {
    static_cast<trap::OwnedTable*>(registration_)->closed.store(true, std::memory_order_relaxed);
  }
}

Fault MakeFault(const void* start, size_t length, TrapResult result) noexcept {
  const auto begin = reinterpret_cast<uint64_t>(start);
  Fault fault;
  fault.address = std::max(begin, result.address & ~(kPageSize - 1));
  fault.offset = std::min<size_t>(fault.address - begin, length);
  fault.side = (result.info & kTrapInfoWrite) != 0 ? Fault::Side::kWrite : Fault::Side::kRead;
  fault.signal = static_cast<int>(result.info & 0xff);
  fault.code = static_cast<int>(static_cast<uint32_t>(result.info >> 8));
  return fault;
}

namespace {

// A kernel faulted at or somewhat above the end of what it moved. Moves what lies between that and the fault's page, so that
// the prefix is exact. A page below may be gone by then: the fault is there then, or where moving stopped.
template <typename Move>
Fault FinishPrefix(const void* guest, size_t length, TrapResult result, Move move) noexcept {
  const auto begin = reinterpret_cast<uint64_t>(guest);
  for (;;) {
    const size_t moved = MovedUpTo(result) - begin;
    Fault fault = MakeFault(static_cast<const std::byte*>(guest) + moved, length - moved, result);
    const size_t missing = std::exchange(fault.offset, fault.offset + moved);
    GUESTMEM_SCHEDULE_POINT(kTransfer, static_cast<const std::byte*>(guest) + moved);
    result = move(moved, missing);
    if (result.info == 0) {
      return fault;
    }
  }
}

}  // namespace

Fault FinishCopy(GuestSide guest, void* destination, const void* source, size_t length, TrapResult result,
                 HostSide::Sharing sharing) noexcept {
  auto* const to = static_cast<std::byte*>(destination);
  auto* const from = static_cast<const std::byte*>(source);
  const bool reading = guest == GuestSide::kSource;
  const auto kernel = reading ? g_trap_kernels.copy_from_guest : g_trap_kernels.copy_to_guest;
  const Fault fault = FinishPrefix(reading ? source : destination, length, result,
                                   [&](size_t at, size_t n) { return kernel(to + at, from + at, n); });
  if (reading) {
    HostSide(HostSide::kWritten, destination, fault.offset, sharing).Moved(fault.offset);
  }
  return fault;
}

Fault FinishFill(void* guest, std::byte value, size_t length, TrapResult result) noexcept {
  return FinishPrefix(guest, length, result, [&](size_t at, size_t n) {
    return g_trap_kernels.fill_guest(static_cast<std::byte*>(guest) + at, std::to_integer<int>(value), n);
  });
}

}  // namespace detail

namespace {

std::optional<Fault> Copy(GuestSide guest, void* destination, const void* source, size_t length,
                          detail::HostSide::Sharing sharing) noexcept {
  const bool reading = guest == GuestSide::kSource;
  const auto kernel = reading ? detail::g_trap_kernels.copy_from_guest : detail::g_trap_kernels.copy_to_guest;
  detail::HostSide host(reading ? detail::HostSide::kWritten : detail::HostSide::kRead,
                        reading ? destination : source, length, sharing);
  const detail::TrapResult result = kernel(destination, source, length);
  if (result.info == 0) [[likely]] {
    host.Moved(length);
    return std::nullopt;
  }
  if (result.info == detail::kTrapInfoOverlap) {
    detail::Fatal("TryCopy: the ranges overlap");
  }
  return detail::FinishCopy(guest, destination, source, length, result, sharing);
}

}  // namespace

std::optional<Fault> TryCopy(GuestSide guest, void* destination, const void* source, size_t length) noexcept {
  return Copy(guest, destination, source, length, detail::HostSide::kOwn);
}

std::optional<Fault> TryCopyShared(GuestSide guest, void* destination, const void* source, size_t length) noexcept {
  return Copy(guest, destination, source, length, detail::HostSide::kShared);
}

std::optional<Fault> TryFill(void* guest, std::byte value, size_t length) noexcept {
  const detail::TrapResult result = detail::g_trap_kernels.fill_guest(guest, std::to_integer<int>(value), length);
  if (result.info == 0) [[likely]] {
    return std::nullopt;
  }
  return detail::FinishFill(guest, value, length, result);
}

uint64_t RecoveredFaults() noexcept { return trap::g_recovered_faults.load(std::memory_order_relaxed); }

}  // namespace guestmem
