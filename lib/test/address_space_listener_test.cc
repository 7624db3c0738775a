// AddressSpace: what listeners are told, in which order, and what becomes of their failures.

#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "guestmem/address_space.h"
#include "guestmem/shared_memory.h"
#include "scripted_backing.h"
#include "status_matchers.h"

namespace guestmem {
namespace {

using test::Failed;
using test::Ok;
using test::Says;
using test::ScriptedBacking;

constexpr uint64_t kPage = kPageSize;

using Log = std::vector<std::string>;

// Writes down what it is told, after its own name, and whether the memory can be read at the slot by then.
class Recorder : public AddressSpaceListener {
 public:
  Recorder(std::string name, Log& log, GuestMemory memory) : name_(std::move(name)), log_(log), memory_(std::move(memory)) {}

  void Removing(const SlotInfo& slot) override { Write("-", slot); }
  Status Added(const SlotInfo& slot) override {
    if (fail_at == slot.gpa) {
      log_.push_back(name_ + "!" + std::string(slot.name));
      return BackendError(StatusCode::kUnavailable, "no room for it");
    }
    Write("+", slot);
    return {};
  }
  void Committed() override { log_.push_back(name_ + "."); }

  std::optional<uint64_t> fail_at;

 private:
  void Write(const char* what, const SlotInfo& slot) {
    const bool there = memory_.ReadPlain<uint8_t>(slot.gpa).ok();
    log_.push_back(name_ + what + std::string(slot.name) + (there ? "" : "?"));
  }

  const std::string name_;
  Log& log_;
  const GuestMemory memory_;
};

class AddressSpaceListeners : public testing::Test {
 protected:
  Status Add(uint64_t page, const char* name) { return space_->Add(Slot(page, name)); }
  NewSlot Slot(uint64_t page, const char* name) const {
    return {.gpa = page * kPage, .size = kPage, .backing = ram_, .name = name};
  }
  Log Taken() { return std::exchange(log_, {}); }

