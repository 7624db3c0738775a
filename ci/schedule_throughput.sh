#!/usr/bin/env bash
# usage: ci/schedule_throughput.sh [--check] [SECONDS]
#
# Prints how many deterministic schedules of a two-thread, six-op trace run in a second on one core (the project's bar is
# 20,000), by random walk and PCT, and exhaustively with two preemptions. Each is measured for SECONDS (3).
#
#   --check   exit status 1 below the bar
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

bar=20000
check=false
seconds=3
for word in "$@"; do
  case $word in
    --help | -h) show_help && exit ;;
    --check) check=true ;;
    *[!0-9]* | '') die 2 "unknown argument '$word'; see --help" ;;
    *) seconds=$word ;;
  esac
done

dir=${GUESTMEM_BUILD_DIR:-$root/build/default}
if [ -z "${GUESTMEM_BUILD_DIR:-}" ]; then configure default "$dir"; fi
cmake --build "$dir" --parallel "$jobs" --target trace >&2
out=$(taskset -c 0 "$dir/fuzz/trace" bench --seconds "$seconds")
printf '%s\n' "$out"
if $check; then
  awk -v bar="$bar" '/schedules\/s/ && $(NF - 1) < bar { low = 1 } END { exit low }' <<<"$out" || die 1 "below $bar schedules/s"
fi
