// Small devices, each with one mistake or none, and what the hostile guest says of them.

#include <gtest/gtest.h>

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <guestmem/hostile/device_fuzzer.h>

#include "machine.h"
#include "report.h"

namespace guestmem::hostile {
namespace {

using detail::Machine;
using detail::NewShared;
using detail::Record;
using detail::VerdictKind;

// A request is a doorbell page: what the device reads at 0x100, where it answers at 0x200.
constexpr uint64_t kLength = 0x100, kPointer = 0x108, kData = 0x180, kAnswer = 0x200, kDone = 0x208;

using Kick = std::function<void(const GuestMemory&, Run&)>;

void Describe(Setup& setup, const Kick& kick) {
  setup.options.max_accesses = 100;
  setup.options.max_allocated = 1 << 16;
  setup.MayStore({kAnswer, 16});
  setup.RequestEndsAtStore({kDone, 4});
  setup.Example("request", [](Guest& guest) {
    guest.Put(kLength, uint32_t{4});
    guest.Put(kPointer, kData);
    guest.Put(kData, uint64_t{7});
  });
  setup.Device([kick](Run& run) { return [&run, kick] { kick(run.memory(), run); }; });
}

detail::Shared& Result() {
  static detail::Shared& shared = NewShared();
  return shared;
}

// The verdict on a device, over some random inputs. In a child, so that it may be anything.
std::string Hunt(const Kick& kick, const std::function<void(Setup&)>& more = [](Setup&) {}) {
  detail::Shared& result = Result();
  Machine machine([&](Setup& setup) { Describe(setup, kick), more(setup); }, result);
  InChild(machine, false, [&] {
    detail::InstallFaultReport();
    for (uint32_t seed = 1; seed < 3000 && result.verdict == VerdictKind::kNone; ++seed) {
      std::vector<uint8_t> input(256);
      input.resize(detail::Mutate(input.data(), seed % 8 * 8, input.size(), seed));
      machine.RunInput(input);
    }
  });
  return Name(result.verdict);
}

uint32_t Read(const GuestMemory& memory, uint64_t gpa) { return memory.ReadPlain<uint32_t>(gpa).value_or(0); }
void Write(const GuestMemory& memory, uint64_t gpa, uint32_t value) { (void)memory.WritePlain<uint32_t>(gpa, value); }

TEST(HostileTest, ADeviceThatReadsOnceIsQuiet) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              Write(m, kAnswer, Read(m, kLength) + Read(m, kData));
              Write(m, kDone, 1);
            }),
            "none");
}

TEST(HostileTest, ALengthThatIsReadAgainAfterItsCheckIsADoubleFetch) {
  const Kick kick = [](const GuestMemory& m, hostile::Run&) {
    if (Read(m, kLength) > 8) return Write(m, kAnswer, 0xbad);
    Write(m, kAnswer, Read(m, kLength));
  };
  EXPECT_EQ(Hunt(kick), "double fetch");
  EXPECT_GE(Result().first_fetch, 0);
  EXPECT_EQ(Result().events[static_cast<size_t>(Result().first_fetch)].gpa, kLength);
}

TEST(HostileTest, TheSameOverBulkReadsAndACallOut) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run& run) {
              std::array<std::byte, 24> all;
              if (!m.ReadAt(kLength, all).ok() || all[0] > std::byte{8}) return;
              if (!m.ReadAt(kLength, all).ok()) return;
              run.CallOut("length", std::span(all).first(1));
            }),
            "double fetch");
}

TEST(HostileTest, ReadingTwiceWithTheOutcomeOfEitherIsNone) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              (void)Read(m, kLength);
              Write(m, kAnswer, Read(m, kLength));
            }),
            "none");
}

TEST(HostileTest, WhatIsPolledMayBeReadAgain) {
  const Kick kick = [](const GuestMemory& m, hostile::Run&) {
    if (Read(m, kLength) > 8) return Write(m, kAnswer, 0xbad);
    Write(m, kAnswer, Read(m, kLength));
  };
  EXPECT_EQ(Hunt(kick, [](hostile::Setup& s) { s.Polled({kLength, 4}); }), "none");
}

