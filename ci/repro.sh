#!/usr/bin/env bash
# usage: ci/repro.sh TARGET INPUT [--keep]
#
# From a saved fuzzer input to a trace a person can read: builds if needed, replays INPUT on TARGET, prints the trace with
# the op where engine and model differ (expected against actual), then a minimal trace that diverges alike, and writes it to
# build/repro/NAME.trace.
#
#   --keep   also keep INPUT as corpus/TARGET/regression-NAME and the minimal trace as corpus/seeds/regression_NAME.trace:
#            ctest replays both from then on; commit them with the fix
#
# Exit status: 0 the input passes now, 1 it diverges or crashes, 2 an unusable argument. Works from any directory.
set -euo pipefail
# shellcheck source=ci/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

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

dir=$root/build/default
say "repro: build $target, replay $(shown "$input"), minimise"
"$root/ci/setup.sh"
configure default "$dir"
cmake --build "$dir" --parallel "$jobs" --target "$target" trace >"$root/build/repro.log" 2>&1 ||
  { cat "$root/build/repro.log" >&2 && die 2 "the build failed"; }

name=$(sha256sum -- "$input" | cut -c1-12)
trace=$root/build/repro/$name.trace
mkdir -p -- "$root/build/repro"
rm -f -- "$trace"
status=0
GUESTMEM_SAVE_TRACE=$trace "$dir/fuzz/$target" "$input" || status=$?
if [ "$status" -eq 0 ]; then
  say "passes: no divergence, no crash"
  exit 0
fi
if [ -s "$trace" ]; then
  say "minimal trace: $(shown "$trace") ($(sed '1,/^ops$/d' "$trace" | wc -l) ops)"
  say "run it again: $(shown "$dir/fuzz/trace") run $(shown "$trace")"
else
  say "not a divergence: the process ended with status $status; the report is above"
fi
if $keep; then
  cp -- "$input" "$root/corpus/$target/regression-$name"
  if [ -s "$trace" ]; then cp -- "$trace" "$root/corpus/seeds/regression_$name.trace"; fi
  say "kept: corpus/$target/regression-$name; commit it with the fix"
else
  say "keep it as a regression: ci/repro.sh $target $(shown "$input") --keep"
fi
exit 1
