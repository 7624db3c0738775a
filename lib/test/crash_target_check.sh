#!/usr/bin/env bash
# usage: crash_target_check.sh CRASH_TARGET
#
# Holds a build of crash_target.cc (with -fsanitize=fuzzer) to its promise: a genuine crash ends it with a status other than
# 0, a report with a stack trace, and the input saved as crash-*; a recovered fault alone ends it with 0.
set -euo pipefail

target=$(realpath -- "$1")
dir=$(mktemp -d)
trap 'rm -rf -- "$dir"' EXIT
ulimit -c 0

fail() {
  printf 'crash_target_check.sh: %s\n' "$1" >&2
  cat "$dir/log" >&2
  exit 1
}

# run INPUT_TEXT ARGUMENT...: in a fresh folder; the exit status in `status`
run() {
  rm -rf -- "$dir/work" && mkdir "$dir/work" "$dir/work/corpus"
  printf '%s' "$1" >"$dir/work/corpus/input"
  shift
  status=0
  (cd "$dir/work" && "$target" "$@") >"$dir/log" 2>&1 || status=$?
}

# crashes INPUT_TEXT ARGUMENT...
crashes() {
  run "$@"
  [ "$status" -ne 0 ] || fail "input '$1' ($2) must crash and ended with 0"
  grep -qE 'ERROR: (libFuzzer: deadly signal|[A-Za-z]+Sanitizer: (SEGV|BUS))' "$dir/log" || fail "input '$1' ($2): no report"
  grep -qE '^ *#[0-9]+ 0x' "$dir/log" || fail "input '$1' ($2): no stack trace"
}

saved() {
  local file
  for file in "$dir"/work/crash-*; do
    if [ -f "$file" ] && cmp -s "$file" "$dir/work/corpus/input"; then return 0; fi
  done
  return 1
}

for input in 'W wild' 'H host buffer'; do
  crashes "$input" corpus/input  # replaying one input, which libFuzzer does not save again
  crashes "$input" corpus -runs=100
  saved || fail "input '$input': no crash-* file with the same content"
done
run 'neutral' corpus/input
[ "$status" -eq 0 ] || fail "the neutral input ended with $status"
run 'neutral' corpus/input -runs=1000  # the same input, not mutations of it
[ "$status" -eq 0 ] || fail "a thousand recovered faults ended with $status"