TEST(HostileTest, AnotherRequestMayReadAgain) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              if (Read(m, kLength) > 8) return Write(m, kAnswer, 0xbad);
              Write(m, kDone, 1);
              Write(m, kAnswer, Read(m, kLength));
            }),
            "none");
}

// Data that the guest put over the length: the device reads each once.
TEST(HostileTest, BytesThatTwoPointersNameAreNoDoubleFetch) {
  const Kick kick = [](const GuestMemory& m, hostile::Run&) {
    if (Read(m, kLength) > 8) return Write(m, kAnswer, 0xbad);
    const auto pointer = m.ReadPlain<uint64_t>(kPointer);
    if (pointer.ok()) Write(m, kAnswer, Read(m, *pointer));
  };
  const auto fixed = [](hostile::Setup& s) {
    s.Fixed({kLength, 16});
    s.Suggest({kPointer, 8}, {kLength});
  };
  EXPECT_EQ(Hunt(kick, fixed), "none");
  EXPECT_GT(Result().dropped_candidates, 0U);
}

TEST(HostileTest, AStoreWhereTheGuestPointsIsOutside) {
  const Kick kick = [](const GuestMemory& m, hostile::Run&) {
    const auto pointer = m.ReadPlain<uint64_t>(kPointer);
    if (pointer.ok()) Write(m, *pointer, 1);
  };
  EXPECT_EQ(Hunt(kick), "store outside");
  EXPECT_EQ(Hunt(kick, [](hostile::Setup& s) {
              s.OnFetch({kPointer, 8}, [](Access& a) { a.MayStore({a.First<uint64_t>(kPointer).value_or(0), 4}); });
            }),
            "none");
}

TEST(HostileTest, AStoreByTheSecondOfTwoReadsIsOutside) {
  EXPECT_EQ(Hunt(
                [](const GuestMemory& m, hostile::Run&) {
                  (void)m.ReadPlain<uint64_t>(kPointer);
                  Write(m, m.ReadPlain<uint64_t>(kPointer).value_or(0), 1);
                },
                [](hostile::Setup& s) {
                  s.OnFetch({kPointer, 8}, [](Access& a) { a.MayStore({a.First<uint64_t>(kPointer).value_or(0), 4}); });
                }),
            "store outside");
}

TEST(HostileTest, AHookForbids) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) { Write(m, kAnswer, Read(m, kLength)); },
                 [](hostile::Setup& s) {
                   s.OnStore({kAnswer, 4}, [](Access& a) {
                     if (a.Now<uint32_t>(kAnswer) == 6) a.Forbid("six");
                   });
                 }),
            "forbidden");
}

TEST(HostileTest, TooManyAccessesForOneRequest) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              for (uint32_t i = 0, n = Read(m, kLength); i < n && m.ReadPlain<uint32_t>(kData).ok(); ++i) {
              }
            }),
            "accesses");
}

TEST(HostileTest, TooMuchMemoryForOneRequest) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run& run) {
              std::vector<std::byte> bytes(Read(m, kLength) & 0xfffff);
              run.CallOut("bytes", bytes);
            }),
            "memory");
}

TEST(HostileTest, AnAccessThatFailsIsTriedForEver) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              while (!m.WritePlain<uint32_t>(kAnswer, 1).ok()) {
              }
            }),
            "spinning");
}

TEST(HostileTest, ACrashAndAHang) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              if (Read(m, kLength) == 6) __builtin_trap();
            }),
            "crash");
}

std::optional<LockedPages> LockPage(const GuestMemory& memory, AccessType access) {
  const std::array<uint64_t, 1> gpns{0};
  auto lock = memory.LockGpns(access, false, gpns);
  return lock.ok() ? std::optional(*std::move(lock)) : std::nullopt;
}

TEST(HostileTest, StoresUnderALockAreFoundAtItsEnd) {
  const auto fill = [](uint64_t gpa) {
    return [gpa](const GuestMemory& m, hostile::Run&) {
      if (const auto lock = LockPage(m, AccessType::kWrite)) (void)lock->spans()[0].Fill(std::byte{0x5a}, gpa, 4);
    };
  };
  EXPECT_EQ(Hunt(fill(kAnswer)), "none");
  EXPECT_EQ(Hunt(fill(kData)), "store outside");
}

