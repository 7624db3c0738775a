// Recovery in several linked objects at once: this executable, a shared library, and a plugin that comes and goes.

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "guestmem/sparse_mapping.h"
#include "objects_object.h"
#include "pages.h"

namespace guestmem {
namespace {

using test::kAllInline;

class Objects : public testing::Test {
 protected:
  Objects()
      : pages_(1, 1, test::Hole::kInaccessible),
        memory_(GuestMemory::Create("ram", SparseMapping::Create(kPageSize).value()).value()) {}

  struct Plugin {
    void* handle;
    test::FaultFunction fault;
  };
  static Plugin Load() {
    void* const handle = dlopen(GUESTMEM_PLUGIN, RTLD_NOW | RTLD_LOCAL);
    EXPECT_NE(handle, nullptr) << dlerror();
    if (handle == nullptr) {
      return {nullptr, nullptr};
    }
    // Safe because objects_plugin.cc defines it with this type.
    return {handle, reinterpret_cast<test::FaultFunction>(dlsym(handle, "ObjectsPluginFault"))};
  }
  static bool IsLoaded() {
    void* const handle = dlopen(GUESTMEM_PLUGIN, RTLD_NOW | RTLD_NOLOAD);
    return handle != nullptr && dlclose(handle) == 0;
  }

  const test::Pages pages_;
  const GuestMemory memory_;
};

TEST_F(Objects, TheExecutableRecoversItsInlineAccesses) {
  EXPECT_EQ(test::FaultInline(pages_.hole(), memory_), kAllInline);
}

TEST_F(Objects, TheSharedLibraryRecoversItsInlineAccesses) {
  EXPECT_EQ(ObjectsLibFault(pages_.hole(), &memory_), kAllInline);
}

TEST_F(Objects, ThePluginRecoversItsInlineAccesses) {
  const Plugin plugin = Load();
  ASSERT_NE(plugin.fault, nullptr);
  EXPECT_EQ(plugin.fault(pages_.hole(), &memory_), kAllInline);
  EXPECT_EQ(dlclose(plugin.handle), 0);
}

TEST_F(Objects, EachRunsItsOwnCopyOfTheInlineCode) {
  const Plugin plugin = Load();
  ASSERT_NE(plugin.fault, nullptr);
  Dl_info executable, library, loaded;
  ASSERT_NE(dladdr(reinterpret_cast<void*>(&test::FaultInline), &executable), 0);
  ASSERT_NE(dladdr(dlsym(RTLD_DEFAULT, "ObjectsLibFault"), &library), 0);
  ASSERT_NE(dladdr(reinterpret_cast<void*>(plugin.fault), &loaded), 0);
  EXPECT_NE(executable.dli_fbase, library.dli_fbase);
  EXPECT_NE(executable.dli_fbase, loaded.dli_fbase);
  EXPECT_NE(library.dli_fbase, loaded.dli_fbase);
  EXPECT_EQ(dlclose(plugin.handle), 0);
}

TEST_F(Objects, AnUnloadedPluginTakesOnlyItsOwnTableAlong) {
  for (int round = 0; round < 50; ++round) {
    const Plugin plugin = Load();
    ASSERT_NE(plugin.fault, nullptr);
    ASSERT_EQ(plugin.fault(pages_.hole(), &memory_), kAllInline) << round;
    ASSERT_EQ(ObjectsLibFault(pages_.hole(), &memory_), kAllInline) << round;
    ASSERT_EQ(dlclose(plugin.handle), 0);
    ASSERT_FALSE(IsLoaded()) << "the plugin was not unloaded: this test says nothing";
    ASSERT_EQ(test::FaultInline(pages_.hole(), memory_), kAllInline) << round;
    ASSERT_EQ(ObjectsLibFault(pages_.hole(), &memory_), kAllInline) << round;
  }
}

TEST_F(Objects, FaultsElsewhereAreRecoveredWhileAPluginComesAndGoes) {
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> rounds{0}, wrong{0};
  std::thread other([&] {
    while (!stop.load(std::memory_order_relaxed)) {
      wrong += test::FaultInline(pages_.hole(), memory_) != kAllInline;
      wrong += ObjectsLibFault(pages_.hole(), &memory_) != kAllInline;
      rounds.fetch_add(1, std::memory_order_relaxed);
    }
  });
  // Until both have had many turns among each other.
  for (int loads = 0; loads < 200 || rounds.load(std::memory_order_relaxed) < 200; ++loads) {
    const Plugin plugin = Load();
    if (plugin.fault == nullptr) {
      break;
    }
    EXPECT_EQ(plugin.fault(pages_.hole(), &memory_), kAllInline);
    EXPECT_EQ(dlclose(plugin.handle), 0);
  }
  stop = true;
  other.join();
  EXPECT_EQ(wrong.load(), 0U);
}

}  // namespace
}  // namespace guestmem
