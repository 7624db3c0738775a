// What a person who writes a trace by hand meets: what texts mean, and the line and reason when one is refused.

#include <string>
#include <string_view>
#include <variant>

#include <gtest/gtest.h>

#include "reference/lockstep/trace_rows.h"
#include "reference/lockstep/trace.h"
#include "reference/trace/spellings.h"

namespace reference {
namespace {

Trace Accepted(std::string_view text) {
  auto parsed = FromText(text);
  if (const auto* error = std::get_if<TextError>(&parsed)) {
    ADD_FAILURE() << "line " << error->line << ": " << error->reason;
    return {};
  }
  return std::get<Trace>(std::move(parsed));
}

// "LINE: reason", or "accepted".
std::string Refusal(std::string_view text) {
  const auto parsed = FromText(text);
  const auto* error = std::get_if<TextError>(&parsed);
  return error == nullptr ? "accepted" : std::to_string(error->line) + ": " + error->reason;
}
std::string WorldRefusal(std::string_view lines) { return Refusal("guestmem trace 1\n" + std::string(lines) + "\nops\n"); }
std::string OpRefusal(std::string_view line) { return Refusal("guestmem trace 1\nops\n" + std::string(line) + "\n"); }
Op OneOp(std::string_view line) {
  const Trace trace = Accepted("guestmem trace 1\nops\n" + std::string(line));
  return trace.ops.empty() ? Op{} : trace.ops[0];
}

constexpr std::string_view kAddressForms = "pageN, midN, endN (N up to 15), 2^32, 2^63 or 2^64, each with +D or -D (-128..127) if wanted";

TEST(TraceSpellings, KeepEveryTraceThatBytesCanBe) {
  trace::ExpectEveryByteStringIsATrace<Trace>(Rows());
  trace::ExpectOpsAreIndependent<Trace>(Rows());
}

// ------------------------------------------------------------------ what is accepted

TEST(TraceText, AWorldWithEverythingIsReadAndWrittenUnchanged) {
  constexpr std::string_view kText =
      "guestmem trace 1\n"
      "world region_pages=2\n"
      "backing 0 pages=2 trim=16 bitmap offset=5 null=r-x page0=ram:r-x page1=hole\n"
      "backing 1 absent\n"
      "backing 2 pages=1 unmapped iova wrapped bitmap managed sharing=wild\n"
      "handler fix_retry default fallback\n"
      "fallback do fail_moved\n"
      "fail_host_call 2 EINVAL\n"
      "ops\n"
      "read page1-4 length=16 misaligned=3\n"
      "write end0-8 target=2 length=16 value=0x1122334455667788\n"
      "compare_exchange page0+8 size=8 value=0x5 desired=0x6 choice=exact\n"
      "compare_exchange page0+8 size=4 seen desired=0xffffffff choice=exact\n"
      "read page0 length=64 within=2.3\n"
      "make slot=3 form=guarded value=0x7 choice=sparse bytes=0x200000\n"
      "probe_gpns 0 1 0xfffffffffffff\n"
      "subrange page0+1 slot=2 length=4096\n"
      "set_bit backing=2 page=1 access=write choice=set\n"
      "protect page=0 count=4 choice=read_write\n";
  const Trace trace = Accepted(kText);
  EXPECT_EQ(ToText(trace), kText);
  ASSERT_EQ(trace.world.backings.size(), 3u);
  const Backing& first = trace.world.backings[0];
  EXPECT_EQ(first.max_address(), 2 * kPageSize - 16);
  EXPECT_TRUE(first.null_bitmap[0] && !first.null_bitmap[1] && first.null_bitmap[2]);
  EXPECT_FALSE(first.page[0].writable);
  EXPECT_EQ(first.page[1].state, PageState::kHole);
  EXPECT_FALSE(trace.world.backings[1].present);
  EXPECT_FALSE(trace.world.backings[2].mapped);
  EXPECT_EQ(trace.world.handler,
            (std::vector<HandlerAnswer>{HandlerAnswer::kFixRetry, HandlerAnswer::kDefault, HandlerAnswer::kFallback}));
  EXPECT_EQ(trace.world.failing_host_call, 2);
  EXPECT_EQ(trace.world.host_error, HostError::kInvalid);
  EXPECT_TRUE(trace.world.backings[2].wrapped && trace.world.backings[2].managed);
  EXPECT_EQ(trace.world.backings[2].sharing, Sharing::kWild);
  const Step within = Resolve(trace.world, trace.ops[4], 0);
  EXPECT_EQ(within.HostBacking(), 2u);
  EXPECT_EQ(within.HostAddress(), 3 * kPageSize);
}

TEST(TraceText, CommentsBlankLinesTabsAndCarriageReturnsDontMatter) {
  const Trace trace = Accepted("# a comment\r\n\r\n  guestmem   trace 1\t# the header\r\n\r\nops\r\n\tread page0 length=1 # one byte\r\n");
  EXPECT_EQ(trace.ops.size(), 1u);
}

TEST(TraceText, AWorldLeftOutIsTheWorldOfNoBytes) {
  EXPECT_EQ(Accepted("guestmem trace 1\nops\n"), FromBytes({}));
}

TEST(TraceText, AddressesMeanWhatTheySay) {
  const World world = Accepted("guestmem trace 1\nworld region_pages=4\nbacking 0\nbacking 1 trim=1\nbacking 2 absent\nops\n").world;
  const auto address = [&](std::string_view word) { return Resolve(world, OneOp("iova " + std::string(word)), 0).gpa; };
  EXPECT_EQ(address("page3+5"), 3 * kPageSize + 5);
  EXPECT_EQ(address("mid1-4"), kPageSize + 2044);
  EXPECT_EQ(address("end0-8"), 3 * kPageSize - 8);
  EXPECT_EQ(address("end1"), 7 * kPageSize - 1);
  EXPECT_EQ(address("end2+1"), 8 * kPageSize + 1) << "an absent backing ends where its region starts";
  EXPECT_EQ(address("end4"), address("end1"));
  EXPECT_EQ(address("2^32+0"), uint64_t{1} << 32);
  EXPECT_EQ(address("2^63-1"), (uint64_t{1} << 63) - 1);
  EXPECT_EQ(address("2^64-128"), ~uint64_t{0} - 127);
}

TEST(TraceText, ASeenValueIsCutToTheSizeOfTheExchange) {
  const Op op = OneOp("compare_exchange page0 size=2 seen desired=1");
  EXPECT_EQ(Resolve(FromBytes({}).world, op, 0x12345678).value, 0x5678u);
}

// ------------------------------------------------------------------ the header and the lines

TEST(TraceTextRefuses, AMissingOrForeignHeader) {
  EXPECT_EQ(Refusal(""), "1: expected the header 'guestmem trace 1', found the end of the text");
  EXPECT_EQ(Refusal("# only\n# comments\n"), "2: expected the header 'guestmem trace 1', found the end of the text");
  EXPECT_EQ(Refusal("ops\n"), "1: expected the header 'guestmem trace 1', found 'ops'");
  EXPECT_EQ(Refusal("\n\nguestmem trace 2\n"), "3: expected the header 'guestmem trace 1', found 'guestmem trace 2'");
  EXPECT_EQ(Refusal("\x01\xff"), "1: expected the header 'guestmem trace 1', found '?" "?'");
}

TEST(TraceTextRefuses, ATextWithoutOpsLine) {
  EXPECT_EQ(Refusal("guestmem trace 1\nhandler retry\n"), "2: expected an 'ops' line, found the end of the text");
}

TEST(TraceTextRefuses, UnknownAndRepeatedLines) {
  EXPECT_EQ(WorldRefusal("read page0 length=1"),
            "2: unknown line 'read'; before the operations come: world, backing, handler, fallback, lock, subrange, fail_host_call, ops");
  EXPECT_EQ(WorldRefusal("world single_region\nworld single_region"), "3: 'world' is given twice");
  EXPECT_EQ(WorldRefusal("handler retry\nhandler retry"), "3: 'handler' is given twice");
  EXPECT_EQ(WorldRefusal("fail_host_call 1\nfail_host_call 2"), "3: 'fail_host_call' is given twice");
  EXPECT_EQ(WorldRefusal("ops now"), "2: 'ops' stands alone; operations follow on lines of their own");
}

TEST(TraceTextRefuses, ScriptsWithForeignOrTooManyAnswers) {
  EXPECT_EQ(WorldRefusal("fallback retry"),
            "2: unknown answer 'retry'; answers are: do, none, fail, fail_moved, fail_at, fail_outside, fail_blank, fail_foreign, fail_ok_result");
  EXPECT_EQ(WorldRefusal("handler retry, retry, retry, retry, retry, retry, retry, retry, retry"), "2: more than 8 answers");
  EXPECT_EQ(WorldRefusal("fail_host_call"), "2: fail_host_call needs a number, and perhaps an errno");
  EXPECT_EQ(WorldRefusal("fail_host_call 1 EWHAT"),
            "2: unknown errno 'EWHAT'; errnos are: ENOMEM, EACCES, EBADF, EFAULT, EINVAL, ENODEV, ENOSYS, EOPNOTSUPP, EOVERFLOW, EPERM");
  EXPECT_EQ(OpRefusal("read page0 length=1 within=3"), "3: within '3' is not like 0.1: a backing, and a page of it");
  EXPECT_EQ(OpRefusal("read page0 length=1 within=0.0"), "3: within's page 0 is too small: the smallest is 1");
  EXPECT_EQ(OpRefusal("make slot=1 choice=heap"), "3: make needs bytes=");
  EXPECT_EQ(OpRefusal("make slot=1 bytes=5 choice=heap"), "3: bytes 5 is not in the list of interesting bytes: 0, 1, 4095, 4096, 4097, 8192, 12288, 16383, 16384, 0x7ffffffffffff001, "
            "0xffffffffffffffff, 2048, 0x200000, 0x40000000, 0x7ffffffff000, 0x7ffffffff001, 0x2000000000000000, 0x4000000000000000, "
            "0x8000000000000000");
  EXPECT_EQ(WorldRefusal("fail_host_call 16"), "2: fail_host_call 16 is too large: the largest is 15");
}

// ------------------------------------------------------------------ the world

TEST(TraceTextRefuses, WorldsThatCantBe) {
  EXPECT_EQ(WorldRefusal("world"), "2: world needs single_region, or region_pages= 1, 2 or 4");
  EXPECT_EQ(WorldRefusal("world regions=2"),
            "2: unknown word 'regions=2'; expected 'single_region' or 'region_pages=' 1, 2 or 4");
  EXPECT_EQ(WorldRefusal("world region_pages=3"),
            "2: region_pages 3 is not a power of two; expected 'single_region' or 'region_pages=' 1, 2 or 4");
  EXPECT_EQ(WorldRefusal("world region_pages=8"), "2: region_pages 8 is too large: the largest is 4");
  EXPECT_EQ(WorldRefusal("backing 0\nworld region_pages=2"), "3: 'world' comes before the backings");
}

TEST(TraceTextRefuses, BackingsOutOfOrder) {
  EXPECT_EQ(WorldRefusal("backing"), "2: expected the backing's number after 'backing'");
  EXPECT_EQ(WorldRefusal("backing 4"), "2: backing 4 comes too early: next is backing 0");
  EXPECT_EQ(WorldRefusal("world region_pages=1\nbacking 0\nbacking 0"), "4: backing 0 is given twice");
  EXPECT_EQ(WorldRefusal("backing 2"), "2: backing 2 comes too early: next is backing 0");
  EXPECT_EQ(WorldRefusal("backing 0\nbacking 1"),
            "3: a single_region world has one backing; 'world region_pages=' 1, 2 or 4 makes room for more");
  EXPECT_EQ(WorldRefusal("backing 0 absent"), "2: the backing of a single_region world can't be absent");
}

TEST(TraceTextRefuses, WordsOfABackingThatMeanNothing) {
  EXPECT_EQ(WorldRefusal("backing 0 size=3"),
            "2: backing has no field 'size'; its fields are: absent, pages=, trim=, unmapped, iova, unlockable, fickle, wrapped, sparse, "
            "bitmap, managed, offset=, null=, sharing=, page0=, page1=, page2=, page3=");
  EXPECT_EQ(WorldRefusal("backing 0 pages=5"), "2: pages 5 is too large: the largest is 4");
  EXPECT_EQ(WorldRefusal("backing 0 pages=0"), "2: pages 0 is too small: the smallest is 1");
  EXPECT_EQ(WorldRefusal("world region_pages=2\nbacking 0 pages=3"), "3: part of this line has no effect; what has is: backing 0 pages=2");
  EXPECT_EQ(WorldRefusal("backing 0 trim=4096"), "2: trim 4096 is too large: the largest is 4095");
  EXPECT_EQ(WorldRefusal("backing 0 trim=many"), "2: trim 'many' is not a number (decimal, or hexadecimal with 0x)");
  EXPECT_EQ(WorldRefusal("backing 0 iova iova"), "2: 'iova' is given twice");
  EXPECT_EQ(WorldRefusal("backing 0 page0=ran"), "2: unknown page state 'ran'; page states are: ram, read_only, hole, bus");
  EXPECT_EQ(WorldRefusal("backing 0 bitmap page0=ram:rxw"), "2: 'rxw' is not like rwx, with - for an access that is not meant");
  EXPECT_EQ(WorldRefusal("backing 0 page4=ram"), "2: backing has no field 'page4'; its fields are: absent, pages=, trim=, unmapped, iova, unlockable, fickle, wrapped, sparse, "
            "bitmap, managed, offset=, null=, sharing=, page0=, page1=, page2=, page3=");
}

TEST(TraceTextRefuses, WordsOfABackingWithoutEffect) {
  constexpr std::string_view kWhole = "2: part of this line has no effect; what has is: backing 0 pages=3";
  EXPECT_EQ(WorldRefusal("backing 0 page0=ram:r--"), kWhole) << "bits without a bitmap";
  EXPECT_EQ(WorldRefusal("backing 0 offset=3"), kWhole);
  EXPECT_EQ(WorldRefusal("backing 0 page3=hole"), kWhole) << "a page beyond the backing's";
}

// ------------------------------------------------------------------ operations

TEST(TraceTextRefuses, UnknownOperationsAndFields) {
  std::string all;
  for (const trace::Kind& op : Rows().ops().kinds) all += (all.empty() ? "" : ", ") + std::string(op.name);
  EXPECT_EQ(OpRefusal("raed page0 length=1"), "3: unknown operation 'raed'; operations are: " + all);
  EXPECT_EQ(OpRefusal("read page0 length=1 size=4"), "3: read has no field 'size'; its fields are: target=, form=, length=, misaligned=, within=");
  EXPECT_EQ(OpRefusal("read page0 length=1 length=2"), "3: 'length' is given twice");
  EXPECT_EQ(OpRefusal("read page0 length"), "3: 'length' needs a value: length=...");
  EXPECT_EQ(OpRefusal("read page0"), "3: read needs length=");
  EXPECT_EQ(OpRefusal("read_plain page0"), "3: read_plain needs size=");
}

TEST(TraceTextRefuses, LengthsThatAreNotInTheList) {
  EXPECT_EQ(OpRefusal("read page0 length=5000"), "3: length 5000 is not in the list of interesting lengths; nearest are 4104 and 6144");
  EXPECT_EQ(OpRefusal("read page0 length=0x100000000"), "3: length 0x100000000 is too large: read takes up to 16385");
  EXPECT_EQ(OpRefusal("fill page0 length=0x10000000000000000"),
            "3: length '0x10000000000000000' is too large: the largest is 0xffffffffffffffff");
  EXPECT_EQ(OpRefusal("fill page0 length=-1"), "3: length '-1' is not a number (decimal, or hexadecimal with 0x)");
}

TEST(TraceTextRefuses, AddressesThatAreNone) {
  EXPECT_EQ(OpRefusal("iova"), "3: iova needs an address first: " + std::string(kAddressForms));
  for (const std::string word : {"4096", "page", "page+1", "2^32x", "2^321", "middle1", "page1*2"}) {
    EXPECT_EQ(OpRefusal("iova " + word), "3: '" + word + "' is not an address: expected " + std::string(kAddressForms));
  }
  EXPECT_EQ(OpRefusal("iova page16"), "3: the address's index 16 is too large: the largest is 15");
  EXPECT_EQ(OpRefusal("iova page1+128"), "3: the address's distance 128 is too large: the largest is 127");
  EXPECT_EQ(OpRefusal("iova page1-129"), "3: the address's distance 129 is too large: the largest is 128");
  EXPECT_EQ(OpRefusal("iova page1+"), "3: the address's distance '' is not a number (decimal, or hexadecimal with 0x)");
}

TEST(TraceTextRefuses, NumbersThatDontFitTheOperation) {
  EXPECT_EQ(OpRefusal("fill page0 length=1 value=0x100"), "3: value 0x100 is too large: the largest here is 0xff");
  EXPECT_EQ(OpRefusal("compare_exchange page0 size=2 value=0 desired=0x10000"), "3: desired 0x10000 is too large: the largest here is 0xffff");
  EXPECT_EQ(OpRefusal("read_plain page0 size=3"), "3: size 3 is not in the list of interesting sizes: 1, 2, 4, 8");
  EXPECT_EQ(OpRefusal("compare_exchange page0 size=8 value=1 seen"), "3: part of this line has no effect; what has is: compare_exchange page0 size=8 seen desired=0x0 choice=exact");
  EXPECT_EQ(OpRefusal("compare_exchange page0 size=8 seen=1"), "3: 'seen' takes no value");
  EXPECT_EQ(OpRefusal("full_mapping target=4"), "3: target 4 is too large: the largest is 3");
  EXPECT_EQ(OpRefusal("subrange page0 slot=0 length=1"), "3: slot 0 is too small: the smallest is 1");
}

TEST(TraceTextRefuses, ChoicesAndAccessesWithoutMeaning) {
  EXPECT_EQ(OpRefusal("protect page=0 count=1 choice=all"),
            "3: unknown choice 'all'; choices are: none, read, read_write");
  EXPECT_EQ(OpRefusal("read page0 length=1 form=1"), "3: unknown form '1'; forms are: plain, atomic");
  EXPECT_EQ(OpRefusal("grant page=0 count=1 mask=rw"), "3: unknown mask 'rw'; masks are: ---, r--, -w-, rw-, --x, r-x, -wx, rwx");
  EXPECT_EQ(OpRefusal("read page0 length=1 misaligned=16"), "3: misaligned 16 is too large: the largest is 15");
  EXPECT_EQ(OpRefusal("set_bit page=0 access=wirte"), "3: unknown access 'wirte'; accesses are: read, write, execute");
}

TEST(TraceTextRefuses, GpnsThatAreNotInTheListOrTooMany) {
  EXPECT_EQ(OpRefusal("probe_gpns 16"),
            "3: GPN 16 is not in the list of interesting GPNs: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0x100000, "
            "0x8000000000000, 0xffffffffffffe, 0xfffffffffffff, 0x10000000000000, 0x8000000000000000, 0xffffffffffffffff");
  EXPECT_EQ(OpRefusal("probe_gpns 0 1 2 3 4 5 6 7 8"), "3: more than 8 GPNs");
}

TEST(TraceTextRefuses, MoreThanTheMostOperations) {
  std::string text = "guestmem trace 1\nops\n";
  for (size_t i = 0; i < kMaxOps; ++i) text += "full_mapping\n";
  EXPECT_EQ(Accepted(text).ops.size(), kMaxOps);
  EXPECT_EQ(Refusal(text + "full_mapping\n"), "67: more than 64 operations");
}

}  // namespace
}  // namespace reference
