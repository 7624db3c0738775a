#!/usr/bin/env bash
# usage: ci/bench.sh [--quick] [--filter REGEX] [--save FILE.json] [--compare FILE.json] [--instructions]
#
# What an access costs, against libc and raw loads and stores measured in the same run: lib/bench in an optimized build,
# interleaved at random, medians of 15 batches. Prints a table with the target beside each row, what limiting speculation
# costs, the curves (regions, views, threads, address space, alignment) and cliffs between neighbouring sizes. Writes
# build/bench/run.json, cost.svg (cost against size: memcpy, no bitmap, with bitmap) and curves.svg.
#
#   --quick            5 short batches: a look, not a measurement
#   --filter REGEX     only these rows (Google Benchmark's --benchmark_filter)
#   --save FILE        keep this run's JSON there as well
#   --compare FILE     show an earlier run's medians beside
#   --instructions     instead: instructions a call by valgrind --tool=callgrind, the same on a busy machine
#
# Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

repetitions=15 min_time=0.02 filter=. save='' compare='' instructions=false
while [ $# -gt 0 ]; do
  case $1 in
    --quick) repetitions=5 min_time=0.005 ;;
    --filter) [ $# -ge 2 ] || die 2 "--filter needs a regular expression"; filter=$2 && shift ;;
    --save) [ $# -ge 2 ] || die 2 "--save needs a file"; save=$2 && shift ;;
    --compare) [ $# -ge 2 ] && [ -r "$2" ] || die 2 "--compare needs the file of an earlier --save"; compare=$2 && shift ;;
    --instructions) instructions=true ;;
    --help | -h) show_help && exit ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
  esac
  shift
done

dir=$root/build/bench
say "bench: build lib/bench in $(shown "$dir"), measure"
"$root/ci/setup.sh"
configure default "$dir" -DCMAKE_CXX_COMPILER=clang++-19 -DGUESTMEM_TESTS=OFF -DGUESTMEM_FUZZ=OFF -DGUESTMEM_BENCH=ON \
  -DCMAKE_BUILD_TYPE=Release
cmake --build "$dir" --parallel "$jobs"
program=$dir/lib/access_bench

if $instructions; then
  command -v valgrind >/dev/null || die 1 "valgrind is missing; install it with: apt-get install -y valgrind"
  exec python3 "$root/ci/lib/bench.py" instructions "$program" "$filter"
fi

say "$(uname -sr), $(nproc) cores, load $(cut -d' ' -f1-3 /proc/loadavg); about half a minute a hundred rows"
# measure PROGRAM FILTER JSON
measure() {
  "$1" --benchmark_filter="$2" --benchmark_enable_random_interleaving=true --benchmark_repetitions=$repetitions \
    --benchmark_min_time=$min_time --benchmark_report_aggregates_only=true --benchmark_format=json >"$3" 2>"$dir/run.log" ||
    { cat "$dir/run.log" >&2 && die 1 "the benchmark failed"; }
}
measure "$program" "$filter" "$dir/run.json"
measure "$dir/lib/unmasked_bench" '^(read|write)_(u64|64)/(none|bitmap)$' "$dir/unmasked.json"
if [ -n "$save" ]; then cp -- "$dir/run.json" "$save"; fi
python3 "$root/ci/lib/bench.py" table "$dir/run.json" "$dir/unmasked.json" "$dir" ${compare:+"$compare"}
say "plots: $(shown "$dir/cost.svg"), $(shown "$dir/curves.svg") (grey: libc or raw, blue: no bitmap, red: bitmap and section)"
