// A hostile guest for what uses guest memory: a fuzzer of device models. Start here.
//
// The kit plays the guest. It writes requests into memory, kicks your device, and answers each access that the device makes: with
// bytes that nobody expected, with pages that are not there, with other bytes where the device reads a second time. It sees every
// access through guestmem::GuestMemory with its exact address, length and direction, and needs no change in the device:
//
//   void guestmem::hostile::DescribeDevice(guestmem::hostile::Setup& setup) {
//     const guestmem::hostile::SplitQueue queue(setup, {.size = 8, .descriptors = 0x1000, .available = 0x2000, .used = 0x3000});
//     setup.Example("read", [=](guestmem::hostile::Guest& guest) {
//       guest.Put(0x4000, BlockHeader{.type = 0, .sector = 2});
//       queue.Chain(guest, {{0x4000, 16}, {0x5000, 512, true}, {0x4010, 1, true}});
//     });
//     setup.Device([](guestmem::hostile::Run& run) {
//       auto device = std::make_shared<BlockDevice>(run.memory(), ...);
//       return [device] { device->Kick(); };
//     });
//   }
//
// An input is a list of deviations from such well-formed examples, so give one of each kind of request that the device knows.
//
// What it finds, beside what sanitizers find:
//   double fetch       the device read bytes twice in one request, and what it then did fits neither the old bytes nor the new
//                      ones. Judged by outcome: stores to the guest, and the calls out that you declare (Run::CallOut)
//   store outside      a store to what the request does not allow; and what your OnStore hooks forbid
//   use after unlock   of a lock's host address: instrumented loads and stores of the device, and whatever faults there
//   accesses, work, memory   more than `Options` allows one request
//   spinning           one access again and again, though it fails
//
// What one request is: it begins with a kick and ends with a store to what RequestEndsAtStore names; the next begins there.
//
// Not seen: read-modify-write instructions, memcpy and system calls through the host address of a locked page (they are found where
// they come after the unlock), GuestSpan::CopyTo, and stores under a lock that leave a byte as it was. What an asynchronous
// device does after its kick has returned. malloc, other than through operator new, which the kit replaces.
//
// When not: a device with threads of its own. The kit runs the device on one thread and needs it to do the same things each time.
// To test memory itself, use the lockstep of the guestmem tree.
//
// Threads: none of this may be used from several. Signal context: no. Units: bytes.

#ifndef GUESTMEM_HOSTILE_DEVICE_FUZZER_H_
#define GUESTMEM_HOSTILE_DEVICE_FUZZER_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <guestmem/guest_memory.h>
#include <guestmem/plain.h>
#include <guestmem/types.h>

#if defined(GUESTMEM_SCHEDULED)
#error "guestmem/hostile is for the installed library: a build with schedule points does not tell how long an access is"
#endif

namespace guestmem::hostile {

namespace detail {
class Machine;
}

// What a run may use. A device that needs more for one request is a finding.
struct Options {
  uint64_t memory_size = 64 * 1024;    // of the guest, in whole pages; up to 16 MiB
  unsigned requests = 8;               // kicks an input, up to 16
  uint64_t max_accesses = 4096;        // to guest memory, one request
  uint64_t max_work = 4 << 20;         // loads and stores of the device's own code (instrumented builds), one request
  uint64_t max_allocated = 1 << 20;    // bytes that operator new gave out, one request, freed or not
  unsigned max_failed_again = 64;      // the same access, failing, and nothing between
  bool changes = true;                 // between two fetches; false: to see what would be missed without them
};

// The guest, while it writes an example. What it puts is where deviations are tried, so put fields rather than blobs.
class Guest {
 public:
  template <typename T>
  void Put(uint64_t gpa, const T& value) {
    GUESTMEM_REQUIRE_PLAIN(T);
    PutBytes(gpa, std::as_bytes(std::span<const T, 1>(&value, 1)));
  }
  // Precondition: inside memory (a mistake of the description: fatal).
  void PutBytes(uint64_t gpa, std::span<const std::byte> bytes);

 private:
  friend class detail::Machine;
  explicit Guest(detail::Machine& machine) : machine_(machine) {}
  detail::Machine& machine_;
};

// An access of the device that met an OnFetch or OnStore rule. Values here are as the device fetched them first in this request: what
// a device follows must be what it checked.
class Access {
 public:
  uint64_t gpa() const { return range_.start; }  // of the whole access
  uint64_t length() const { return range_.length; }

  // What the device fetched first from there in this request; nullopt: not all of it was fetched, or the device stored there.
  template <typename T>
  std::optional<T> First(uint64_t gpa) const {
    GUESTMEM_REQUIRE_PLAIN(T);
    T value;
    return FirstBytes(gpa, std::as_writable_bytes(std::span<T, 1>(&value, 1))) ? std::optional<T>(value) : std::nullopt;
  }
  // What stands in memory now, the store included.
  template <typename T>
  T Now(uint64_t gpa) const {
    GUESTMEM_REQUIRE_PLAIN(T);
    T value{};
    NowBytes(gpa, std::as_writable_bytes(std::span<T, 1>(&value, 1)));
    return value;
  }

