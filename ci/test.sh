#!/usr/bin/env bash
# usage: ci/test.sh [--compiler=clang|gcc] [--sanitize|--integer|--threads] [--unit] [-- CTEST_ARGUMENT...]
#
# Does everything for the tests: installs what is missing (ci/setup.sh), configures, builds, and runs ctest: unit tests,
# properties, exhaustive enumerations, the checked-in corpus. Ends with ctest's own summary and exit status.
#
#   --compiler=clang   clang-19 in build/default (the default)
#   --compiler=gcc     g++ in build/gcc
#   --sanitize         the same under ASan and UBSan, in build/asan or build/gcc-asan
#   --integer          the same, and clang's integer checks (unsigned wrap, narrowing), in build/integer; clang only
#   --threads          the same under TSan, in build/tsan; clang only
#   --unit             only the unit tests of lib/: builds and runs nothing else
#   -- ...             handed to ctest: ci/test.sh -- -R replay, or ci/test.sh -- -L quick, which takes less than half a minute
#                      (every test is labelled quick or slow)
#
# Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

compiler=clang
sanitize=false
unit=false
while [ $# -gt 0 ]; do
  case $1 in
    --compiler=clang | --compiler=gcc) compiler=${1#*=} ;;
    --compiler=*) die 2 "unknown compiler '${1#*=}'; known: clang, gcc" ;;
    --sanitize) sanitize=true ;;
    --integer | --threads) sanitize=${1#--} ;;
    --unit) unit=true ;;
    --help | -h) show_help && exit ;;
    --) shift && break ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
  esac
  shift
done

options=()
case $compiler-$sanitize in
  clang-false) preset=default build=default ;;
  clang-true) preset=asan build=asan ;;
  clang-integer) preset=integer build=integer ;;
  clang-threads) preset=default build=tsan options=("-DGUESTMEM_SANITIZE=thread") ;;
  gcc-integer | gcc-threads) die 2 "--$sanitize is clang's" ;;
  gcc-false) preset=gcc build=gcc ;;
  gcc-true) preset=gcc build=gcc-asan options=("-DGUESTMEM_SANITIZE=address,undefined") ;;
esac
dir=$root/build/$build
target=all tests=.
if $unit; then target=lib/all tests=lib; fi

say "test: set up, build in $(shown "$dir"), run ctest"
"$root/ci/setup.sh"
use_symbolizer
configure "$preset" "$dir" "${options[@]}"
say "build"
cmake --build "$dir" --parallel "$jobs" --target "$target"
say "ctest"
cd "$dir/$tests"
status=0
ctest --parallel "$jobs" --output-on-failure --no-tests=error "$@" || status=$?
if [ "$status" -ne 0 ]; then
  printf '\nthe failed ones again: (cd %s && ctest --rerun-failed --output-on-failure)\n' "$dir/$tests" >&2
fi
exit "$status"
