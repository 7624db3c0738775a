// Event: something happened, across threads and processes. An eventfd.
//
//   auto event = guestmem::Event::Create().value();
//   auto bell = doorbells->RegisterDoorbell(gpa, {.length = guestmem::DoorbellLength::k4}, event);
//   while (event.Wait().ok()) ServiceQueue();
//
// Signals merge into one until a waiter takes it. Each signal wakes one waiter.
//
// When not: counting (signals merge), or handing over data.
//
// Threads: any; clones and copies of the descriptor are the same event, also in other processes. Signal context: Signal.

#ifndef GUESTMEM_EVENT_H_
#define GUESTMEM_EVENT_H_

#include <utility>

#include "guestmem/status.h"

namespace guestmem {

// Move-only; a moved-from event has fd() -1 and may only be assigned to or dropped.
class Event {
 public:
  // A new event, not signalled. Errors: kResourceExhausted.
  static Result<Event> Create();
  // Takes over an eventfd from elsewhere, closing it in the end. It must be non-blocking.
  static Event FromFd(int fd) { return Event(fd); }

  Event(Event&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Event& operator=(Event&& other) noexcept {
    Event taken(std::move(other));
    std::swap(fd_, taken.fd_);
    return *this;
  }
  ~Event();

  // The same event through another descriptor. Errors: kResourceExhausted; kInvalidArgument (moved-from).
  Result<Event> Clone() const;

  // Wakes one waiter, now or when it comes. Async-signal-safe; keeps errno.
  void Signal() const noexcept;

  // Waits until signalled, and takes the signal. Errors: those of the descriptor (FromFd of something else).
  Status Wait() const;

  // Takes the signal if there is one; says whether there was. Errors: as Wait.
  Result<bool> TryWait() const;

  // For poll, KVM_IRQFD and the like; owned by this object, so not of a temporary.
  int fd() const& { return fd_; }
  int fd() const&& = delete;

 private:
  explicit Event(int fd) : fd_(fd) {}

  int fd_;
};

}  // namespace guestmem

#endif  // GUESTMEM_EVENT_H_
