#!/usr/bin/env bash
# usage: check_finding.sh PROGRAM FINDING
#
# Replays the finding: the program must show the verdict that the finding's second line names, and tell it in at most 12 lines.
# ctest calls it as hostile.NAME. Exit status: 0 it does; 1 else.
set -euo pipefail

program=$1 finding=$2
expected=$(sed -n '2s/^# \([^:]*\):.*/\1/p' "$finding")
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT

status=0
actual=$("$program" --replay "$finding") || status=$?
if [ -z "$expected" ] || [ "$status" -ne 1 ] || [ "$actual" != "$finding: $expected" ]; then
  printf 'expected the verdict "%s", got: %s (exit status %d)\n' "$expected" "$actual" "$status"
  exit 1
fi
GUESTMEM_HOSTILE_OUT=$out "$program" --explain "$finding" 2>"$out/story" || true
sed -i '0,/^$/d' "$out/story"  # what the device itself printed when it crashed
lines=$(wc -l <"$out/story")
cat "$out/story"
if [ "$lines" -gt 12 ] || ! head -1 "$out/story" | grep -q "^$expected: "; then
  printf 'no story of at most 12 lines (%d) that begins with the verdict\n' "$lines"
  exit 1
fi
