#include "reference/vmm/vmm_gtest.h"

#include <algorithm>
#include <iterator>

#include "reference/test_source.h"
#include "reference/vmm/vmm_gtest_steps.h"

namespace reference::vmm {
namespace {

// In the order of use.
constexpr gtest::Helper kHelpers[] = {
    {"File(", R"(// What file `number` holds at first: each byte tells where it is.
Bytes File(uint64_t number, uint64_t offset, uint64_t length) {
  Bytes bytes;
  for (uint64_t i = offset; i < offset + length; ++i) {
    bytes.push_back(static_cast<uint8_t>(1 + number * 100 + i / 4096 * 16 + i * 7 % 15));
  }
  return bytes;
}

)"},
    {"MakeFile(", R"(int MakeFile(uint64_t number, uint64_t size) {
  const int fd = memfd_create("file", MFD_CLOEXEC);
  const Bytes bytes = File(number, 0, size);
  EXPECT_EQ(pwrite(fd, bytes.data(), bytes.size(), 0), static_cast<ssize_t>(bytes.size()));
  return fd;
}

)"},
    {"Rom(", R"(// What ROM image `number` holds.
Bytes Rom(uint64_t number, uint64_t offset, uint64_t length) {
  Bytes bytes;
  for (uint64_t i = offset; i < offset + length; ++i) {
    bytes.push_back(static_cast<uint8_t>(200 + number + i / 4096 * 8 + i % 3));
  }
  return bytes;
}

)"},
    {"Words(", R"(// The bytes of `value`, again and again.
Bytes Words(uint64_t value, uint64_t length) {
  Bytes bytes;
  for (uint64_t i = 0; i < length; ++i) {
    bytes.push_back(static_cast<uint8_t>(value >> (i % 8 * 8)));
  }
  return bytes;
}

)"},
    {"Page(", R"(// What a page shows; nothing if it cannot be read.
Bytes Page(const GuestMemory& memory, uint64_t page) {
  Bytes bytes(kPageSize);
  return memory.ReadAt(page * kPageSize, std::as_writable_bytes(std::span(bytes))).ok() ? bytes : Bytes();
}

)"},
    {"Shape(", R"(// Of each page: w, it can be read and written; r, only read; -, neither.
std::string Shape(const GuestMemory& memory, uint64_t pages) {
  std::string shape;
  for (uint64_t page = 0; page < pages; ++page) {
    const bool writable = memory.ProbeWritable(page * kPageSize, 1).ok();
    shape += memory.ProbeReadable(page * kPageSize, kPageSize).ok() ? (writable ? 'w' : 'r') : (writable ? '?' : '-');
  }
  return shape;
}

)"},
    {"Pattern(", R"(// What backing `number` of the address space holds at first.
Bytes Pattern(uint64_t number, uint64_t offset, uint64_t length) {
  Bytes bytes;
  for (uint64_t i = offset; i < offset + length; ++i) {
    bytes.push_back(SpaceByte(number, i));
  }
  return bytes;
}

)"},
    {"IsSignalled(", R"(bool IsSignalled(const Event& event) {
  pollfd wanted = {event.fd(), POLLIN, 0};
  return poll(&wanted, 1, 0) == 1;
}

)"},
    {"OpenFiles(", R"(// Which of the low descriptors are open.
std::vector<bool> OpenFiles() {
  std::array<pollfd, 128> files;
  for (size_t i = 0; i < files.size(); ++i) {
    files[i] = {static_cast<int>(i), 0, 0};
  }
  EXPECT_GE(poll(files.data(), files.size(), 0), 0);
  std::vector<bool> open;
  for (const pollfd& file : files) {
    open.push_back((file.revents & POLLNVAL) == 0);
  }
  return open;
}

)"},
    {"HostCallFailure", R"(// The n-th host call of the library from now on fails, until Happened is asked.
class HostCallFailure {
 public:
  explicit HostCallFailure(unsigned n) {
    left_ = n;
    happened_ = false;
    detail::SetHostCallFilter(Fails);
  }
  bool Happened() {
    detail::SetHostCallFilter(nullptr);
    return happened_;
  }

 private:
  static bool Fails(detail::HostCall call) {
    if (call == detail::HostCall::kCountLocks) return false;  // not counted
    const bool now = left_ != 0 && --left_ == 0;
    happened_ |= now;
    return now;
  }
  static inline unsigned left_ = 0;
  static inline bool happened_ = false;
};

)"},
};

