// Ends a process that spends too long on one input, and says on which.

#ifndef GUESTMEM_FUZZ_TIME_LIMIT_H_
#define GUESTMEM_FUZZ_TIME_LIMIT_H_

#include <signal.h>
#include <unistd.h>

#include <cstring>

namespace fuzz {

inline constexpr unsigned kDefaultSeconds = 60;  // an input; the slowest takes milliseconds, also where sanitizers watch

class TimeLimit {
 public:
  // `status`: what a process that is ended exits with. `seconds`: of real time; 0: no limit. `tool`: first word of what is said.
  TimeLimit(const char* tool, unsigned seconds, int status) {
    tool_ = tool;
    seconds_ = seconds;
    status_ = status;
    struct sigaction action = {};
    action.sa_handler = End;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGALRM, &action, nullptr);
  }
  ~TimeLimit() { Stop(); }
  // `input` must stay until the next call.
  void Start(const char* input) const {
    input_ = input;
    alarm(seconds_);
  }
  void Stop() const { alarm(0); }

 private:
  static void Say(const char* text) { (void)!write(STDERR_FILENO, text, std::strlen(text)); }
  static void End(int) {
    char digits[12];
    char* digit = digits + sizeof digits;
    *--digit = 0;
    for (unsigned rest = seconds_; rest != 0; rest /= 10) *--digit = static_cast<char>('0' + rest % 10);
    for (const char* part : {static_cast<const char*>(tool_), ": hangs, no end after ", static_cast<const char*>(digit), " s: ", static_cast<const char*>(input_), "\n"}) Say(part);
    _exit(status_);
  }

  static inline const char* volatile tool_ = "";
  static inline const char* volatile input_ = "";
  static inline volatile unsigned seconds_ = 0;
  static inline volatile int status_ = 1;
};

}  // namespace fuzz

#endif  // GUESTMEM_FUZZ_TIME_LIMIT_H_
