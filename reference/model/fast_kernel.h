// The kernel with bulk accesses page by page, and with a start that restores what was stored to alone: for fuzzing, where the bytes'
// turns would cost two thirds of all executions. proptest/kernel_property_test.cc holds it to the plain one.

#ifndef GUESTMEM_REFERENCE_MODEL_FAST_KERNEL_H_
#define GUESTMEM_REFERENCE_MODEL_FAST_KERNEL_H_

#include <array>
#include <cstdint>

#include "reference/model/kernel.h"

namespace reference::model {

class FastKernel final : public Kernel {
 public:
  using Kernel::Kernel;

 private:
  void StartBytes() override;
  void ZeroPage(uint64_t backing, uint64_t page) override;
  void AnnounceStore(uint64_t backing, uint64_t page, bool slow) override;
  void Move(const Request& request, const Piece& piece, uint64_t count, bool slow) override;

  // As at the start of a world: all of the file; a page's mapped and slow bytes.
  bool file_is_new_ = false;
  std::array<std::array<std::array<bool, 2>, kMaxPages>, kMaxBackings> is_new_ = {};
};

}  // namespace reference::model

#endif  // GUESTMEM_REFERENCE_MODEL_FAST_KERNEL_H_
