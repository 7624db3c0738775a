#!/usr/bin/env bash
# usage: ci/fuzz.sh [--seconds N | --minutes N] [--engine=E] [--sanitizer=S] [--seed N] [--report DIR] [TARGET...]
#        ci/fuzz.sh list
#
# Does everything for fuzzing: installs what is missing (ci/setup.sh), configures and builds the targets, and runs each
# TARGET (default: all) on all cores, from corpus/TARGET/, the encoded corpus/seeds/ and what earlier runs found.
#
#   --seconds N, --minutes N   in all, shared out over the targets (default 60 s)
#   --engine=E      libfuzzer (default), or afl: AFL++, persistent, with CmpLog; it must find a target 99 % stable
#   --sanitizer=S   address (default: ASan and UBSan), integer (the same and clang's integer checks), undefined, memory,
#                   thread, or none
#   --seed N        the engine's random seed (default: a new one each time); on several cores timing decides, too
#   --report DIR    write DIR/index.html, now and then and at the end: one page, from the history of all runs so far
#   list            name the targets
#
# Live: one line a second on a terminal, else one every five seconds. At the end a table, and for everything that
# diverged or crashed the saved input and the command that replays it. A target that fails stops; the others go on.
# Ctrl-C stops the run with everything saved, and still gives the table; the same command goes on from there.
# All engines and sanitizers share what they find: inputs in build/fuzz/corpus/TARGET/ (ci/pick_corpus.sh takes the best of
# them into corpus/), failing ones in build/fuzz/artifacts/TARGET/; history and logs are beside them.
# The target's options (fuzz/target.options.in) are laid over the environment's as fuzzing services do.
#
# What cannot be had together: afl with memory or thread. memory first builds a C++ library with MSan, once
# (ci/lib/msan_libcxx.sh: a download of 165 MB and some minutes).
#
# Exit status: 0 nothing found; 1 something diverged or crashed; 2 bad arguments; 130 interrupted. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

known=()
for source in "$root"/fuzz/*_fuzzer.cc; do
  if [ -e "$source" ]; then known+=("$(basename -- "$source" .cc)"); fi
done

seconds=60 engine=libfuzzer sanitizer=address
options=()
targets=()
number() {
  [[ ${2-} =~ ^[1-9][0-9]{0,6}$ ]] || die 2 "$1 wants a number from 1 on, not '${2-}'"
}
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) show_help && exit ;;
    list) printf '%s\n' "${known[@]}" && exit ;;
    --*=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    --seconds) number "$@" && seconds=$2 && shift ;;
    --minutes) number "$@" && seconds=$((60 * $2)) && shift ;;
    --seed) number "$@" && options+=(--seed "$2") && shift ;;
    --engine)
      [[ ${2-} =~ ^(libfuzzer|afl)$ ]] || die 2 "--engine can be libfuzzer or afl, not '${2-}'"
      engine=$2 && shift
      ;;
    --sanitizer)
      [[ ${2-} =~ ^(address|integer|undefined|memory|thread|none)$ ]] ||
        die 2 "--sanitizer can be address, integer, undefined, memory, thread or none, not '${2-}'"
      sanitizer=$2 && shift
      ;;
    --report)
      [ -n "${2-}" ] || die 2 "--report wants a folder"
      mkdir -p -- "$2" || die 2 "--report: cannot make '$2'"
      options+=(--report "$(realpath -- "$2")") && shift
      ;;
    -*) die 2 "unknown option '$1'; see --help" ;;
    *)
      if [[ " ${known[*]} " != *" $1 "* ]]; then
        die 2 "unknown target '$1'; known: ${known[*]}"
      fi
      targets+=("$1")
      ;;
  esac
  shift
done
if [ ${#targets[@]} -eq 0 ]; then targets=("${known[@]}"); fi
if [ ${#targets[@]} -eq 0 ]; then die 2 "there are no targets in $(shown "$root/fuzz")"; fi

# One build folder a configuration.
dir=$root/build/fuzz
if [ "$engine" = afl ]; then dir+=-afl; fi
flags=("-DGUESTMEM_FUZZ_ENGINE=$engine")
case $engine-$sanitizer in
  *-address) flags+=(-DGUESTMEM_SANITIZE=address,undefined) ;;
  *-integer)
    [ -f "$root/ci/lib/integer.ignorelist" ] || die 2 "integer needs ci/lib/integer.ignorelist, which this tree lacks"
    dir+=-integer && flags+=(-DGUESTMEM_SANITIZE=address,undefined,integer)
    ;;
  libfuzzer-none) dir+=-plain && flags+=(-DGUESTMEM_SANITIZE=) ;;
  *-none) dir+=-none && flags+=(-DGUESTMEM_SANITIZE=) ;;
  afl-memory | afl-thread) die 2 "afl with the $sanitizer sanitizer is not supported: use libfuzzer for it" ;;
  *) dir+=-$sanitizer && flags+=("-DGUESTMEM_SANITIZE=$sanitizer") ;;
esac
# libFuzzer's own runtime wants libstdc++ beside, which must not find libc++'s parts: MSan would see half of what it does.
if [ "$sanitizer" = memory ]; then
  libcxx=$root/build/msan-libcxx
  flags+=("-DCMAKE_CXX_FLAGS=-nostdinc++ -isystem $libcxx/include/c++/v1"
    "-DCMAKE_EXE_LINKER_FLAGS=-nostdlib++ -L$libcxx/lib -Wl,--exclude-libs,libc++.a:libc++abi.a"
    "-DCMAKE_CXX_STANDARD_LIBRARIES=-lc++ -lc++abi -lstdc++")
fi

say "fuzz: set up, build in $(shown "$dir"), then $seconds s of $engine ($sanitizer) on $jobs cores over ${#targets[@]} target(s): ${targets[*]}"
if [ "$engine" = afl ]; then "$root/ci/setup.sh" --afl; else "$root/ci/setup.sh"; fi
if [ "$sanitizer" = memory ]; then "$root/ci/lib/msan_libcxx.sh"; fi
use_symbolizer
configure fuzz "$dir" "${flags[@]}"
cmake --build "$dir" --parallel "$jobs" --target fuzzers
exec python3 "$root/ci/lib/fuzz.py" run --build "$dir" --work "$root/build/fuzz" --seconds "$seconds" --engine "$engine" \
  --sanitizer "$sanitizer" "${options[@]}" "${targets[@]}"
