#include "guestmem/event.h"

#include <errno.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>

#include "host/host_calls.h"
#include "host/host_error.h"

namespace guestmem {
namespace {

Status Failure(Operation operation, const char* call) {
  const int reason = errno;
  const detail::DebugName name("event");
  return detail::MakeError(&name, host::KindOf(reason), operation, detail::Text("%s: %s", call, std::strerror(reason)));
}

}  // namespace

Result<Event> Event::Create() {
  const int fd = host::MakeEventfd();
  return fd < 0 ? Result<Event>(Failure(Operation::kCreate, "eventfd")) : Result<Event>(Event(fd));
}

Event::~Event() {
  if (fd_ >= 0) {
    host::Close(fd_);
  }
}

Result<Event> Event::Clone() const {
  const int fd = host::Duplicate(fd_);
  return fd < 0 ? Result<Event>(Failure(Operation::kCreate, "dup")) : Result<Event>(Event(fd));
}

void Event::Signal() const noexcept {
  const int kept = errno;
  const uint64_t one = 1;
  // It can fail only where 2^64 - 2 signals are pending: one is enough.
  [[maybe_unused]] const ssize_t written = write(fd_, &one, sizeof one);
  errno = kept;
}

Status Event::Wait() const { return host::TakeEvent(fd_, true) == 1 ? Status() : Failure(Operation::kRead, "read of an eventfd"); }

Result<bool> Event::TryWait() const {
  const int taken = host::TakeEvent(fd_, false);
  return taken < 0 ? Result<bool>(Failure(Operation::kRead, "read of an eventfd")) : Result<bool>(taken == 1);
}

}  // namespace guestmem
