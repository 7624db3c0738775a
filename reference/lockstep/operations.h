// Each operation as the calls that a program would make, written once and for two: Engine carries them out (engine.h), Printer
// writes them as C++ with what the model expects of them (printer.h).

#ifndef GUESTMEM_REFERENCE_LOCKSTEP_OPERATIONS_H_
#define GUESTMEM_REFERENCE_LOCKSTEP_OPERATIONS_H_

#include "reference/model/vocabulary.h"

namespace reference {

template <typename Side>
void Perform(Side& side, const Step& step);

}  // namespace reference

#endif  // GUESTMEM_REFERENCE_LOCKSTEP_OPERATIONS_H_
