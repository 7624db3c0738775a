// What the host does to a world between accesses: bits, mappings, the file; and what a test may look at.

#include <algorithm>

#include "reference/model/model.h"
#include "reference/model/outcome.h"

namespace reference {

void Model::ChangeMapping(const Step& step, Range range, Outcome& outcome) {
  constexpr uint64_t kSize = kMaxPages * kPageSize;
  constexpr uint64_t kLargestFile = kMaxUint64 / 2;
  const bool whole = range.start % kPageSize == 0 && range.length % kPageSize == 0;
  const bool inside = range.start <= kSize && range.length <= kSize - range.start;
  if (!whole || !inside) {
    Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
    return;
  }
  if (range.length == 0) return;
  const bool no_such_offset = step.kind == StepKind::kMapFileBytes &&
                              (step.offset % kPageSize != 0 || step.offset > kLargestFile || range.length > kLargestFile - step.offset);
  const bool no_node = step.kind == StepKind::kBindToNode && step.choice == 2;
  if (no_such_offset || no_node) {
    Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
    return;
  }
  Memory& memory = memories_[step.backing % backings_];
  for (uint64_t page = range.start / kPageSize; page < (range.start + range.length) / kPageSize; ++page) {
    if (!memory.setup.sparse || memory.locks[page] == 0 || step.kind == StepKind::kAdviseHugePages) continue;
    outcome.gpn = page;
    Fail(outcome, ErrorKind::kLocked, std::nullopt);
    return;
  }
  if (!HostCall()) {
    Fail(outcome, HostFailure(), std::nullopt);
    return;
  }
  if (step.kind == StepKind::kBindToNode && step.choice == 1) {
    Fail(outcome, ErrorKind::kInvalidArgument, std::nullopt);
    return;
  }
  for (uint64_t i = 0; i < range.length / kPageSize; ++i) ChangePage(memory, range.start / kPageSize + i, step);
}

void Model::ChangePage(Memory& memory, uint64_t page, const Step& step) {
  constexpr std::array<PageState, 3> kProtections = {PageState::kHole, PageState::kReadOnly, PageState::kRam};
  if (step.kind == StepKind::kProtect) {
    SetState(memory, page, kProtections[step.choice % kProtections.size()]);
    return;
  }
  if (step.kind == StepKind::kAdviseHugePages || step.kind == StepKind::kBindToNode) return;
  if (step.kind == StepKind::kDecommit) {
    if (memory.mapped.ShowsOwn(page)) ZeroPage(memory, page);
    return;
  }
  memory.mapped.Announce(page);
  memory.mapped.ShowOwn(page);
  ZeroPage(memory, page);
  switch (step.kind) {
    case StepKind::kAllocate: memory.state[page] = PageState::kRam; break;
    case StepKind::kMapZero: memory.state[page] = PageState::kReadOnly; break;
    case StepKind::kMapFile:
    case StepKind::kMapFileBytes: {
      const bool bytes = step.kind == StepKind::kMapFileBytes;
      const uint64_t file_page = bytes ? step.offset / kPageSize + page : step.choice + page - step.page;
      memory.state[page] = !bytes && step.form == 1 ? PageState::kRam : PageState::kReadOnly;
      if (file_page >= kFilePages)
        memory.state[page] = PageState::kBus;
      else
        ShowFile(memory, page, file_page);
      break;
    }
    default: memory.state[page] = PageState::kHole; break;
  }
}

void Model::ShowFile(Memory& memory, uint64_t page, uint64_t file_page) {
  memory.mapped.shown[page] = &file_[file_page * kPageSize];
  file_shown_ = true;
}

void Model::SetState(Memory& memory, uint64_t page, PageState state) {
  if (memory.state[page] != PageState::kBus) memory.state[page] = state;
}

void Model::ZeroPage(Memory& memory, uint64_t page) {
  std::ranges::fill(memory.mapped.ToStore(page * kPageSize, kPageSize), uint8_t{0});
}

std::span<const uint8_t> Model::MappedPage(uint64_t backing, uint64_t page) const {
  return {memories_[backing].mapped.shown[page], kPageSize};
}

std::span<const uint8_t> Model::SlowPage(uint64_t backing, uint64_t page) const {
  return {memories_[backing].slow.shown[page], kPageSize};
}

PageState Model::State(uint64_t backing, uint64_t page) const { return memories_[backing].state[page]; }

bool Model::Bit(uint64_t backing, uint64_t page, Access access) const {
  return memories_[backing].allowed[static_cast<size_t>(access)][page];
}

}  // namespace reference