  const std::shared_ptr<ScriptedBacking> ram_ = std::make_shared<ScriptedBacking>(4, 4);
  std::unique_ptr<AddressSpace> space_ = AddressSpace::Create("vm").value();
  Log log_;
  Recorder one_{"1", log_, space_->memory()}, two_{"2", log_, space_->memory()}, three_{"3", log_, space_->memory()};
};

TEST_F(AddressSpaceListeners, AreToldBeforeAndAfter) {
  const auto first = space_->Register(one_).value();
  const auto second = space_->Register(two_).value();
  EXPECT_EQ(Taken(), (Log{"1.", "2."}));
  ASSERT_TRUE(Ok(Add(1, "a")));
  EXPECT_EQ(Taken(), (Log{"1+a?", "2+a?", "1.", "2."}));  // before it is there
  ASSERT_TRUE(Ok(space_->Remove(kPage)));
  EXPECT_EQ(Taken(), (Log{"2-a", "1-a", "1.", "2."}));  // while it is still there
  EXPECT_TRUE(Ok(space_->Change({})));
  EXPECT_FALSE(Add(0, "a").ok() && Add(0, "b").ok());
  EXPECT_EQ(Taken(), (Log{"1+a?", "2+a?", "1.", "2."}));  // nothing of what failed
}

TEST_F(AddressSpaceListeners, SeeAWholeChangeInOrder) {
  ASSERT_TRUE(Ok(Add(1, "a")));
  ASSERT_TRUE(Ok(Add(2, "b")));
  const auto first = space_->Register(one_).value();
  const auto second = space_->Register(two_).value();
  EXPECT_EQ(Taken(), (Log{"1+a", "1+b", "1.", "2+a", "2+b", "2."}));
  ASSERT_TRUE(Ok(space_->Change({SlotChange::Add(Slot(7, "c")), SlotChange::Remove(2 * kPage), SlotChange::Add(Slot(2, "b")),
                                 SlotChange::Remove(kPage)})));
  EXPECT_EQ(Taken(), (Log{"2-b", "1-b", "2-a", "1-a", "1+c?", "2+c?", "1+b", "2+b", "1.", "2."}));
}

TEST_F(AddressSpaceListeners, AFailureCallsTheChangeOff) {
  ASSERT_TRUE(Ok(Add(1, "a")));
  const auto first = space_->Register(one_).value();
  const auto second = space_->Register(two_).value();
  Taken();
  two_.fail_at = 4 * kPage;
  const Status status = space_->Change(
      {SlotChange::Remove(kPage), SlotChange::Add(Slot(3, "c")), SlotChange::Add(Slot(4, "d")), SlotChange::Add(Slot(5, "e"))});
  EXPECT_TRUE(Failed(status, ErrorKind::kBackend, std::nullopt));
  EXPECT_TRUE(Says(status, "guest memory 'vm': change error: failed to access 0x4000-0x5000: no room for it"));
  EXPECT_EQ(status.info().range, (AddressRange{4 * kPage, kPage}));
  EXPECT_EQ(status.code(), StatusCode::kUnavailable);
  EXPECT_EQ(Taken(), (Log{"2-a", "1-a", "1+c?", "2+c?", "1+d?", "2!d", "1-d?", "2-c?", "1-c?", "1+a", "2+a"}));
  const GuestMemory memory = space_->memory();
  EXPECT_TRUE(Ok(memory.WritePlain<uint8_t>(kPage, 1)));
  EXPECT_TRUE(Failed(memory.WritePlain<uint8_t>(3 * kPage, 1), ErrorKind::kOutOfRange, 3 * kPage));
  // What was to go can be locked again.
  EXPECT_TRUE(Ok(memory.LockGpns(AccessType::kRead, false, std::array{uint64_t{1}}).status()));
  two_.fail_at.reset();
  EXPECT_TRUE(Ok(space_->Change({SlotChange::Remove(kPage), SlotChange::Add(Slot(4, "d"))})));
  EXPECT_EQ(space_->Add(Slot(4, "d")).info().operation, Operation::kAdd);
}

TEST_F(AddressSpaceListeners, AFailureWhileRegisteringIsUndone) {
  ASSERT_TRUE(Ok(Add(1, "a")));
  ASSERT_TRUE(Ok(Add(2, "b")));
  ASSERT_TRUE(Ok(Add(3, "c")));
  one_.fail_at = 3 * kPage;
  EXPECT_TRUE(Failed(space_->Register(one_).status(), ErrorKind::kBackend, std::nullopt));
  EXPECT_EQ(Taken(), (Log{"1+a", "1+b", "1!c", "1-b", "1-a"}));
  ASSERT_TRUE(Ok(space_->Remove(kPage)));
  EXPECT_EQ(Taken(), Log{});
}

TEST_F(AddressSpaceListeners, RegistersOnceAndIsToldOfTheEnd) {
  ASSERT_TRUE(Ok(Add(1, "a")));
  ASSERT_TRUE(Ok(Add(2, "b")));
  auto first = space_->Register(one_).value();
  EXPECT_TRUE(Failed(space_->Register(one_).status(), ErrorKind::kInvalidArgument, std::nullopt));
  Taken();
  first = {};
  EXPECT_EQ(Taken(), (Log{"1-b", "1-a"}));
  first = space_->Register(one_).value();
  auto second = space_->Register(two_).value();
  Taken();
  AddressSpace::Registration moved = space_->Register(three_).value();
  moved = std::move(first);
  EXPECT_EQ(Taken(), (Log{"3+a", "3+b", "3.", "3-b", "3-a"}));  // at once, though `first` lives on
  Taken();
  space_.reset();
  EXPECT_EQ(Taken(), (Log{"2-b", "1-b", "2-a", "1-a"}));
  moved = {};
  second = {};
  EXPECT_EQ(Taken(), Log{});
}

// Changes the address space from wherever it is called.
class Meddler : public AddressSpaceListener {
 public:
  explicit Meddler(AddressSpace& space) : space_(space) {}
  void Removing(const SlotInfo&) override { Meddle(); }
  Status Added(const SlotInfo&) override { return Meddle(), Status(); }
  void Committed() override { Meddle(); }

  std::vector<Status> said;

