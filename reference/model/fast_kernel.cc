#include "reference/model/fast_kernel.h"

#include <algorithm>
#include <cstring>

namespace reference::model {

void FastKernel::StartBytes() {
  static const auto kNew = [] {
    std::array<std::array<std::array<uint8_t, kMaxPages * kPageSize>, 2>, kMaxBackings> bytes;
    for (uint64_t b = 0; b < kMaxBackings; ++b)
      for (uint64_t i = 0; i < kMaxPages * kPageSize; ++i) bytes[b][0][i] = MappedPattern(b, i), bytes[b][1][i] = SlowPattern(b, i);
    return bytes;
  }();
  for (uint64_t b = 0; b < backings; ++b) {
    for (uint64_t page = 0; page < kMaxPages; ++page) {
      const uint64_t at = page * kPageSize;
      if (!is_new_[b][page][0]) std::copy_n(&kNew[b][0][at], kPageSize, &memories[b].mapped[at]);
      if (!is_new_[b][page][1]) std::copy_n(&kNew[b][1][at], kPageSize, &memories[b].slow[at]);
      is_new_[b][page] = {true, true};
    }
  }
  for (uint64_t i = 0; i < file_.size() && !file_is_new_; ++i) file_[i] = FilePattern(i);
  file_is_new_ = true;
}

void FastKernel::ZeroPage(uint64_t backing, uint64_t page) {
  if (backing < kMaxBackings) is_new_[backing][page][0] = false;
  Kernel::ZeroPage(backing, page);
}

void FastKernel::AnnounceStore(uint64_t backing, uint64_t page, bool slow) {
  if (backing < kMaxBackings) is_new_[backing][page][slow ? 1 : 0] = false;
  if (memories[backing].file_page[page]) file_is_new_ = false;
  Kernel::AnnounceStore(backing, page, slow);
}

void FastKernel::Move(const Request& request, const Piece& piece, uint64_t count, bool slow) {
  if (request.transfer == Transfer::kProbe) return;
  if (request.transfer == Transfer::kCompareExchange) return Kernel::Move(request, piece, count, slow);
  const uint64_t done = piece.gpa - request.gpa;
  for (uint64_t moved = 0, here = 0; moved < count; moved += here) {
    const uint64_t address = piece.address + moved;
    here = std::min(count - moved, kPageSize - address % kPageSize);
    if (request.transfer != Transfer::kRead) AnnounceStore(piece.backing, address / kPageSize, slow);
    uint8_t* const guest = &ByteAt(piece.backing, address, slow);
    switch (request.transfer) {
      case Transfer::kRead: std::memcpy(&request.host[done + moved], guest, here); break;
      case Transfer::kWrite: std::memcpy(guest, &request.host[done + moved], here); break;
      case Transfer::kFill: std::memset(guest, ByteOf(request.value, 0), here); break;
      case Transfer::kCompareExchange:
      case Transfer::kProbe: break;
    }
  }
}

}  // namespace reference::model