// Which of the descriptors that regions map (Field::kFile) the trace names.
std::array<bool, 3> FilesOf(const Trace& trace) {
  std::array<bool, 3> named = {};
  for (const Op& op : trace.ops) {
    if (op.kind == OpKind::kRegionMap && op[kFile] < named.size()) {
      named[op[kFile]] = true;
    }
  }
  named[0] = named[0] || named[2];
  return named;
}

void MakeGuest(const World& world, gtest::Source& out) {
  const std::string create =
      "InProcessGuest::Create(\"vm\", " + gtest::Number(world.pages * kPageBytes - (world.trim != 0 ? 100 : 0)) + ")";
  out.Line("const std::vector<bool> open_files = OpenFiles();");
  if (world.fail != 0) {
    out.Line("{");
    out.Line({"HostCallFailure failure(", std::to_string(world.fail), ");"});
    out.Line({"const auto refused = ", create, ";"});
    out.Line("const bool failed = failure.Happened();");
    out.Line("EXPECT_EQ(refused.ok(), !failed);");
    out.Line("if (failed) {");
    out.Line("EXPECT_EQ(refused.status().kind(), ErrorKind::kResourceExhausted) << refused.status().ToString();");
    out.Line("}");
    out.Line("}");
  }
  out.Line({"std::shared_ptr<InProcessGuest> guest = ", create, ".value();"});
  out.Line("GuestMemory memory = GuestMemory::Create(\"vm\", guest).value();");
}

}  // namespace

void WatchHostCalls(Machine& guest, const Trace& trace, const std::function<void(bool failed)>& done) {
  guest.Start(trace.world);
  for (const Op& op : trace.ops) {
    bool failed = false;
    guest.Run(op, failed);
    done(failed);
  }
  guest.End();
}

std::string ToTestSource(const Trace& trace, const std::vector<bool>& host_call_failed, std::string_view name) {
  const std::string test = gtest::TestName(name);
  const auto files = FilesOf(trace);
  gtest::Source out;
  out.Line({"TEST(Regression, ", test, ") {"});
  for (size_t file = 0; file < kFiles; ++file) {
    if (files[file]) {
      out.Line({"const int file", std::to_string(file), " = MakeFile(", std::to_string(file), ", ",
                gtest::Number(kFileBytes[file]), ");"});
    }
  }
  if (files[2]) {
    out.Line(
        "const int read_only_file = open((\"/proc/self/fd/\" + std::to_string(file0)).c_str(), O_RDONLY | O_CLOEXEC);");
  }
  MakeGuest(trace.world, out);
  Steps steps(trace, host_call_failed, out);
  steps.Run();
  out.Blank();
  out.Line("// Everything is taken down, and nothing stays behind.");
  const auto drop_guest = [&] {
    out.Line("memory = GuestMemory();");
    if (trace.world.guest_first == 0) {
      out.Line("EXPECT_EQ(guest.use_count(), 1);");
    }
    out.Line("guest.reset();");
  };
  if (trace.world.guest_first != 0) {
    drop_guest();
  }
  steps.DropAll();
  if (trace.world.guest_first == 0) {
    drop_guest();
  }
  out.Line("EXPECT_EQ(OpenFiles(), open_files);");
  constexpr std::string_view kFds[] = {"file0", "file1", "read_only_file"};
  for (size_t file = 0; file < files.size(); ++file) {
    if (files[file]) {
      out.Line({"close(", kFds[file], ");"});
    }
  }
  out.Line("}");
  return gtest::Assemble({"vmm test", "the model in reference/vmm", ToText(trace), test, out.text(), kHelpers});
}

}  // namespace reference::vmm
