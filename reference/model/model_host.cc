// What the host does to a world between accesses: bits, mappings, the file; and what a test may look at.

#include "reference/model/model.h"

namespace reference {
namespace {

constexpr int kInvalidCode = 3;  // absl's INVALID_ARGUMENT

}  // namespace

void Model::ChangeMapping(const Step& step, Outcome& outcome) {
  const bool inside = step.page + step.count <= static_cast<int>(kMaxPages);
  if (inside && step.count == 0) return;
  if (!inside || !HostCall()) {
    outcome.ok = false;
    outcome.kind = inside ? ErrorKind::kResourceExhausted : ErrorKind::kInvalidArgument;
    outcome.code = inside ? kExhaustedCode : kInvalidCode;
    return;
  }
  Memory& memory = memories_[step.backing % memories_.size()];
  for (uint64_t page = step.page; page < uint64_t{step.page} + step.count; ++page) ChangePage(memory, page, step);
}

void Model::ChangePage(Memory& memory, uint64_t page, const Step& step) {
  constexpr std::array<PageState, 3> kProtections = {PageState::kHole, PageState::kReadOnly, PageState::kRam};
  if (step.kind == StepKind::kProtect) {
    SetState(memory, page, kProtections[step.choice % kProtections.size()]);
    return;
  }
  if (step.kind == StepKind::kDecommit) {
    if (memory.mapped.ShowsOwn(page)) ZeroPage(memory, page);
    return;
  }
  memory.mapped.ShowOwn(page);
  ZeroPage(memory, page);
  switch (step.kind) {
    case StepKind::kAllocate: memory.state[page] = PageState::kRam; break;
    case StepKind::kMapZero: memory.state[page] = PageState::kReadOnly; break;
    case StepKind::kMapFile: {
      const uint64_t file_page = step.choice + page - step.page;
      memory.state[page] = step.form == 1 ? PageState::kRam : PageState::kReadOnly;
      if (file_page >= kFilePages)
        memory.state[page] = PageState::kBus;
      else
        memory.mapped.shown[page] = &file_[file_page * kPageSize];
      break;
    }
    default: memory.state[page] = PageState::kHole; break;
  }
}

void Model::SetState(Memory& memory, uint64_t page, PageState state) {
  if (memory.state[page] != PageState::kBus) memory.state[page] = state;
}

void Model::ZeroPage(Memory& memory, uint64_t page) {
  for (uint64_t i = 0; i < kPageSize; ++i) memory.mapped[page * kPageSize + i] = 0;
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
