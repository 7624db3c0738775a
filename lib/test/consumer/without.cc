// A program without the library: a plugin brings it along, uses it and goes. The fault handler is in force for good, so it must
// still be there, and pass on what isn't its own.

#include <dlfcn.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>

namespace {
bool g_plugin_gone = false;  // a fault before that is one that the plugin should have recovered
}

int main() {
  struct sigaction own = {};
  own.sa_handler = [](int) { _exit(g_plugin_gone ? 0 : 1); };
  sigaction(SIGSEGV, &own, nullptr);
  void* const plugin = dlopen(PLUGIN, RTLD_NOW | RTLD_LOCAL);
  if (plugin == nullptr) {
    return std::printf("%s\n", dlerror()), 1;
  }
  const auto use = reinterpret_cast<const char* (*)()>(dlsym(plugin, "UseOwnMemory"));
  const char* const wrong = use == nullptr ? "no UseOwnMemory" : use();
  std::printf("program without the library: %s\n", wrong == nullptr ? "ok" : wrong);
  std::fflush(stdout);
  dlclose(plugin);
  g_plugin_gone = true;
  if (wrong == nullptr) {
    *static_cast<volatile char*>(nullptr) = 1;
  }
  return 1;
}
