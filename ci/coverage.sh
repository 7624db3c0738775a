#!/usr/bin/env bash
# usage: ci/coverage.sh [--html DIR]
#
# Line, branch and MC/DC coverage of lib/ reached by the checked-in corpus alone: every fuzz target replays its own
# corpus/<target>/ and all of corpus/seeds/; no unit test runs. Prints a table by file and what was not reached, less what
# ci/lib/coverage_exceptions.txt gives a reason for, and writes an HTML report (default build/coverage/html). Exit status 1 if one
# of those reasons has nothing left to explain.
#
# Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

html=$root/build/coverage/html
while [ $# -gt 0 ]; do
  case $1 in
    --html) [ $# -ge 2 ] || die 2 "--html needs a folder"; html=$(realpath -m -- "$2") && shift ;;
    --help | -h) show_help && exit ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
  esac
  shift
done

dir=$root/build/coverage
say "coverage of lib/ by the checked-in corpus: build with instrumentation, replay, report in $(shown "$html")"
"$root/ci/setup.sh"
configure default "$dir" -DCMAKE_CXX_COMPILER=clang++-19 -DGUESTMEM_TESTS=OFF -DCMAKE_BUILD_TYPE=Debug \
  "-DCMAKE_CXX_FLAGS=-fprofile-instr-generate -fcoverage-mapping -fcoverage-mcdc"
cmake --build "$dir" --parallel "$jobs"

rm -rf -- "$dir/profiles"
mkdir -p -- "$dir/profiles"
objects=()
for source in "$root"/fuzz/*_fuzzer.cc; do
  target=$(basename -- "$source" .cc)
  printf '   replay %s\n' "$target"
  LLVM_PROFILE_FILE=$dir/profiles/$target.profraw "$dir/fuzz/$target" "$root/corpus/$target" "$dir/seeds" >/dev/null
  objects+=(-object "$dir/fuzz/$target")
done
llvm-profdata-19 merge -sparse -o "$dir/corpus.profdata" "$dir"/profiles/*.profraw

files=()
while IFS= read -r file; do files+=("$file"); done < <(find "$root/lib/src" "$root/lib/include" -name '*.cc' -o -name '*.h' | sort)
llvm-cov-19 show "${objects[@]:1}" -instr-profile "$dir/corpus.profdata" -format=html -output-dir "$html" \
  -show-branches=count -show-mcdc -show-mcdc-summary "${files[@]}" >/dev/null 2>&1
cov=("${objects[@]:1}" -instr-profile "$dir/corpus.profdata" "${files[@]}")
llvm-cov-19 export -summary-only "${cov[@]}" >"$dir/summary.json" 2>/dev/null
llvm-cov-19 export -format=lcov "${cov[@]}" >"$dir/coverage.info" 2>/dev/null
llvm-cov-19 show -show-branches=count "${cov[@]}" >"$dir/coverage.txt" 2>/dev/null
status=0
"$root/ci/lib/coverage_report.py" "$root" "$dir/summary.json" "$dir/coverage.info" "$dir/coverage.txt" "$root/ci/lib/coverage_exceptions.txt" ||
  status=$?
say "report: $(shown "$html")/index.html"
exit "$status"
