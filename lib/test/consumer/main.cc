#include <dlfcn.h>

#include "guestmem/sparse_mapping.h"
#include "use.h"

int main(int argc, char** argv) {
  auto ram = guestmem::SparseMapping::Create(2 * guestmem::kPageSize).value();
  if (!ram->Allocate(0, guestmem::kPageSize).ok()) {
    return std::puts("no memory"), 1;
  }
  const auto memory = guestmem::GuestMemory::Create("consumer", ram).value();
  const auto report = [](const char* who, const char* wrong) {
    std::printf("%s: %s\n", who, wrong == nullptr ? "ok" : wrong);
    return wrong == nullptr;
  };
  bool good = report("program", Use(memory, 0x11111111));
  for (int i = 0; i < 2; ++i) {  // and again after it has been unloaded
    void* const plugin = dlopen(argc > 1 ? argv[1] : PLUGIN, RTLD_NOW | RTLD_LOCAL);
    if (plugin == nullptr) {
      return std::printf("%s\n", dlerror()), 1;
    }
    const auto use = reinterpret_cast<const char* (*)(const guestmem::GuestMemory*)>(dlsym(plugin, "UseInPlugin"));
    good &= use != nullptr && report("plugin", use(&memory));
    dlclose(plugin);
    good &= report("program, plugin unloaded", Use(memory, 0x33333333));
  }
  return good ? 0 : 1;
}
