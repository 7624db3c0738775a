#!/usr/bin/env bash
# usage: ci/stress.sh [--rounds N] [--ends N]
#
# Real threads against the engine for longer than ctest takes: proptest/stress_test with N revocations a test and
# proptest/space_stress_test with N changes of a layout (default 1,000,000: a few minutes each) in a plain build, then a twentieth
# of that under ThreadSanitizer, with the tests of the read side; then the object matrix
# (lib/test/object_matrix_test.cc), whose processes end N times each (default 300) while threads
# fault. Judged by what may never be seen (see the files); ends with a line a run. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

rounds=1000000 ends=300
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) show_help && exit ;;
    --rounds) [ $# -ge 2 ] || die 2 "--rounds needs a number"; rounds=$2 && shift ;;
    --ends) [ $# -ge 2 ] || die 2 "--ends needs a number"; ends=$2 && shift ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
  esac
  shift
done
[[ $rounds$ends =~ ^[0-9]+$ ]] || die 2 "'$rounds' and '$ends' must be numbers"

say "stress: $rounds revocations or changes a test plain, $((rounds / 20)) under TSan"
"$root/ci/setup.sh"
use_symbolizer
configure default "$root/build/default"
configure default "$root/build/tsan" -DCMAKE_CXX_COMPILER=clang++-19 -DGUESTMEM_SANITIZE=thread -DGUESTMEM_FUZZ=OFF
cmake --build "$root/build/default" --parallel "$jobs" --target stress_test space_stress_test object_matrix_test
cmake --build "$root/build/tsan" --parallel "$jobs" --target stress_test space_stress_test rcu_test access_bitmap_test

summary='' status=0
run() {  # NAME ROUNDS PROGRAM
  local start=$SECONDS result=passed
  GUESTMEM_STRESS_ROUNDS=$2 GUESTMEM_OBJECT_RUNS=$2 "$3" || { result=FAILED && status=1; }
  summary+=$(printf '%-34s %9d rounds  %5d s  %s' "$1" "$2" $((SECONDS - start)) "$result")$'\n'
}
run "stress_test, plain" "$rounds" "$root/build/default/proptest/stress_test"
run "space_stress_test, plain" "$rounds" "$root/build/default/proptest/space_stress_test"
run "space_stress_test, TSan" $((rounds / 20)) "$root/build/tsan/proptest/space_stress_test"
run "stress_test, TSan" $((rounds / 20)) "$root/build/tsan/proptest/stress_test"
run "object_matrix_test, plain" "$ends" "$root/build/default/lib/object_matrix_test"
run "rcu_test, TSan" 0 "$root/build/tsan/lib/rcu_test"
run "access_bitmap_test, TSan" 0 "$root/build/tsan/lib/access_bitmap_test"
printf '\n%s' "$summary"
exit $status
