#!/usr/bin/env bash
# usage: ci/repro.sh TARGET INPUT [--keep]
#
# From a saved fuzzer input to a test: builds if needed, replays INPUT on TARGET and prints the trace with the op where engine
# and model differ (expected against actual), makes it as small as it gets while it differs, crashes or hangs alike, and writes
#
#   build/repro/regression_NAME.trace     the minimal trace
#   build/repro/regression_NAME_test.cc   the same as a GoogleTest of the engine's public headers, which is built and run
#
#   --keep   also keep INPUT as corpus/TARGET/regression-NAME, and the other two in corpus/seeds (of vmm_fuzzer and space_fuzzer: its vmm/) and
#            lib/test (of concurrent_fuzzer: reference/schedule): ctest runs all from then on; commit them with the fix
#
# Exit status: 0 the input passes now, 1 it diverges, crashes or hangs, 2 an unusable argument. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

keep=false positional=()
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) show_help && exit ;;
    --keep) keep=true ;;
    -*) die 2 "unknown argument '$1'; see --help" ;;
    *) positional+=("$1") ;;
  esac
  shift
done
[ ${#positional[@]} -eq 2 ] || die 2 "expected a target and an input; see --help"
target=${positional[0]} input=$(realpath -- "${positional[1]}")
[ -r "$root/fuzz/$target.cc" ] ||
  die 2 "unknown target '$target'; known: $(cd "$root/fuzz" && printf '%s ' *_fuzzer.cc | sed 's/\.cc//g')"
[ -r "$input" ] || die 2 "cannot read '$input'"

# concurrent_fuzzer's, vmm_fuzzer's and space_fuzzer's traces are of sorts of their own, and the former have an engine of their own.
dir=$root/build/default
libraries=("$dir/lib/libguestmem.a") defines=() kept_test=lib/test kept_trace=corpus/seeds
if [ "$target" = concurrent_fuzzer ]; then
  libraries=("$dir/reference/libguestmem_schedule.a" "$dir/lib/libguestmem_scheduled.a")
  defines=(-DGUESTMEM_SCHEDULED) kept_test=reference/schedule kept_trace=
elif [ "$target" = vmm_fuzzer ] || [ "$target" = space_fuzzer ]; then
  kept_trace=corpus/seeds/vmm
fi

out=$root/build/repro
log=$out/build.log
name=regression_$(sha256sum -- "$input" | cut -c1-12)
trace=$out/$name.trace test=$out/${name}_test.cc
say "repro: build $target, replay $(shown "$input"), minimise, write a test"
"$root/ci/setup.sh"
configure default "$dir"
mkdir -p -- "$out"
rm -f -- "$trace" "$test"
cmake --build "$dir" --parallel "$jobs" --target "$target" trace >"$log" 2>&1 ||
  { cat "$log" >&2 && die 2 "the build failed"; }

status=0
GUESTMEM_SAVE_TRACE=$trace timeout 5 "$dir/fuzz/$target" "$input" || status=$?
if [ "$status" -eq 0 ]; then
  rm -f -- "$trace"
  say "passes: no divergence, no crash"
  exit 0
fi

# Compiles the test, with what the build's CMake found.
build_test() {
  local compiler
  compiler=$(sed -n 's/^set(CMAKE_CXX_COMPILER "\(.*\)")$/\1/p' "$dir"/CMakeFiles/*/CMakeCXXCompiler.cmake)
  "$compiler" -std=c++20 -g "${defines[@]}" "-I$root" "-I$root/lib/include" "$test" -o "${test%.cc}" "${libraries[@]}" \
    -lgmock -lgtest_main -lgtest -pthread >"$log" 2>&1
}

if [ ! -s "$trace" ]; then
  say "not of a trace: the process ended with status $status; the report is above"
else
  if [ "$status" -eq 124 ]; then say "it hangs" && cat -- "$trace"; fi
  say "minimal trace"
  "$dir/fuzz/trace" minimise "$trace" -o "$trace" || [ $? -eq 1 ] || die 2 "cannot be minimised"
  "$dir/fuzz/trace" test "$trace" -o "$test" || die 2 "cannot be written as a test"
  if command -v clang-format >/dev/null; then clang-format -i --style="file:$root/.clang-format" "$test"; fi
  say "trace: $(shown "$trace"); run it again: $(shown "$dir/fuzz/trace") run $(shown "$trace")"
  build_test || { cat "$log" >&2 && die 2 "the generated test doesn't build: $(shown "$test")"; }
  if timeout 5 "${test%.cc}" >"$out/$name.log" 2>&1; then
    say "test: $(shown "$test"): IT $(grep -q '^\[  SKIPPED ' "$out/$name.log" && echo SKIPS || echo PASSES), so it doesn't show the difference"
  else
    say "test: $(shown "$test"): fails, as it should ($(shown "$out/$name.log"))"
  fi
fi
if $keep; then
  cp -- "$input" "$root/corpus/$target/${name/_/-}"
  if [ -s "$trace" ] && [ -n "$kept_trace" ]; then cp -- "$trace" "$root/$kept_trace/"; fi
  if [ -s "$test" ]; then cp -- "$test" "$root/$kept_test/"; fi
  say "kept: corpus/$target/${name/_/-} and what came of it; commit it with the fix"
else
  say "keep it as a regression: ci/repro.sh $target $(shown "$input") --keep"
fi
exit 1
