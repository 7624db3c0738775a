// Your own memory held to the model: a Subject in lockstep with it.
//
// The lockstep runs a trace on a Subject and on the model, one operation at a time, and says where the two first differ in anything
// that a caller could see. A Subject may be a memory in another process or language. It need not do everything: run traces of the
// operations that it knows. This one is an array behind a range check, once as it should be and once with a mistake.
//
// Prints:
//   the sound memory agrees with the model
//   the memory with a mistake differs at operation 2, in data:
//     expected [0x20..0x30 of 0x32] 09 10 >a5< a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5
//     actual   [0x20..0x30 of 0x32] 09 10 >00< a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5 a5

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <span>
#include <variant>
#include <vector>

#include "reference/lockstep/lockstep.h"

namespace {

using namespace reference;

// What is tested: memory as somebody else wrote it. false: out of range.
struct TinyMemory {
  std::vector<uint8_t> bytes;
  uint64_t size = 0;
  bool reads_too_much = false;  // the mistake

  bool InRange(uint64_t gpa, uint64_t length) const { return gpa <= size && length <= size - gpa; }
  bool Read(uint64_t gpa, uint8_t* to, uint64_t length) const {
    if (length == 0) return true;
    if (!InRange(gpa, length)) return false;
    std::copy_n(&bytes[gpa], length, to);
    if (reads_too_much) to[length] = 0;
    return true;
  }
  bool Write(uint64_t gpa, const uint8_t* from, uint64_t length) {
    if (length == 0) return true;
    if (!InRange(gpa, length)) return false;
    std::copy_n(from, length, &bytes[gpa]);
    return true;
  }
};

// The adapter: carries each step out and reports what came of it.
class TinySubject final : public Subject {
 public:
  explicit TinySubject(bool reads_too_much) { memory_.reads_too_much = reads_too_much; }

  // One backing, all of it RAM, with the bytes that every world starts with.
  void Start(const World& world) override {
    memory_.size = world.backings[0].max_address();
    memory_.bytes.resize(kMaxPages * kPageSize);
    slow_.resize(memory_.bytes.size());
    for (uint64_t i = 0; i < memory_.bytes.size(); ++i) {
      memory_.bytes[i] = MappedPattern(0, i);
      slow_[i] = SlowPattern(0, i);
    }
  }

  void Run(const Step& step, Outcome& outcome) override {
    const bool read = step.kind == StepKind::kRead;
    std::vector<uint8_t> data(step.length, kUntouched);
    if (!read) PutDataPattern(step.value, data);
    data.insert(data.begin(), kGuardBytes, kUntouched);
    data.insert(data.end(), kGuardBytes, kUntouched);
    uint8_t* const buffer = data.data() + kGuardBytes;
    outcome.ok = read ? memory_.Read(step.gpa, buffer, step.length) : memory_.Write(step.gpa, buffer, step.length);
    outcome.data = std::move(data);
    if (outcome.ok) return;
    outcome.kind = ErrorKind::kOutOfRange;
    outcome.operation = read ? Operation::kRead : Operation::kWrite;
    outcome.range = Range{step.gpa, step.length};
    outcome.fault_address = step.gpa;
    outcome.code = kOutOfRangeCode;
    char text[128];
    std::snprintf(text, sizeof(text), "guest memory 'world': %s error: failed to access 0x%llx-0x%llx", read ? "read" : "write",
                  static_cast<unsigned long long>(step.gpa), static_cast<unsigned long long>(step.gpa + step.length));
    outcome.text = text;
  }

  std::span<const uint8_t> MappedPage(uint64_t, uint64_t page, bool) override { return Page(memory_.bytes, page); }
  std::span<const uint8_t> SlowPage(uint64_t, uint64_t page) override { return Page(slow_, page); }
  bool Bit(uint64_t, uint64_t, Access) override { return true; }  // no bitmaps

 private:
  static std::span<const uint8_t> Page(const std::vector<uint8_t>& bytes, uint64_t page) {
    return std::span(bytes).subspan(page * kPageSize, kPageSize);
  }

  TinyMemory memory_;
  std::vector<uint8_t> slow_;  // what fallbacks would work on
};

constexpr char kTrace[] = R"(guestmem trace 1
world single_region
backing 0 pages=3
ops
write page1-8 length=16 value=0x5
read page1-8 length=18
read end0-8 length=16
write page2 length=8192 value=0x7
)";

}  // namespace

int main() {
  const auto parsed = FromText(kTrace);
  if (const auto* error = std::get_if<TextError>(&parsed)) return std::printf("line %d: %s\n", error->line, error->reason.c_str()), 1;
  const Trace& trace = std::get<Trace>(parsed);

  TinySubject sound(false);
  if (const Verdict verdict = Lockstep(sound).Run(trace)) return std::puts(Report(trace, *verdict).c_str()), 1;
  std::puts("the sound memory agrees with the model");

  TinySubject mistaken(true);
  const Verdict verdict = Lockstep(mistaken).Run(trace);
  if (!verdict) return std::puts("the mistake was not seen"), 1;
  std::printf("the memory with a mistake differs at operation %zu, in %s:\n  expected %s\n  actual   %s\n", verdict->step + 1,
              verdict->field.c_str(), verdict->expected.c_str(), verdict->actual.c_str());
  return 0;
}