TEST(HostileTest, AStoreBeforeTheCompletionBelongsToItsRequest) {
  EXPECT_EQ(Hunt(
                [](const GuestMemory& m, hostile::Run&) {
                  const auto lock = LockPage(m, AccessType::kWrite);
                  if (!m.ReadPlain<uint32_t>(kLength).ok() || !lock) return;
                  (void)lock->spans()[0].Fill(std::byte{0x5a}, kData, 4);
                  Write(m, kDone, 1);
                },
                [](hostile::Setup& s) {
                  s.OnFetch({kLength, 4}, [](Access& a) { a.MayStore({kData, 8}); });
                }),
            "none");
}

TEST(HostileTest, AccessesBesideALockAreStillSeen) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              const auto lock = LockPage(m, AccessType::kRead);
              if (Read(m, kLength + 0x1000) != 0) return;  // after the first access behind a lock, nothing passes by the guest
              if (Read(m, kLength) > 8) return Write(m, kAnswer, 0xbad);
              Write(m, kAnswer, Read(m, kLength));
            }),
            "double fetch");
}

TEST(HostileTest, ALockForReadingIsNotWrittenThrough) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              const auto lock = LockPage(m, AccessType::kRead);
              if (lock) *reinterpret_cast<volatile char*>(lock->spans()[0].ToIovec().iov_base) = 99;
            }),
            "store through a lock for reading");
}

TEST(HostileTest, UseAfterUnlock) {
  const auto use = [](const auto& what) {
    return [what](const GuestMemory& m, hostile::Run&) {
      auto lock = LockPage(m, AccessType::kWrite);
      if (!lock) return;
      const GuestSpan span = lock->spans()[0];
      lock.reset();
      what(span);
    };
  };
  EXPECT_EQ(Hunt(use([](const GuestSpan& span) { (void)span.At(8).load(); })), "use after unlock");
  EXPECT_EQ(Hunt(use([](const GuestSpan& span) { (void)span.Fill(std::byte{}, 8, 8); })), "use after unlock");
}

TEST(HostileTest, EveryAnswerReachesTheDevice) {
  std::array<bool, 5> seen{};
  Machine machine(
      [&](hostile::Setup& setup) {
        Describe(setup, [&](const GuestMemory& m, hostile::Run&) {
          std::array<std::byte, 8> bytes;
          const Status read = m.ReadAt(kLength, bytes);
          const Status write = m.WriteAt(kAnswer, bytes);
          if (!read.ok()) {
            seen[0] |= read.kind() == ErrorKind::kNotMapped;
            seen[1] |= read.kind() == ErrorKind::kAccessDenied;
            seen[2] |= read.kind() == ErrorKind::kBackend && read.info().transferred == 4;
          }
          seen[3] |= read.ok() && !write.ok() && write.kind() == ErrorKind::kAccessDenied;
          seen[4] |= read.ok() && write.ok() && !LockPage(m, AccessType::kRead);
        });
      },
      Result());
  for (uint32_t seed = 1; seed < 3000; ++seed) {
    std::vector<uint8_t> input(256);
    input.resize(detail::Mutate(input.data(), 0, input.size(), seed));
    machine.RunInput(input);
    EXPECT_EQ(Result().verdict, VerdictKind::kNone);
  }
  EXPECT_EQ(seen, (std::array<bool, 5>{true, true, true, true, true}));
}

#if defined(__clang__)  // this file is compiled as guestmem_add_device_fuzzer does it

TEST(HostileTest, ARawLoadUnderALockIsAFetch) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              const auto lock = LockPage(m, AccessType::kRead);
              if (!lock) return;
              const auto* const length = static_cast<volatile uint8_t*>(lock->spans()[0].ToIovec().iov_base) + kLength;
              if (*length > 8) return Write(m, kAnswer, 0xbad);
              Write(m, kAnswer, *length);
            }),
            "double fetch");
  bool raw = false;
  for (const detail::Event& event : std::span(Result().events).first(Result().event_count)) {
    raw |= event.kind == detail::EventKind::kRawFetch && event.gpa == kLength && event.length == 1;
  }
  EXPECT_TRUE(raw);
}

