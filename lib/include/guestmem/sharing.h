// SharedFile: which file holds which part of guest memory, so that another process can map the same bytes.
//
//   for (const guestmem::SharedFile& file : ram->sharing()) {
//     send(socket, file.fd, {file.gpa, file.size, file.file_offset});   // SCM_RIGHTS; the receiver maps fd at file_offset
//   }
//
// When not: to take memory away again. Clearing access bits does not reach a process that has mapped the file.
// Threads: a value. Signal context: no.

#ifndef GUESTMEM_SHARING_H_
#define GUESTMEM_SHARING_H_

#include <cstdint>

namespace guestmem {

// Bytes [gpa, gpa + size) of the memory are bytes [file_offset, file_offset + size) of the file.
struct SharedFile {
  int fd = -1;               // owned by the backing: duplicate it to keep it beyond the backing's life
  uint64_t file_offset = 0;  // bytes
  uint64_t gpa = 0;          // bytes, in the coordinates of what was asked (a backing: its own addresses)
  uint64_t size = 0;         // bytes
  bool operator==(const SharedFile&) const = default;
};

}  // namespace guestmem

#endif  // GUESTMEM_SHARING_H_
