#!/usr/bin/env bash
# usage: ci/fuzz.sh [--seconds N] [--seed N] [TARGET...]
#        ci/fuzz.sh list
#
# Does everything for fuzzing: installs what is missing (ci/setup.sh), configures and builds the targets with libFuzzer,
# ASan and UBSan in build/fuzz, and runs each TARGET (default: all) from corpus/TARGET/ and the encoded corpus/seeds/.
#
#   --seconds N   in all, shared out over the targets (default 60)
#   --seed N      libFuzzer's random seed (default: a new one each time)
#   list          name the targets
#
# Live: one line a second on a terminal, else one every five seconds. At the end a table, and for everything that
# diverged or crashed the saved input and the command that replays it. Ctrl-C stops the run and still gives the table.
# Finds go to build/fuzz/corpus/TARGET/ (ci/minimize.sh takes the best of them into corpus/), failing inputs to
# build/fuzz/artifacts/TARGET/, whole logs to build/fuzz/logs/. fuzz/TARGET.options is merged as fuzzing services do.
#
# Exit status: 0 nothing found; 1 something diverged or crashed; 2 bad arguments; 130 interrupted. Works from any directory.
set -euo pipefail
# shellcheck source=ci/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

known=()
for source in "$root"/fuzz/*_fuzzer.cc; do
  if [ -e "$source" ]; then known+=("$(basename -- "$source" .cc)"); fi
done

seconds=60
options=()
targets=()
number() {
  [[ ${2-} =~ ^[1-9][0-9]{0,8}$ ]] || die 2 "$1 wants a number from 1 on, not '${2-}'"
}
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) show_help && exit ;;
    list) printf '%s\n' "${known[@]}" && exit ;;
    --seconds=* | --seed=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    --seconds) number "$@" && seconds=$2 && shift ;;
    --seed) number "$@" && options+=(--seed "$2") && shift ;;
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

say "fuzz: set up, build in $(shown "$root/build/fuzz"), then $seconds s over ${#targets[@]} target(s): ${targets[*]}"
"$root/ci/setup.sh"
use_symbolizer
configure fuzz
cmake --build "$root/build/fuzz" --parallel "$jobs" --target fuzzers
exec python3 "$root/ci/fuzz.py" run --build "$root/build/fuzz" --seconds "$seconds" "${options[@]}" "${targets[@]}"
