#include "reference/model/model.h"

#include <algorithm>
#include <utility>

#include "reference/model/fast_kernel.h"
#include "reference/model/made.h"
#include "reference/model/outcome.h"
#include "reference/model/views.h"

namespace reference {

using namespace model;

namespace {

constexpr uint64_t kSeals = 7;  // F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_GROW
constexpr uint64_t kShownBytes = 16;

Access AccessOf(Transfer transfer) { return transfer == Transfer::kRead ? Access::kRead : Access::kWrite; }

PageState StateOf(Protection protection) {
  switch (protection) {
    case Protection::kNone: break;
    case Protection::kRead: return PageState::kReadOnly;
    case Protection::kReadWrite: return PageState::kRam;
  }
  return PageState::kHole;
}

Transfer TransferOf(Copy copy) {
  switch (copy) {
    case Copy::kTo: return Transfer::kRead;
    case Copy::kFrom: return Transfer::kWrite;
    case Copy::kFill: return Transfer::kFill;
    case Copy::kAt: break;
  }
  return Transfer::kProbe;
}

Transfer TransferOf(Trying trying) {
  switch (trying) {
    case Trying::kCopyFrom:
    case Trying::kRead: return Transfer::kRead;
    case Trying::kCopyTo:
    case Trying::kWrite: return Transfer::kWrite;
    case Trying::kFill: return Transfer::kFill;
    case Trying::kExchange: break;
  }
  return Transfer::kCompareExchange;
}

uint64_t HostLength(BufferSize size, uint64_t length) {
  switch (size) {
    case BufferSize::kExact: break;
    case BufferSize::kLonger: return length + 1;
    case BufferSize::kShorter: return length > 0 ? length - 1 : 0;
  }
  return length;
}

std::vector<Access> AccessesIn(uint8_t mask) {
  std::vector<Access> accesses;
  if (mask % 2 == 1) accesses.push_back(Access::kRead);
  if (mask / 2 % 2 == 1) accesses.push_back(Access::kWrite);
  if (mask / 4 % 2 == 1) accesses.push_back(Access::kExecute);
  return accesses;
}

bool AddNew(std::vector<Model::PageId>& list, const Model::PageId& page) {
  if (std::ranges::find(list, page) != list.end()) return false;
  list.push_back(page);
  return true;
}

bool Fits(const Buffer& buffer, uint64_t start, uint64_t length, Outcome& outcome) {
  outcome.refused = start > LengthOf(buffer) || length > LengthOf(buffer) - start;
  return !outcome.refused;
}

void Limit(Stream& stream, const Step& step, Outcome& outcome) {
  if (step.Form<LimitForm>() == LimitForm::kAdd) {
    outcome.refused = stream.limits.size() == kLimits;
    if (!outcome.refused) stream.limits.push_back(step.length);
  } else if (!stream.limits.empty()) {
    stream.limits.pop_back();
  }
}

Status ShowStream(const Stream& stream, Status status, Outcome& outcome) {
  for (size_t i = 0; i <= stream.limits.size(); ++i) outcome.lengths.push_back(Remaining(stream, i));
  return status;
}

}  // namespace

Model::Model(Watch* watch, Pace pace) : kernel_(pace == Pace::kFast ? new FastKernel(this) : new Kernel(this)), watch_(watch) {}

void Model::Start(const World& world) {
  kernel_->Start(world);
  handles_ = {};
  Handle& memory = handles_[0].emplace();
  memory.one_region = world.region_pages == 0 || world.backings.size() == 1;
  for (uint64_t b = 0; b < world.backings.size(); ++b)
    if (world.backings[b].present && (world.region_pages != 0 || b == 0))
      memory.parts.push_back({b, 0, b * world.region_pages * kPageSize, world.backings[b].max_address()});
  vanishes_ = std::ranges::find(world.handler, HandlerAnswer::kVanishRetry) != world.handler.end();
  buffers_ = {};
  readers_ = {};
  writers_ = {};
  locks_ = {};
  starved_ = false;
}

void Model::BeforeStore(uint64_t backing, uint64_t page, bool slow) {
  if (AddNew(slow ? stored_slow_ : stored_, {backing, page}) && watch_ && backing < kMaxBackings) watch_->BeforeStore(backing, page, slow);
}

void Model::BeforeBit(uint64_t backing, uint64_t page, Access access) {
  if (AddNew(changed_bits_[static_cast<size_t>(access)], {backing, page}) && watch_) watch_->BeforeBit(backing, page, access);
}

void Model::Run(const Step& step, Outcome& outcome) {
  Clear(outcome);
  stored_.clear();
  stored_slow_.clear();
  for (auto& bits : changed_bits_) bits.clear();
  kernel_->calls.clear();
  kernel_->unspecified.clear();
  Status status = RunStep(step, outcome);
  outcome.calls.swap(kernel_->calls);
  if (!status) return;
  if (starved_ && step.kind != StepKind::kTry) status = Error{.kind = status->kind, .code = status->code};
  Show(*status, outcome);
}

Status Model::RunStep(const Step& step, Outcome& outcome) {
  Kernel& kernel = *kernel_;
  const Handle& memory = handles_[step.target] ? *handles_[step.target] : *handles_[0];
  const uint64_t b = step.backing % kernel.backings;
  const Range pages = {step.page * kPageSize, step.count * kPageSize};
  const uint64_t byte = LowBytes(step.value, 1);
  Buffer& buffer = buffers_[step.object];
  Stream& reader = readers_[step.object];
  Stream& writer = writers_[step.object];
  Handle made;
  const auto probe = [&](Access access) { return kernel.Carry(memory, {Transfer::kProbe, access, step.gpa, step.length}); };
  const auto remap = [&](PageState state) { return [&kernel, b, state](uint64_t page) { kernel.Remap(b, page, state); }; };
  const auto nothing = [](uint64_t) {};
  const auto show = [&](Status status) { return outcome.lengths = {LengthOf(buffer)}, status; };
  const auto read = [&](Status status) { return ShowStream(reader, status, outcome); };
  const auto written = [&](Status status) {
    if (writer.on_host) std::ranges::copy(writer.bytes, HostBuffer(outcome, writer.bytes.size()).begin());
    return ShowStream(writer, status, outcome);
  };
  switch (step.kind) {
    case StepKind::kRead: return RunBulk(memory, step, Transfer::kRead, outcome);
    case StepKind::kWrite: return RunBulk(memory, step, Transfer::kWrite, outcome);
    case StepKind::kFill: return kernel.Carry(memory, {Transfer::kFill, Access::kWrite, step.gpa, step.length, {}, byte});
    case StepKind::kReadPlain: return RunPlain(memory, step, Transfer::kRead, outcome);
    case StepKind::kWritePlain: return RunPlain(memory, step, Transfer::kWrite, outcome);
    case StepKind::kCompareExchange: return RunPlain(memory, step, Transfer::kCompareExchange, outcome);
    case StepKind::kProbeReadable: return probe(Access::kRead);
    case StepKind::kProbeWritable: return probe(Access::kWrite);
    case StepKind::kProbeExecutable: return probe(Access::kExecute);
    case StepKind::kProbeGpns: {
      Buffer list;
      for (const uint64_t gpn : step.gpns) list.push_back({0, gpn, 0, kPageSize});
      return CarryBuffer(kernel, memory, {Transfer::kProbe, Access::kRead}, list);
    }
    case StepKind::kFullMapping:
      if (const std::optional<Piece> mapping = FullMapping(kernel, memory)) {
        outcome.number = mapping->length;
        if (mapping->length > 0) outcome.spans = {SpanOf(*mapping)};
      }
      return kOk;
    case StepKind::kIova: outcome.number = Iova(kernel, memory, step.gpa); return kOk;
    case StepKind::kSubrange: return Keep(step, made, Subrange(kernel, memory, step.gpa, step.length, step.Form<ViewForm>() == ViewForm::kPreemptive, made));
    case StepKind::kLockableSubrange: return Keep(step, made, LockableSubrange(kernel, memory, step.gpa, step.length, made));

    case StepKind::kLockGpns:
      return RunLock(memory, step, PagedRange(0, step.gpns.size() * kPageSize, step.gpns), step.Form<LockForm>() == LockForm::kKernel, Spans::kPages, outcome);
    case StepKind::kLockRange: return RunLock(memory, step, PagedRange(step.offset, step.length, step.gpns), true, Spans::kMerged, outcome);
    case StepKind::kUnlock: Unlock(kernel, locks_[step.object]); return kOk;
    case StepKind::kLockedCopy: return RunLockedCopy(step, outcome);
    case StepKind::kSupportsLocking: outcome.number = SupportsLocking(kernel, memory) ? 1 : 0; return kOk;

    case StepKind::kSetBit: kernel.SetBit(b, step.page, step.access, step.Choice<reference::Bit>() == reference::Bit::kSet); return kOk;
    case StepKind::kAllocate: return Carry(kernel, {b, pages, remap(PageState::kRam)});
    case StepKind::kMapZero: return Carry(kernel, {b, pages, remap(PageState::kReadOnly)});
    case StepKind::kUnmap: return Carry(kernel, {b, pages, remap(PageState::kHole)});
    case StepKind::kUnmapBytes: return Carry(kernel, {b, {step.offset, step.length}, remap(PageState::kHole)});
    case StepKind::kMapFile: {
      const PageState state = step.Form<FileForm>() == FileForm::kWritable ? PageState::kRam : PageState::kReadOnly;
      return Carry(kernel, {b, pages, [&](uint64_t page) { kernel.Remap(b, page, state, step.choice + page - step.page); }});
    }
    case StepKind::kMapFileBytes: {
      const auto map = [&](uint64_t page) { kernel.Remap(b, page, PageState::kReadOnly, step.offset / kPageSize + page); };
      const bool valid = step.offset % kPageSize == 0 && step.offset < k2To63 && step.length < k2To63 - step.offset;
      return Carry(kernel, {b, {0, step.length}, map, valid});
    }
    case StepKind::kProtect:
      return Carry(kernel, {b, pages, [&](uint64_t page) { kernel.SetState(b, page, StateOf(step.Choice<Protection>())); }});
    case StepKind::kDecommit: return Carry(kernel, {b, pages, [&](uint64_t page) { kernel.Decommit(b, page); }});
    case StepKind::kAdviseHugePages: return Carry(kernel, {b, pages, nothing, true, false});
    case StepKind::kBindToNode: return Carry(kernel, {b, pages, nothing, step.Choice<Node>() != Node::kBeyond, true, step.Choice<Node>() == Node::kMissing});
    case StepKind::kRevoke: return Carry(kernel, BitsCall::kRevoke, b, AccessesIn(step.choice), step.page, step.count);
    case StepKind::kGrant: return Carry(kernel, BitsCall::kGrant, b, AccessesIn(step.choice), step.page, step.count);
    case StepKind::kWaitUnlocked: return Carry(kernel, BitsCall::kWaitUnlocked, b, {}, step.page, step.count);
    case StepKind::kHold: return step.Form<HoldForm>() == HoldForm::kLock ? HoldBits(kernel, b, step.gpns) : ReleaseBits(kernel, b, step.gpns);
    case StepKind::kTry: return RunTry(step, outcome);
    case StepKind::kForeignFault: outcome.number = 0; return kOk;

    case StepKind::kRangeSet:
    case StepKind::kRangeAppend: RunSetRange(step, buffer, outcome); return show(kOk);
    case StepKind::kRangeSkip:
      if (Fits(buffer, 0, step.length, outcome)) buffer = Cut(buffer, step.length, kMaxUint64);
      return show(kOk);
    case StepKind::kRangeTruncate:
      if (Fits(buffer, 0, step.length, outcome)) buffer = Cut(buffer, 0, step.length);
      return show(kOk);
    case StepKind::kRangeSubrange:
      if (Fits(buffer, step.offset, step.length, outcome)) buffer = Cut(buffer, step.offset, step.length);
      return show(kOk);
    case StepKind::kRangeSplit:
      if (Fits(buffer, 0, step.length, outcome)) {
        const Buffer others = Cut(buffer, step.length, kMaxUint64);
        buffer = Cut(buffer, 0, step.length);
        buffers_[step.slot] = others;
      }
      return show(kOk);
    case StepKind::kRangeIterate: outcome.parts = Iterate(buffer); return show(kOk);
    case StepKind::kRangeRead: return show(RunRange(memory, step, Transfer::kRead, outcome));
    case StepKind::kRangeWrite: return show(RunRange(memory, step, Transfer::kWrite, outcome));
    case StepKind::kRangeFill:
      return show(CarryBuffer(kernel, memory, {Transfer::kFill, Access::kWrite, 0, 0, {}, step.Form<FillForm>() == FillForm::kZero ? 0 : byte}, buffer));

    case StepKind::kReaderOpen: Open(reader, memory, step); return read(kOk);
    case StepKind::kReaderLimit: Limit(reader, step, outcome); return read(kOk);
    case StepKind::kReaderRead: {
      const std::span<uint8_t> host = HostBuffer(outcome, step.length);
      return read(CarryNext(kernel, reader, {Transfer::kRead, Access::kRead, 0, step.length, host}));
    }
    case StepKind::kReaderSkip: return read(Skip(reader, step.length));
    case StepKind::kReaderPlain:
      return read(RunObject(step, Transfer::kRead, 0, [&](const Request& request) { return CarryNext(kernel, reader, request); }, outcome));
    case StepKind::kReaderArray: return read(ReadArray(kernel, reader, step.size, step.length, outcome.data));
    case StepKind::kReaderAll: return read(ReadArray(kernel, reader, 1, Remaining(reader), outcome.data));
    case StepKind::kWriterOpen: Open(writer, memory, step); return written(kOk);
    case StepKind::kWriterLimit: Limit(writer, step, outcome); return written(kOk);
    case StepKind::kWriterWrite: {
      std::vector<uint8_t> host(step.length);
      PutDataPattern(step.value, host);
      return written(CarryNext(kernel, writer, {Transfer::kWrite, Access::kWrite, 0, step.length, host}));
    }
    case StepKind::kWriterFill: return written(CarryNext(kernel, writer, {Transfer::kFill, Access::kWrite, 0, step.length, {}, byte}));
    case StepKind::kWriterPlain:
      return written(RunObject(step, Transfer::kWrite, 0, [&](const Request& request) { return CarryNext(kernel, writer, request); }, outcome));

    case StepKind::kMake: return RunMake(step, outcome);
    case StepKind::kCreate: {
      const auto broken = step.Choice<Promise>();
      return Keep(step, made, step.Form<CreateForm>() == CreateForm::kRegions ? CreateMultiRegion(kernel, step.bytes, b, broken, made) : Create(kernel, b, broken, made));
    }
    case StepKind::kSharing:
      outcome.files = Files(kernel, memory);
      if (!outcome.files.empty() && outcome.files[0].file >= kMaxBackings) {
        outcome.number = kSeals;
        outcome.data = kernel.Load(Cut(memory.parts[0], 0, std::min(kShownBytes, memory.parts[0].length)));
      }
      return kOk;
    case StepKind::kInnerBuffer: return RunInnerBuffer(step, outcome);
    case StepKind::kMove:
      if (step.target == 0 || step.target == step.slot || !handles_[step.target]) return kOk;
      handles_[step.slot] = std::exchange(handles_[step.target], Handle{{}, true, kEmptyName});
      return kOk;
    case StepKind::kStarve: starved_ = step.Choice<Starving>() == Starving::kOn; return kOk;
  }
  return kOk;
}

Status Model::Keep(const Step& step, const Handle& made, Status status) {
  if (!status) handles_[step.slot] = made;
  return status;
}

// A host buffer of `host_bytes`, or in guest memory if the step says so and it can be there.
Status Model::RunCopy(const Handle& memory, const Step& step, Transfer transfer, std::span<const PagePart> buffer, uint64_t host_bytes, Outcome& outcome) {
  Request request = {transfer, AccessOf(transfer)};
  const uint64_t length = LengthOf(buffer);
  if (step.within != 0 && step.HostBacking() < kernel_->backings && !vanishes_ && host_bytes == length) {
    const Piece within = {step.HostBacking(), step.HostAddress() + step.choice, 0, length};
    if (kernel_->IsPlainRam(within)) return CarryBufferWithin(*kernel_, memory, request, buffer, within);
  }
  request.host = HostBuffer(outcome, host_bytes);
  if (transfer == Transfer::kWrite) PutDataPattern(step.value, request.host);
  if (host_bytes != length) return Told(Error{ErrorKind::kInvalidArgument}, OperationOf(transfer), std::nullopt, memory.name);
  return CarryBuffer(*kernel_, memory, request, buffer);
}

Status Model::RunBulk(const Handle& memory, const Step& step, Transfer transfer, Outcome& outcome) {
  const PagePart all = {0, 0, step.gpa, step.length};
  return Told(RunCopy(memory, step, transfer, {&all, 1}, step.length, outcome), OperationOf(transfer), Range{step.gpa, step.length}, memory.name);
}

Status Model::RunRange(const Handle& memory, const Step& step, Transfer transfer, Outcome& outcome) {
  const Buffer& buffer = buffers_[step.object];
  return RunCopy(memory, step, transfer, buffer, HostLength(step.Choice<BufferSize>(), LengthOf(buffer)), outcome);
}

// `size` bytes of the step's value, or what is read there.
Status Model::RunObject(const Step& step, Transfer transfer, uint64_t gpa, const std::function<Status(Request)>& carry, Outcome& outcome) {
  std::array<uint8_t, 8> object = {};
  for (uint64_t i = 0; i < step.size && transfer != Transfer::kRead; ++i) object[i] = ByteOf(step.value, i);
  const std::span<uint8_t> host = std::span(object).first(step.size);
  const uint64_t given = LittleEndian(host);
  if (Status status = carry({transfer, AccessOf(transfer), gpa, step.size, host, LowBytes(step.desired, step.size)})) return status;
  if (transfer != Transfer::kWrite) outcome.number = LittleEndian(host);
  outcome.swapped = transfer == Transfer::kCompareExchange && LittleEndian(host) == given;
  return kOk;
}

Status Model::RunPlain(const Handle& memory, const Step& step, Transfer transfer, Outcome& outcome) {
  constexpr uint64_t kOddSize = 3;
  const auto sizes = step.Choice<ExchangeSizes>();
  const Range range = {step.gpa, sizes == ExchangeSizes::kOdd ? kOddSize : step.size};
  if (sizes != ExchangeSizes::kExact) return Told(Error{ErrorKind::kInvalidArgument}, OperationOf(transfer), range, memory.name);
  const auto carry = [&](Request request) {
    request.whole = true;
    return kernel_->Carry(memory, request);
  };
  return RunObject(step, transfer, step.gpa, carry, outcome);
}

Status Model::RunLock(const Handle& memory, const Step& step, const std::optional<Buffer>& list, bool kernel_access, Spans spans, Outcome& outcome) {
  Lock& lock = locks_[step.object];
  Unlock(*kernel_, lock);
  outcome.refused = !list;
  if (!list) return kOk;
  Status status = TakeLock(*kernel_, memory, *list, step.access, kernel_access, spans, lock);
  for (const Piece& span : lock.spans) outcome.spans.push_back(SpanOf(span));
  return status;
}

Status Model::RunLockedCopy(const Step& step, Outcome& outcome) {
  const Lock& lock = locks_[step.object];
  if (lock.spans.empty()) return kOk;
  const Piece& span = lock.spans[step.count % lock.spans.size()];
  const Piece& next = lock.spans[(step.count + 1) % lock.spans.size()];
  const auto copy = step.Choice<Copy>();
  if (copy == Copy::kAt) {
    if (step.offset < span.length) outcome.number = LockedByte(*kernel_, lock, Cut(span, step.offset, 1), ByteOf(step.value, 0));
    return kOk;
  }
  Request request = {TransferOf(copy), AccessOf(TransferOf(copy)), 0, step.length, {}, step.value};
  const bool between = step.Form<HostForm>() == HostForm::kNextSpan && next.backing < kMaxBackings && step.length <= next.length && kernel_->IsPlainRam(Cut(next, 0, step.length));
  if (!between && request.transfer != Transfer::kFill) request.host = HostBuffer(outcome, step.length);
  if (!between && request.transfer == Transfer::kWrite) PutDataPattern(step.value, request.host);
  return CopyLocked(*kernel_, lock, span, step.offset, request, between ? &next : nullptr);
}

void Model::RunSetRange(const Step& step, Buffer& buffer, Outcome& outcome) {
  const bool append = step.kind == StepKind::kRangeAppend;
  const uint64_t member = buffer.empty() ? 0 : buffer.back().member + 1;
  const std::optional<Buffer> range = PagedRange(step.offset, step.length, step.gpns, member);
  outcome.refused = !range || (append && Iterate(buffer).size() == kMembers);
  if (outcome.refused) return;
  if (!append) buffer.clear();
  buffer.insert(buffer.end(), range->begin(), range->end());
}

void Model::Open(Stream& stream, const Handle& memory, const Step& step) {
  stream = {};
  stream.on_host = step.Form<StreamForm>() == StreamForm::kHost;
  if (stream.on_host) {
    stream.bytes.assign(step.length, kUntouched);
    if (step.kind == StepKind::kReaderOpen) PutDataPattern(step.value, stream.bytes);
  } else {
    stream.memory = memory;
    stream.rest = buffers_[step.object];
  }
}

Status Model::RunMake(const Step& step, Outcome& outcome) {
  const auto what = step.Choice<Made>();
  Handle made;
  const auto refused_page = step.Form<SparseForm>() == SparseForm::kGuarded ? std::optional(step.value) : std::nullopt;
  if (Status status = Make(*kernel_, what, step.bytes, refused_page, made)) return status;
  outcome.number = what == Made::kBitmap ? step.bytes : 0;
  if (what != Made::kBitmap) handles_[step.slot] = made;
  return kOk;
}

Status Model::RunInnerBuffer(const Step& step, Outcome& outcome) {
  if (!handles_[step.target] || !handles_[step.target]->owns_heap) return kOk;
  const Piece heap = handles_[step.target]->parts[0];
  if (step.Choice<Inner>() != Inner::kShared && IsShared(heap.backing)) return kOk;
  outcome.number = heap.length;
  if (heap.length > 0) kernel_->Store(heap.backing, 0, ByteOf(step.value, 0));
  if (step.Choice<Inner>() == Inner::kTake) handles_[step.target] = Handle{{}, true, kEmptyName};
  return kOk;
}

bool Model::IsShared(uint64_t memory) const {
  uint64_t users = 0;
  const auto count = [&](const std::vector<Piece>& parts) { users += !parts.empty() && parts[0].backing == memory ? 1 : 0; };
  for (const auto& handle : handles_)
    if (handle) count(handle->parts);
  for (const Stream& stream : readers_) count(stream.memory.parts);
  for (const Stream& stream : writers_) count(stream.memory.parts);
  for (const Lock& lock : locks_) count(lock.pages);
  return users > 1;
}

Status Model::RunTry(const Step& step, Outcome& outcome) {
  const auto trying = step.Choice<Trying>();
  const Transfer transfer = TransferOf(trying);
  const bool whole = trying == Trying::kRead || trying == Trying::kWrite || trying == Trying::kExchange;
  const uint64_t length = whole ? step.size : step.length;
  const uint64_t room = kMaxPages * kPageSize - step.page * kPageSize;
  if (step.offset > room || length > room - step.offset) return kOk;
  const uint64_t start = step.page * kPageSize + step.offset;
  if (transfer == Transfer::kCompareExchange && start % length != 0) return kOk;
  const auto carry = [&](Request request) {
    request.whole = whole;
    return Try(*kernel_, request, step.backing % kernel_->backings);
  };
  if (whole) return RunObject(step, transfer, start, carry, outcome);
  Request request = {transfer, AccessOf(transfer), start, length, {}, step.value};
  if (transfer != Transfer::kFill) request.host = HostBuffer(outcome, length);
  if (transfer == Transfer::kWrite) PutDataPattern(step.value, request.host);
  return length == 0 ? kOk : carry(request);
}

}  // namespace reference
