// Event: signals merge, wake one waiter each, and cross threads, clones and processes.

#include "guestmem/event.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <string>
#include <thread>
#include <utility>

#include "child.h"
#include "host_state.h"

namespace guestmem {
namespace {

bool Taken(const Event& event) { return event.TryWait().value(); }

TEST(Event, IsNotSignalledAtFirst) { EXPECT_FALSE(Taken(Event::Create().value())); }

TEST(Event, SignalsMergeAndAreTakenOnce) {
  const Event event = Event::Create().value();
  event.Signal();
  event.Signal();
  EXPECT_TRUE(Taken(event));
  EXPECT_FALSE(Taken(event));
  event.Signal();
  EXPECT_TRUE(event.Wait().ok());
  EXPECT_FALSE(Taken(event));
}

TEST(Event, AWaiterInAnotherThreadWakes) {
  const Event there = Event::Create().value();
  const Event back = Event::Create().value();
  std::thread other([&] {
    for (int i = 0; i < 1000; ++i) {
      EXPECT_TRUE(there.Wait().ok());
      back.Signal();
    }
  });
  for (int i = 0; i < 1000; ++i) {
    there.Signal();
    EXPECT_TRUE(back.Wait().ok());
  }
  other.join();
  EXPECT_FALSE(Taken(there));
}

TEST(Event, OneSignalWakesOneOfManyWaiters) {
  constexpr int kWaiters = 4;
  const Event event = Event::Create().value();
  const Event woken = Event::Create().value();
  std::vector<std::thread> waiters;
  for (int i = 0; i < kWaiters; ++i) {
    waiters.emplace_back([&] {
      EXPECT_TRUE(event.Wait().ok());
      woken.Signal();
    });
  }
  for (int i = 0; i < kWaiters; ++i) {
    event.Signal();
    EXPECT_TRUE(woken.Wait().ok());  // before the next signal, or the two would merge
  }
  for (std::thread& waiter : waiters) {
    waiter.join();
  }
}

TEST(Event, ACloneIsTheSameEvent) {
  const test::HostState before;
  {
    auto event = std::make_unique<Event>(Event::Create().value());
    const Event clone = event->Clone().value();
    EXPECT_NE(clone.fd(), event->fd());
    event->Signal();
    event.reset();
    EXPECT_TRUE(Taken(clone));
  }
  EXPECT_EQ(test::HostState().files, before.files);
}

TEST(Event, MovesLeaveNothingBehind) {
  const test::HostState before;
  {
    Event a = Event::Create().value();
    const int fd = a.fd();
    Event b = std::move(a);
    EXPECT_EQ(b.fd(), fd);
    EXPECT_EQ(a.fd(), -1);
    EXPECT_EQ(a.Clone().status().kind(), ErrorKind::kInvalidArgument);
    a = Event::Create().value();
    const int replaced = a.fd();
    a = std::move(b);
    EXPECT_EQ(b.fd(), -1);
    EXPECT_EQ(fcntl(replaced, F_GETFD), -1) << "closed";
    a.Signal();
    EXPECT_TRUE(Taken(a));
  }
  EXPECT_EQ(test::HostState().files, before.files);
}

TEST(Event, WhatIsNoEventIsAnErrorToWaitFor) {
  const Event wrong = Event::FromFd(-1);
  const Status status = wrong.Wait();
  ASSERT_FALSE(status.ok());
  EXPECT_EQ(status.kind(), ErrorKind::kInvalidArgument);
  EXPECT_EQ(status.ToString(), "guest memory 'event': read error: failed to access memory: read of an eventfd: Bad file descriptor");
  EXPECT_EQ(wrong.TryWait().status().kind(), ErrorKind::kInvalidArgument);
  errno = 42;
  wrong.Signal();
  EXPECT_EQ(errno, 42);
}

TEST(Event, APipeIsNoEvent) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_NONBLOCK), 0);
  const Event wrong = Event::FromFd(ends[0]);
  ASSERT_EQ(write(ends[1], "short", 5), 5);
  EXPECT_EQ(wrong.TryWait().status().kind(), ErrorKind::kInvalidArgument);
  close(ends[1]);
  errno = EAGAIN;  // an earlier call's
  EXPECT_EQ(wrong.TryWait().status().kind(), ErrorKind::kInvalidArgument) << "at the end of the file";
  EXPECT_EQ(wrong.Wait().kind(), ErrorKind::kInvalidArgument) << "at the end of the file";
}

void SignalInherited() { Event::FromFd(std::atoi(std::getenv("FD"))).Signal(); }

TEST(Event, AnotherProcessSignalsIt) {
  const Event event = Event::Create().value();
  const int inherited = dup(event.fd());
  const test::ChildResult child = test::RunSelf({"--child", "SignalInherited"}, {"FD=" + std::to_string(inherited)});
  close(inherited);
  ASSERT_TRUE(child.Exited(0)) << child;
  EXPECT_TRUE(Taken(event));
}

// Descriptor 0 is one like the others.
void WithoutStandardInput() {
  const Event other = Event::Create().value();
  close(0);
  {
    const Event event = Event::Create().value();
    CHILD_CHECK(event.fd() == 0 && !Taken(event));
  }
  CHILD_CHECK(fcntl(0, F_GETFD) == -1);
  {
    const Event clone = other.Clone().value();
    CHILD_CHECK(clone.fd() == 0 && !Taken(clone));
  }
  CHILD_CHECK(fcntl(0, F_GETFD) == -1);
}

TEST(Event, MayBeDescriptor0) {
  const test::ChildResult child = test::RunMode("WithoutStandardInput");
  EXPECT_TRUE(child.Exited(0)) << child;
}

}  // namespace
}  // namespace guestmem

int main(int argc, char** argv) {
  using namespace guestmem;
  return test::TestMain(argc, argv, {{"SignalInherited", SignalInherited}, {"WithoutStandardInput", WithoutStandardInput}});
}