 private:
  void Meddle() {
    said.push_back(space_.Remove(kPage));
    said.push_back(space_.Change({}));
    said.push_back(space_.Register(*this).status());
  }
  AddressSpace& space_;
};

TEST_F(AddressSpaceListeners, CannotChangeTheSpaceThatCallsThem) {
  Meddler meddler(*space_);
  {
    const auto registration = space_->Register(meddler).value();
    ASSERT_TRUE(Ok(Add(1, "a")));
    ASSERT_TRUE(Ok(space_->Remove(kPage)));
    EXPECT_EQ(meddler.said.size(), 3u * 5);
    ASSERT_TRUE(Ok(Add(1, "a")));
  }
  for (const Status& status : meddler.said) {
    EXPECT_TRUE(Failed(status, ErrorKind::kInvalidArgument, std::nullopt));
  }
  // Another address space is none of its business.
  const auto other = AddressSpace::Create("other").value();
  Meddler stranger(*other);
  const auto registration = space_->Register(stranger).value();
  EXPECT_TRUE(Failed(stranger.said[0], ErrorKind::kInvalidArgument, std::nullopt));
  EXPECT_TRUE(Says(stranger.said[0], "no slot begins there"));
  EXPECT_TRUE(Ok(stranger.said[1]));
}

TEST_F(AddressSpaceListeners, CannotChangeItThroughAHandlerEither) {
  const auto lazy = std::make_shared<ScriptedBacking>(1, 0);
  std::optional<Status> said;
  lazy->handler = [&](const PageFaultInfo&) {
    said = space_->Remove(8 * kPage);
    return PageFaultAction::Fail(NotMapped());
  };
  ASSERT_TRUE(Ok(space_->Add({.gpa = 8 * kPage, .size = kPage, .backing = lazy, .name = "lazy"})));
  const auto registration = space_->Register(one_).value();  // reads it
  ASSERT_TRUE(said);
  EXPECT_TRUE(Failed(*said, ErrorKind::kInvalidArgument, std::nullopt));
  EXPECT_TRUE(Says(*said, "a listener cannot change"));
}

TEST_F(AddressSpaceListeners, AreToldOfTheFileBehindASlot) {
  class Files : public AddressSpaceListener {
   public:
    Status Added(const SlotInfo& slot) override { return seen = slot, Status(); }
    SlotInfo seen;
  } files;
  const auto registration = space_->Register(files).value();
  const auto file = SharedMemory::Create(4 * kPage).value();
  ASSERT_TRUE(Ok(space_->Add({.gpa = 8 * kPage, .size = 2 * kPage, .backing = file, .backing_offset = kPage, .read_only = true})));
  EXPECT_EQ(files.seen.gpa, 8 * kPage);
  EXPECT_EQ(files.seen.size, 2 * kPage);
  EXPECT_EQ(files.seen.host, file->mapping() + kPage);
  EXPECT_EQ(files.seen.fd, file->sharing().value()[0].fd);
  EXPECT_EQ(files.seen.file_offset, kPage);
  EXPECT_TRUE(files.seen.read_only);
}

using AddressSpaceListenersDeathTest = AddressSpaceListeners;

// What was told to go cannot be taken back.
class Fickle : public AddressSpaceListener {
 public:
  Status Added(const SlotInfo&) override { return refuses ? MakeStatus({.kind = ErrorKind::kBackend}, "never again") : Status(); }
  bool refuses = false;
};

TEST_F(AddressSpaceListenersDeathTest, ARefusalToTakeBackIsFatal) {
  ASSERT_TRUE(Ok(Add(1, "a")));
  Fickle fickle;
  const auto registration = space_->Register(fickle).value();
  fickle.refuses = true;
  EXPECT_DEATH((void)space_->Change({SlotChange::Remove(kPage), SlotChange::Add(Slot(2, "b"))}), "cannot take back.*never again");
}

class Thrower : public AddressSpaceListener {
 public:
  explicit Thrower(int at) : at_(at) {}
  void Removing(const SlotInfo&) override { Throw(0); }
  Status Added(const SlotInfo&) override { return Throw(1), Status(); }
  void Committed() override { Throw(2); }

  bool armed = false;

 private:
  void Throw(int at) const {
    if (armed && at == at_) {
      throw std::runtime_error("from a listener");
    }
  }
  const int at_;
};

TEST_F(AddressSpaceListenersDeathTest, AnExceptionEndsTheProcess) {
  ASSERT_TRUE(Ok(Add(1, "a")));
  for (const int at : {0, 1, 2}) {
    Thrower thrower(at);
    const auto registration = space_->Register(thrower).value();
    thrower.armed = true;
    EXPECT_DEATH((void)space_->Change({SlotChange::Remove(kPage), SlotChange::Add(Slot(2, "b"))}), "from a listener") << at;
    thrower.armed = false;
  }
}

// Drops its own registration.
class Quitter : public AddressSpaceListener {
 public:
  void Committed() override { registration = {}; }
  AddressSpace::Registration registration;
};

TEST_F(AddressSpaceListenersDeathTest, UnregisteringFromAListenerIsFatal) {
  Quitter quitter;
  quitter.registration = space_->Register(quitter).value();
  EXPECT_DEATH((void)Add(1, "a"), "unregistered by one that its address space calls");
}

}  // namespace
}  // namespace guestmem
