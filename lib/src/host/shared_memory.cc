#include "guestmem/shared_memory.h"

#include <errno.h>
#include <fcntl.h>

#include <bit>

#include "host/host_calls.h"
#include "host/host_error.h"
#include "host/reservation.h"

namespace guestmem {
namespace {

constexpr char kName[] = "shared memory";

}  // namespace

Result<std::shared_ptr<SharedMemory>> SharedMemory::Create(uint64_t size, SharedMemoryOptions options) {
  const uint64_t page = options.page_size;
  if (page < kPageSize || !std::has_single_bit(page)) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {0, size}, "the page size must be a power of two from 4096 on");
  }
  if (size == 0 || size > host::kMaxMapping || page > host::kMaxMapping) {
    return host::CreateError(kName, ErrorKind::kInvalidArgument, {0, size}, "the size must be 1 to 2^47 - 4096 bytes");
  }
  const uint64_t rounded = (size + page - 1) / page * page;  // still below 2^48
  return detail::OrOutOfMemory([&]() -> Result<std::shared_ptr<SharedMemory>> {
    const auto failed = [&](const char* call) { return host::HostFailure(kName, call, errno, {0, size}); };
    const int fd = host::MakeMemfd("guestmem", page);
    if (fd < 0) {
      return failed("memfd_create");
    }
    host::Reservation made;
    host::Rollback undo([&] {
      if (made.start != nullptr) {
        host::Unmap(made.start, made.length);
      }
      host::Close(fd);
    });
    if (host::Resize(fd, rounded) != 0) {
      return failed("ftruncate");
    }
    if (host::Seal(fd, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      return failed("fcntl(F_ADD_SEALS)");
    }
    made = host::Reserve(rounded, page);
    if (made.start == nullptr) {
      return failed("mmap");
    }
    if (host::Map(made.base, rounded, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == nullptr) {
      return failed("mmap of a file");
    }
    std::unique_ptr<SharedMemory> memory(new SharedMemory(fd, made.start, made.length, made.base, rounded));
    undo.Keep();
    return std::shared_ptr<SharedMemory>(std::move(memory));
  });
}

SharedMemory::~SharedMemory() {
  host::Unmap(reserved_, reserved_size_);
  host::Close(fd_);
}

Result<std::vector<SharedFile>> SharedMemory::sharing() const {
  return detail::OrOutOfMemory(
      [&]() -> Result<std::vector<SharedFile>> { return std::vector<SharedFile>{{fd_, 0, 0, size_}}; });
}

}  // namespace guestmem
