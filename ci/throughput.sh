#!/usr/bin/env bash
# usage: ci/throughput.sh [--rounds N]
#
# How many executions a second access_fuzzer makes on fault-free traces of 16 operations, plain and under ASan+UBSan.
#
# Measured is the fuzz target itself under libFuzzer, coverage feedback and all, on one core, from decoding the bytes to the
# last comparison of engine and model, in processor time. Only the mutator is replaced (fuzz/throughput.cc): it hands out one of 1,024 fixed traces, whose
# operations and their mix are printed; all succeed. Beside it, in the same rounds, an empty target with the same mutator: what
# libFuzzer itself costs. Of N rounds (default 5) the median counts; the fastest and slowest are printed too.
#
# Builds in build/fuzz-plain and build/fuzz. A measurement, not a test: exit status 0 whatever comes out. Works from any directory.
set -euo pipefail
# shellcheck source=ci/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

rounds=5
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) show_help && exit ;;
    --rounds=*) set -- "${1%%=*}" "${1#*=}" "${@:2}" && continue ;;
    --rounds)
      [[ ${2-} =~ ^[1-9][0-9]?$ ]] || die 2 "--rounds wants a number from 1 to 99, not '${2-}'"
      rounds=$2
      shift
      ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
  esac
  shift
done

"$root/ci/setup.sh"
for preset in fuzz-plain fuzz; do
  configure "$preset"
  say "build in $(shown "$root/build/$preset")"
  cmake --build "$root/build/$preset" --parallel "$jobs" --target access_throughput empty_throughput
done

results=$(mktemp)
trap 'rm -f -- "$results"' EXIT

# cpu COMMAND...: the milliseconds of processor time that it takes; other work on the machine counts less than in its real time.
cpu() {
  local TIMEFORMAT='%3U %3S'
  { time "$@" >/dev/null 2>&1; } 2>&1 | tr -d . | awk '{print $1 + $2}'
}

# measure PRESET TARGET RUNS: a line "PRESET TARGET executions-per-second" in the results. What libFuzzer takes to start is
# taken off: the time of a short run.
measure() {
  local command=(taskset -c "$core" "$root/build/$1/fuzz/$2" -seed=1 -max_len=4096) short long
  short=$(cpu "${command[@]}" -runs=1000)
  long=$(cpu "${command[@]}" -runs=$((1000 + $3)))
  echo "$1 $2 $(($3 * 1000 / (long - short)))" >>"$results"
}

core=$(taskset -cp $$ | sed -E 's/.*[ ,-]([0-9]+)$/\1/')
say "measure: $rounds rounds on core $core; load $(cut -d' ' -f1-3 /proc/loadavg) on $jobs cores"
"$root/build/fuzz-plain/fuzz/empty_throughput" -runs=1 2>/dev/null | grep '^throughput:' | fold -s -w 120
for ((round = 1; round <= rounds; ++round)); do
  say "round $round of $rounds"
  measure fuzz-plain empty_throughput 3000000
  measure fuzz-plain access_throughput 150000
  measure fuzz empty_throughput 1000000
  measure fuzz access_throughput 50000
done

echo
sort -k1,2 -k3n "$results" | awk '
  function thousands(n,  s) {
    for (s = ""; n >= 1000; n = int(n / 1000)) s = sprintf(",%03d", n % 1000) s
    return n s
  }
  function row(build, name, key, target, later) {
    n = count[key]
    m = value[key, int((n + 1) / 2)]
    verdict = "missed"
    if (m >= target) verdict = "reached"
    if (m >= later) verdict = "later one reached"
    if (!target) verdict = ""
    printf "%-14s %-8s %12s %12s %12s %10s %10s  %s\n", build, name, thousands(m), thousands(value[key, 1]), thousands(value[key, n]),
      target ? thousands(target) : "-", later ? thousands(later) : "-", verdict
  }
  { key = $1 " " $2; value[key, ++count[key]] = $3 }
  END {
    printf "%-14s %-8s %12s %12s %12s %10s %10s\n", "build", "target", "median /s", "slowest", "fastest", "wanted", "later"
    row("plain", "empty", "fuzz-plain empty_throughput")
    row("plain", "access", "fuzz-plain access_throughput", 60000, 100000)
    row("ASan+UBSan", "empty", "fuzz empty_throughput")
    row("ASan+UBSan", "access", "fuzz access_throughput", 20000, 30000)
  }'
