// A program of the object matrix (object_matrix_test.cc): loads plugins, uses them, unloads them, ends. Built without the
// library, with a static copy (with and without -rdynamic) and with the shared one. Exit status 0: all was as it should be.
//
// usage: program steps HANDLER FLAGS STEPS PLUGIN...    loads and unloads in random order, uses what is there
//        program reload HANDLER FLAGS ROUNDS PLUGIN     loads, uses and unloads one
//        program end HANDLER HOW PLUGIN...              ends while threads fault in the program and in every plugin
// HANDLER: lib (the library's) or own (the program's, which asks TryHandleFault); FLAGS: dlopen's, a number.

#include <dirent.h>
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <future>
#include <string>
#include <thread>
#include <vector>

#if defined(OBJECTS_WITH_LIBRARY)
#include "object.h"
#else
#include "interface.h"
#endif

namespace {

constexpr size_t kPage = 4096;
std::byte* g_good;
std::byte* g_hole;
bool g_install;

#define CHECK(condition, ...)                                         \
  do {                                                                \
    if (!(condition)) {                                               \
      std::fprintf(stderr, "%d: not so: %s: ", __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                              \
      std::fputc('\n', stderr);                                       \
      _exit(9);                                                       \
    }                                                                 \
  } while (false)

struct Plugin {
  const char* path;
  void* handle = nullptr;
  const ObjectFunctions* functions = nullptr;
};
std::vector<Plugin> g_plugins;
using HandleFunction = int (*)(int, siginfo_t*, void*);
std::array<std::atomic<HandleFunction>, 20> g_handles;  // the program's own; then a plugin's each

void OwnHandler(int signal, siginfo_t* info, void* context) {
  for (const auto& handle : g_handles) {
    const HandleFunction function = handle;
    if (function != nullptr && function(signal, info, context) != 0) {
      return;
    }
  }
  static const char kText[] = "an access's fault was not recovered\n";
  (void)!write(2, kText, sizeof kText - 1);
  _exit(77);
}

void Load(size_t i, int flags) {
  Plugin& plugin = g_plugins[i];
  plugin.handle = dlopen(plugin.path, flags);
  CHECK(plugin.handle != nullptr, "%s", dlerror());
  plugin.functions = static_cast<const ObjectFunctions*>(dlsym(plugin.handle, "kPlugin"));
  CHECK(plugin.functions != nullptr, "%s", dlerror());
  g_handles[i + 1] = plugin.functions->handle;
}
void Unload(size_t i) {
  g_handles[i + 1] = nullptr;
  CHECK(dlclose(g_plugins[i].handle) == 0, "%s", dlerror());
  g_plugins[i].handle = nullptr;
}

void UseAll(const char* when) {
#if defined(OBJECTS_WITH_LIBRARY)
  const unsigned own = Use(g_good, g_hole, g_install);
  CHECK(own == 0, "%u in the program, %s", own, when);
#endif
  for (const Plugin& plugin : g_plugins) {
    if (plugin.handle != nullptr) {
      const unsigned wrong = plugin.functions->use(g_good, g_hole, g_install);
      CHECK(wrong == 0, "%u in %s, %s", wrong, plugin.path, when);
    }
  }
}

// A child uses everything, and ends as a process does.
void ForkAndUse() {
  const pid_t child = fork();
  if (child == 0) {
    UseAll("in a fork child");
    exit(0);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0, "a fork child ended with %#x", status);
}

size_t CountLines(const char* path) {
  std::FILE* const file = std::fopen(path, "r");
  size_t lines = 0;
  for (int c; (c = std::fgetc(file)) != EOF;) {
    lines += c == '\n';
  }
  std::fclose(file);
  return lines;
}

// What a process has only so much of.
struct Used {
  size_t mappings = CountLines("/proc/self/maps");
  size_t files = 0;
  size_t keys = PTHREAD_KEYS_MAX;
  size_t heap = mallinfo2().uordblks;
  Used() {
    DIR* const folder = opendir("/proc/self/fd");
    while (readdir(folder) != nullptr) {
      ++files;
    }
    closedir(folder);
    std::vector<pthread_key_t> free;
    for (pthread_key_t key; pthread_key_create(&key, nullptr) == 0;) {
      free.push_back(key);
    }
    for (const pthread_key_t key : free) {
      pthread_key_delete(key);
    }
    keys -= free.size();
  }
};
void ExpectSame(const Used& before, const Used& after, size_t heap_slack) {
  CHECK(after.mappings <= before.mappings + 2, "mappings: %zu, then %zu", before.mappings, after.mappings);
  CHECK(after.files == before.files, "files: %zu, then %zu", before.files, after.files);
  CHECK(after.keys == before.keys, "thread-specific keys: %zu, then %zu", before.keys, after.keys);
  CHECK(after.heap <= before.heap + heap_slack, "bytes of heap: %zu, then %zu", before.heap, after.heap);
}

// A thread uses a plugin, and ends when that is gone.
void UnloadUnderAThread(size_t i) {
  std::promise<void> used, gone;
  std::thread thread([&] {
    CHECK(g_plugins[i].functions->use(g_good, g_hole, g_install) == 0, "in a thread");
    used.set_value();
    gone.get_future().wait();
  });
  used.get_future().wait();
  Unload(i);
  gone.set_value();
  thread.join();
}

int Steps(int flags, int steps) {
  uint32_t random = 1;
  std::vector<size_t> all;
  for (int step = 0; step < steps; ++step) {
    random = random * 1664525 + 1013904223;
    const size_t i = (random >> 16) % g_plugins.size();
    if (g_plugins[i].handle == nullptr) {
      Load(i, flags);
    } else if (step % 3 == 0) {
      UnloadUnderAThread(i);
    } else {
      Unload(i);
    }
    UseAll("between steps");
    if (step % 8 == 5) {
      ForkAndUse();
    }
  }
  return 0;
}

int Reload(int flags, int rounds) {
  const auto some = [&](int count) {
    for (int i = 0; i < count; ++i) {
      Load(0, flags);
      if (i % 500 == 0) {
        UseAll("between reloads");
      }
      Unload(0);
    }
  };
  some(rounds / 10);
  const Used before;
  some(rounds - rounds / 10);
  ExpectSame(before, Used(), 16 << 10);
  UseAll("after reloads");
  return 0;
}

int End(const std::string& how) {
  static std::atomic<uint64_t> faults[20];
  size_t loops = 0;
  const auto start = [&](auto loop) { std::thread(loop, g_hole, &faults[loops++]).detach(); };
#if defined(OBJECTS_WITH_LIBRARY)
  start(Loop);
#endif
  size_t last = g_plugins.size();
  if (how == "unload-at-exit") {
    --last;  // nothing runs in it
    std::atexit([] { Unload(g_plugins.size() - 1); });
  }
  for (size_t i = 0; i < last; ++i) {
    start(g_plugins[i].functions->loop);
  }
  for (size_t i = 0; i < loops; ++i) {
    while (faults[i] < 20) {
      std::this_thread::yield();
    }
  }
  if (how == "fork") {
    const pid_t child = fork();
    if (child == 0) {
      exit(0);
    }
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child && status == 0, "a fork child ended with %#x", status);
  } else if (how == "quick_exit") {
    quick_exit(0);
  } else if (how == "_exit") {
    _exit(0);
  } else if (how == "exit-in-thread") {
    std::thread([] { exit(0); }).join();
  } else if (how == "pthread_exit") {
    std::thread([main = pthread_self()] {
      pthread_join(main, nullptr);
      exit(0);
    }).detach();
    pthread_exit(nullptr);
  } else {
    CHECK(how == "return" || how == "unload-at-exit", "unknown end %s", how.c_str());
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  CHECK(argc >= 4, "usage: see the file");
  const rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  alarm(100);  // a deadlock must end too
  const std::string mode = argv[1];
  g_install = std::strcmp(argv[2], "lib") == 0;
  auto* const memory = static_cast<std::byte*>(mmap(nullptr, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  CHECK(memory != MAP_FAILED && mprotect(memory + 2 * kPage, kPage, PROT_NONE) == 0, "no memory");
  g_good = memory;
  g_hole = memory + 2 * kPage;
  if (!g_install) {
    struct sigaction action = {};
    action.sa_sigaction = OwnHandler;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    CHECK(sigaction(SIGSEGV, &action, nullptr) == 0 && sigaction(SIGBUS, &action, nullptr) == 0, "sigaction");
  }
#if defined(OBJECTS_WITH_LIBRARY)
  g_handles[0] = Handle;
#endif
  const int first = mode == "end" ? 4 : 5;
  for (int i = first; i < argc; ++i) {
    g_plugins.push_back({argv[i]});
  }
  if (mode == "steps") {
    return Steps(std::atoi(argv[3]), std::atoi(argv[4]));
  }
  if (mode == "reload") {
    return Reload(std::atoi(argv[3]), std::atoi(argv[4]));
  }
  for (size_t i = 0; i < g_plugins.size(); ++i) {
    Load(i, RTLD_NOW | RTLD_LOCAL);
  }
  UseAll("before the end");
  return End(argv[3]);
}