TEST(HostileTest, TooMuchWorkForOneRequest) {
  EXPECT_EQ(Hunt([](const GuestMemory& m, hostile::Run&) {
              volatile uint64_t sum = 0;
              for (uint32_t i = 0, n = Read(m, kLength); i < n; ++i) sum = sum + i;
            }),
            "work");
}

#endif

// A finding says the same by its text as by the input that it came from.
TEST(HostileTest, AFindingReplaysByAddress) {
  const Kick kick = [](const GuestMemory& m, hostile::Run&) {
    if (Read(m, kLength) > 8) return Write(m, kAnswer, 0xbad);
    Write(m, kAnswer, Read(m, kLength) + Read(m, kData + 0x700));  // the last is drawn
  };
  ASSERT_EQ(Hunt(kick), "double fetch");
  const auto describe = [&](hostile::Setup& setup) { Describe(setup, kick); };
  std::string text;
  {
    Machine machine(describe, Result());
    Result().verdict = VerdictKind::kDoubleFetch;
    Minimise(machine);
    text = ToText(Result().plan, machine.example_names(), "by a test");
  }
  EXPECT_EQ(Replay(describe, text), "double fetch");
  EXPECT_NE(text.find("change before"), std::string::npos) << text;
  const Kick mended = [](const GuestMemory& m, hostile::Run&) {
    const uint32_t length = Read(m, kLength);
    Write(m, kAnswer, length > 8 ? 0xbad : length + Read(m, kData + 0x700));
  };
  EXPECT_EQ(Replay([&](hostile::Setup& setup) { Describe(setup, mended); }, text), "none");
}

TEST(HostileTextTest, ReadsBackWhatItWrites) {
  const std::string text =
      "guestmem hostile 1\n"
      "request read\n"
      "  0x1008 4: 00 02 00 00\n"
      "  0x5000 512: 41\n"
      "  page 5 not-mapped after 3\n"
      "request write\n"
      "  change before 7: 0x1008 4: ff ff 00 00\n";
  const std::vector<std::string> examples{"write", "read"};
  const auto plan = std::make_unique<detail::Plan>();
  EXPECT_EQ(FromText(text, examples, 1 << 16, *plan), "");
  EXPECT_EQ(ToText(*plan, examples, ""), text);
}

TEST(HostileTextTest, SaysWhichLineIsWrong) {
  const std::vector<std::string> examples{"read"};
  const auto plan = std::make_unique<detail::Plan>();
  const auto parse = [&](const std::string& rest) { return FromText("guestmem hostile 1\n" + rest, examples, 1 << 16, *plan); };
  EXPECT_EQ(parse(""), "no request");
  EXPECT_EQ(FromText("guestmem hostile 2\n", examples, 1 << 16, *plan), "line 1: expected 'guestmem hostile 1'");
  EXPECT_EQ(parse("request erase\n"), "line 2: the device has no example of this name");
  EXPECT_EQ(parse("0x0 1: 00\n"), "line 2: this belongs below a request");
  for (const char* const wrong : {"0x0 1:", "0x10000 1: 00", "0xffff 2: 00", "0x0 0: 00", "0x0 9: 0 0 0 0 0 0 0 0 0", "0x0 1: 100", "x"}) {
    EXPECT_EQ(parse(std::string("request read\n") + wrong), "line 3: expected 'ADDRESS LENGTH: BYTES' inside memory") << wrong;
  }
  for (const char* const wrong : {"page 16 denied after 0", "page 1 lost after 0", "page 1 denied", "page 1 denied after x"}) {
    EXPECT_EQ(parse(std::string("request read\n") + wrong), "line 3: expected 'page N KIND after N'") << wrong;
  }
  EXPECT_EQ(parse("request read\nchange before 1: 0x0 1: 00\nchange before 2: 0x0 1: 00\n"),
            "line 4: expected one 'change before N: ADDRESS LENGTH: BYTES'");
}

}  // namespace
}  // namespace guestmem::hostile
