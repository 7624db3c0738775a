// KVM slots over a sparse mapping: the guest's processor and this program see the same memory.
//
// The mapping reserves the whole guest-physical space; only parts of it are memory, and each part is a KVM slot at the host address
// mapping() + gpa. Plugging: Allocate, then make the slot. Unplugging is the reverse: take the slot away first, so that
// the guest cannot reach the pages, then Unmap; this program's own accesses fail cleanly from then on.
//
// Prints:
//   the guest stopped at its hlt, and wrote 42
//   the guest reached no memory at 0x8000
//   guest memory 'ram': read error: failed to access 0x8000-0x8001: the page is not mapped

#include <array>
#include <cerrno>
#include <cinttypes>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <guestmem/guest_memory.h>
#include <guestmem/sparse_mapping.h>

namespace {

constexpr uint64_t kSize = 1 << 20;
constexpr uint64_t kCode = 0x1000;  // 16 KiB of memory from 0 on hold the code ...
constexpr uint64_t kData = 0x8000;  // ... and one page here its data

// 16-bit code: mov byte [kData], 42; hlt
constexpr std::array<uint8_t, 6> kProgram = {0xc6, 0x06, kData & 0xff, kData >> 8, 42, 0xf4};

[[noreturn]] void Skip(const char* what) {
  std::printf("skipped: %s: %s\n", what, std::strerror(errno));
  std::exit(77);
}

bool SetSlot(int vm, uint32_t slot, const guestmem::SparseMapping& ram, uint64_t gpa, uint64_t length) {
  kvm_userspace_memory_region region = {};
  region.slot = slot;
  region.guest_phys_addr = gpa;
  region.memory_size = length;  // 0 takes the slot away
  region.userspace_addr = reinterpret_cast<uintptr_t>(ram.mapping()) + gpa;
  return ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region) == 0;
}

// Runs the program from its start, in real mode with flat segments at 0; the reason why the guest stopped.
uint32_t RunGuest(int cpu, kvm_run* run) {
  kvm_sregs sregs = {};
  kvm_regs regs = {};
  if (ioctl(cpu, KVM_GET_SREGS, &sregs) != 0) Skip("KVM_GET_SREGS");
  sregs.cs.base = sregs.ds.base = 0;
  sregs.cs.selector = sregs.ds.selector = 0;
  regs.rip = kCode;
  regs.rflags = 2;  // the bit that is always set
  if (ioctl(cpu, KVM_SET_SREGS, &sregs) != 0 || ioctl(cpu, KVM_SET_REGS, &regs) != 0) Skip("setting the registers");
  if (ioctl(cpu, KVM_RUN, 0) != 0) Skip("KVM_RUN");
  return run->exit_reason;
}

}  // namespace

int main() {
  const int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
  if (kvm < 0) Skip("/dev/kvm");
  const int vm = ioctl(kvm, KVM_CREATE_VM, 0);
  const int cpu = vm < 0 ? -1 : ioctl(vm, KVM_CREATE_VCPU, 0);
  if (cpu < 0) Skip("making a virtual machine");
  const int run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
  void* const shared = mmap(nullptr, static_cast<size_t>(run_size), PROT_READ | PROT_WRITE, MAP_SHARED, cpu, 0);
  if (shared == MAP_FAILED) Skip("mapping the processor's state");
  auto* const run = static_cast<kvm_run*>(shared);

  auto ram = guestmem::SparseMapping::Create(kSize).value();
  if (!ram->Allocate(0, 0x4000).ok() || !ram->Allocate(kData, guestmem::kPageSize).ok()) return 1;
  if (!SetSlot(vm, 0, *ram, 0, 0x4000) || !SetSlot(vm, 1, *ram, kData, guestmem::kPageSize)) return 1;

  auto memory = guestmem::GuestMemory::Create("ram", ram).value();
  if (!memory.WriteAt(kCode, std::as_bytes(std::span(kProgram))).ok()) return 1;
  if (const uint32_t reason = RunGuest(cpu, run); reason != KVM_EXIT_HLT) return std::printf("exit reason %u\n", reason), 1;
  std::printf("the guest stopped at its hlt, and wrote %d\n", memory.ReadPlain<uint8_t>(kData).value());

  // Unplug the page with the data. The guest's store becomes an exit to this program; this program's read, an error.
  if (!SetSlot(vm, 1, *ram, kData, 0) || !ram->Unmap(kData, guestmem::kPageSize).ok()) return 1;
  if (const uint32_t reason = RunGuest(cpu, run); reason != KVM_EXIT_MMIO) return std::printf("exit reason %u\n", reason), 1;
  std::printf("the guest reached no memory at %#" PRIx64 "\n", static_cast<uint64_t>(run->mmio.phys_addr));
  std::puts(memory.ReadPlain<uint8_t>(kData).status().ToString().c_str());

  munmap(shared, static_cast<size_t>(run_size));
  for (const int fd : {cpu, vm, kvm}) close(fd);
  return 0;
}