  // The value at `source` names `target`: an address, an index. Where two of them cover the same bytes, the guest made the
  // device read them twice, and that is no double fetch. False: it was said before in this request.
  bool Points(uint64_t source, AddressRange target);
  // Whether any of these bytes was named by Points in this request, or is Fixed.
  bool IsNamed(AddressRange range) const;
  // For this request.
  void MayStore(AddressRange range);
  void OnFetch(AddressRange range, std::function<void(Access&)> hook);
  // Whether MayStore was said of any of these bytes in this request.
  bool MayStoreInto(AddressRange range) const;
  // Reports the access. The first one of a run counts.
  void Forbid(std::string_view why);

 private:
  friend class detail::Machine;
  Access(detail::Machine& machine, AddressRange range) : machine_(machine), range_(range) {}
  bool FirstBytes(uint64_t gpa, std::span<std::byte> bytes) const;
  void NowBytes(uint64_t gpa, std::span<std::byte> bytes) const;

  detail::Machine& machine_;
  AddressRange range_;
};
using Hook = std::function<void(Access&)>;

// One device's life: a few requests on fresh memory.
class Run {
 public:
  // The guest's memory. Each run's device is built over it anew.
  const GuestMemory& memory() const;
  // Something that the device did and that can be seen from outside: an interrupt, a write to its disk. Part of the outcome.
  void CallOut(std::string_view name, std::span<const std::byte> data = {});

 private:
  friend class detail::Machine;
  explicit Run(detail::Machine& machine) : machine_(machine) {}
  detail::Machine& machine_;
};

class Setup {
 public:
  Options options;

  // Bytes that the device finds by itself, at an address that no fetched value names.
  void Fixed(AddressRange range) { fixed_.push_back(range); }
  // Bytes that a device may read as often as it likes, because the guest changes them at any time: indices, flags.
  void Polled(AddressRange range) { polled_.push_back(range); }
  // A store to any of these bytes completes the request.
  void RequestEndsAtStore(AddressRange range) { ends_.push_back(range); }
  // Where any request allows stores. Once this has been said, or an Access has said it, every other store is a finding.
  void MayStore(AddressRange range) { may_store_.push_back(range), judges_stores_ = true; }
  // Called after an access to any of these bytes has succeeded.
  void OnFetch(AddressRange range, Hook hook) { on_fetch_.push_back({range, std::move(hook)}); }
  void OnStore(AddressRange range, Hook hook) { on_store_.push_back({range, std::move(hook)}), judges_stores_ = true; }
  // Called before each run, for what your hooks remember.
  void OnStart(std::function<void()> hook) { on_start_.push_back(std::move(hook)); }

  // Values to try anywhere; and at some place.
  void Interesting(uint64_t value) { interesting_.push_back(value); }
  void Suggest(AddressRange range, std::vector<uint64_t> values) { suggested_.push_back({range, std::move(values)}); }

  // A well-formed request. The names stand in findings.
  void Example(std::string name, std::function<void(Guest&)> write) { examples_.push_back({std::move(name), std::move(write)}); }
  // Builds the device, for each run; what it returns kicks the device, which handles what is available before it returns.
  void Device(std::function<std::function<void()>(Run&)> build) { build_ = std::move(build); }

 private:
  friend class detail::Machine;
  struct Rule {
    AddressRange range;
    Hook hook;
  };
  struct Suggestion {
    AddressRange range;
    std::vector<uint64_t> values;
  };
  struct NamedExample {
    std::string name;
    std::function<void(Guest&)> write;
  };

  std::vector<AddressRange> fixed_, polled_, ends_, may_store_;
  std::vector<Rule> on_fetch_, on_store_;
  std::vector<std::function<void()>> on_start_;
  std::vector<uint64_t> interesting_;
  std::vector<Suggestion> suggested_;
  std::vector<NamedExample> examples_;
  std::function<std::function<void()>(Run&)> build_;
  bool judges_stores_ = false;
};

// Yours to define, in a program of guestmem_add_device_fuzzer.
void DescribeDevice(Setup& setup);

// For tests: runs a finding's text on the device that `describe` describes, and returns the verdict, "none" where nothing is wrong, or what
// is wrong with the text. A verdict that cannot let the device go on (it spins, say) ends the process with its story.
std::string Replay(const std::function<void(Setup&)>& describe, std::string_view finding);

}  // namespace guestmem::hostile

#endif  // GUESTMEM_HOSTILE_DEVICE_FUZZER_H_
