// A plugin of the object matrix. Linked with a static copy of the library, with the shared one, or with neither.

#include "object.h"

extern "C" const ObjectFunctions kPlugin = {Use, Handle, Loop};
