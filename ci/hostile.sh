#!/usr/bin/env bash
# usage: ci/hostile.sh [--seeds N] [--good SECONDS] [--without-changes] [NAME...]
#
# Does the hostile guest of fuzz/hostile find what it should? Each of fuzz/hostile/variants, the example device with one mistake, under
# libFuzzer without a sanitizer, from an empty corpus, for at most 10 s a seed. Then the device meant to be good. Prints a table: the
# seeds that found the mistake, the slowest of them in seconds (to the end of its story), the verdicts; and the good device's inputs
# a second, of 8 requests each.
#
#   --seeds N           seeds a variant (default 10)
#   --good SECONDS      how long the good device is fuzzed (default 10)
#   --without-changes   the guest changes nothing between two fetches: what is missed then?
#   NAME...             only these variants
#
# Exit status: 0 every seed found its mistake, and nothing was found in the good device (with --without-changes: only the latter); 1 else;
# 2 bad arguments. Works from any directory. Builds in build/hostile.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

seeds=10 good=10 limit=10 names=() changes=true
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) show_help && exit ;;
    --seeds | --good)
      [[ ${2-} =~ ^[1-9][0-9]{0,5}$ ]] || die 2 "$1 wants a number from 1 on"
      if [ "$1" = --seeds ]; then seeds=$2; else good=$2; fi
      shift
      ;;
    --without-changes) export GUESTMEM_HOSTILE_WITHOUT_CHANGES=1 && changes=false ;;
    -*) die 2 "unknown option '$1'; see --help" ;;
    *)
      [ -f "$root/fuzz/hostile/variants/$1.patch" ] || die 2 "no variant '$1' in fuzz/hostile/variants"
      names+=("$1")
      ;;
  esac
  shift
done
if [ ${#names[@]} -eq 0 ]; then
  for patch in "$root"/fuzz/hostile/variants/*.patch; do names+=("$(basename -- "$patch" .patch)"); done
fi

dir=$root/build/hostile
say "hostile: build in $(shown "$dir"), then ${#names[@]} variant(s), $seeds seed(s) each, and the good device for $good s"
"$root/ci/setup.sh"
configure fuzz-plain "$dir"
cmake --build "$dir" --parallel "$jobs" --target virtio_block "${names[@]/#/hostile_}"
work=$dir/runs
rm -rf "$work" && mkdir -p "$work"
export GUESTMEM_HOSTILE_OUT=$work

status=0
printf '%-26s %8s %9s  %s\n' variant found slowest verdicts
for name in "${names[@]}"; do
  found=0 slowest=0 verdicts=
  for ((seed = 1; seed <= seeds; ++seed)); do
    log=$work/$name-$seed.log
    begin=$(date +%s%N)
    ended=0
    "$dir/fuzz/hostile/hostile_$name" -seed="$seed" -max_total_time=$limit -artifact_prefix="$work/$name-$seed-" >"$log" 2>&1 || ended=$?
    took=$((($(date +%s%N) - begin) / 10000000))
    if [ "$ended" -eq 0 ]; then continue; fi
    found=$((found + 1))
    if [ "$took" -gt "$slowest" ]; then slowest=$took; fi
    verdict=$(grep -m1 -oE '^(double fetch|store outside|forbidden|use after unlock|accesses|work|memory|spinning)' "$log" || echo crash)
    case ,$verdicts, in *",$verdict,"*) ;; *) verdicts+=${verdicts:+,}$verdict ;; esac
  done
  printf '%-26s %4d/%-3d %6d.%02d  %s\n' "$name" "$found" "$seeds" $((slowest / 100)) $((slowest % 100)) "${verdicts:-none}"
  if $changes && { [ "$found" -ne "$seeds" ] || [ "$slowest" -gt $((100 * limit)) ]; }; then status=1; fi
done

say "the good device: $good s of libFuzzer, then random inputs of 8 requests"
mkdir "$work/corpus"
"$dir/fuzz/hostile/virtio_block" -max_total_time="$good" -artifact_prefix="$work/good-" -print_final_stats=1 "$work/corpus" >"$work/good.log" 2>&1 ||
  { tail -20 "$work/good.log" && status=1; }
grep -E 'number_of_executed_units|average_exec_per_sec' "$work/good.log" || true
"$dir/fuzz/hostile/virtio_block" --random 100000 || status=1
exit $status
