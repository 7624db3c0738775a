#!/usr/bin/env bash
# usage: ci/throughput.sh [--rounds N]
#
# How many executions a second the fuzz targets make, plain and under ASan+UBSan, and where their time goes. Three tables:
#
#   access_fuzzer on fault-free traces of 16 operations, against the executions that are wanted of it. Measured is the fuzz
#   target itself under libFuzzer, coverage feedback and all, on one core, from decoding the bytes to the last comparison of
#   engine and model, in processor time. Only the mutator is replaced (fuzz/throughput.cc): it hands out one of 1,024 fixed
#   traces, whose operations and their mix are printed; all succeed. Beside it an empty target with the same mutator: what
#   libFuzzer itself costs.
#
#   Every target in the same way on the inputs of corpus/<target> (fuzz/throughput_corpus.cc), and its share of what the empty
#   target makes of the inputs of access_fuzzer. Those inputs try everything: they fail, fault and take longer, and libFuzzer
#   has more to note down.
#
#   The rooms of the tree in which access_fuzzer's time on the fixed traces goes, where perf may look.
#
# Of N rounds (default 5) the median counts; of the first table the fastest and slowest are printed too.
#
# Builds in build/fuzz-plain and build/fuzz. A measurement, not a test: exit status 0 whatever comes out. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

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
  cmake --build "$root/build/$preset" --parallel "$jobs" --target throughput
done

results=$(mktemp)
trap 'rm -f -- "$results"' EXIT
core=$(taskset -cp $$ | sed -E 's/.*[ ,-]([0-9]+)$/\1/')

# cpu COMMAND...: the milliseconds of processor time that it takes; other work on the machine counts less than in its real time.
cpu() {
  local TIMEFORMAT='%3U %3S'
  { time "$@" >/dev/null 2>&1; } 2>&1 | tr -d . | awk '{print $1 + $2}'
}

# measure PRESET BINARY RUNS WARM_UP: a line "PRESET BINARY executions-per-second" in the results. What libFuzzer takes to start
# and to meet the inputs is taken off: the time of the first WARM_UP executions.
measure() {
  local command=(taskset -c "$core" "$root/build/$1/fuzz/$2" -seed=1 -max_len=4096) short long
  short=$(cpu "${command[@]}" -runs="$4")
  long=$(cpu "${command[@]}" -runs=$(($4 + $3)))
  echo "$1 $2 $(($3 * 1000 / (long > short ? long - short : 1)))" >>"$results"
}

targets=()
for source in "$root"/fuzz/*_fuzzer.cc; do targets+=("$(basename -- "$source" .cc)"); done

say "measure: $rounds rounds on core $core; load $(cut -d' ' -f1-3 /proc/loadavg) on $jobs cores"
"$root/build/fuzz-plain/fuzz/empty_throughput" -runs=1 2>/dev/null | grep '^throughput:' | fold -s -w 120
for ((round = 1; round <= rounds; ++round)); do
  say "round $round of $rounds"
  measure fuzz-plain empty_throughput 3000000 1000
  measure fuzz-plain access_throughput 150000 1000
  measure fuzz empty_throughput 1000000 1000
  measure fuzz access_throughput 50000 1000
  for target in empty "${targets[@]}"; do
    export GUESTMEM_THROUGHPUT_INPUTS=$root/corpus/$target
    if [ "$target" = empty ]; then GUESTMEM_THROUGHPUT_INPUTS=$root/corpus/access_fuzzer; fi
    measure fuzz-plain "${target}_on_corpus" "$([ "$target" = empty ] && echo 1000000 || echo 10000)" 3000
    measure fuzz "${target}_on_corpus" "$([ "$target" = empty ] && echo 300000 || echo 5000)" 3000
  done
done

echo
sort -k1,2 -k3n "$results" | awk -v targets="${targets[*]}" '
  function thousands(n,  s) {
    for (s = ""; n >= 1000; n = int(n / 1000)) s = sprintf(",%03d", n % 1000) s
    return n s
  }
  function median(key) { return value[key, int((count[key] + 1) / 2)] }
  function row(build, name, key, wanted) {
    printf "%-14s %-8s %12s %12s %12s %10s  %s\n", build, name, thousands(median(key)), thousands(value[key, 1]),
      thousands(value[key, count[key]]), (wanted ? thousands(wanted) : "-"), (!wanted ? "" : (median(key) >= wanted ? "reached" : "missed"))
  }
  function share(preset, name) {
    return sprintf("%12s %9.2f %%", thousands(median(preset " " name "_on_corpus")),
      100 * median(preset " " name "_on_corpus") / median(preset " empty_on_corpus"))
  }
  { key = $1 " " $2; value[key, ++count[key]] = $3 }
  END {
    printf "%-14s %-8s %12s %12s %12s %10s\n", "fixed traces", "target", "median /s", "slowest", "fastest", "wanted"
    row("plain", "empty", "fuzz-plain empty_throughput")
    row("plain", "access", "fuzz-plain access_throughput", 100000)
    row("ASan+UBSan", "empty", "fuzz empty_throughput")
    row("ASan+UBSan", "access", "fuzz access_throughput", 30000)
    printf "\n%-23s %12s %11s %12s %11s\n", "on its corpus", "plain /s", "of empty", "ASan+UBSan /s", "of empty"
    n = split("empty " targets, names)
    for (i = 1; i <= n; ++i) printf "%-23s %s %s\n", names[i], share("fuzz-plain", names[i]), share("fuzz", names[i])
  }'
echo
for preset in fuzz-plain fuzz; do
  "$root/ci/lib/throughput_profile.py" "access_fuzzer on fixed traces, build/$preset" "$root/build/$preset/fuzz/access_throughput" \
    -seed=1 -max_len=4096 -runs=100000
done
