#!/usr/bin/env bash
# usage: check_output.sh PROGRAM SOURCE
#
# Runs an example and compares what it prints with the lines below "// Prints:" at the top of its source. ctest calls it as
# example.NAME. Exit status: 0 they agree; 77 the example says why it cannot run here, and exits with 77; 1 else.
set -euo pipefail

expected=$(awk '/^\/\/ Prints:/ { on = 1; next } on && !/^\/\/   / { exit } on { sub(/^\/\/   /, ""); print }' "$2")
if [ -z "$expected" ]; then
  printf '%s does not say what it prints\n' "$2" >&2
  exit 1
fi
status=0
actual=$("$1") || status=$?
if [ "$status" -eq 77 ]; then
  printf '%s\n' "$actual"
  exit 77
fi
diff -u --label "what $(basename -- "$2") says it prints" --label "what it prints" <(printf '%s\n' "$expected") <(printf '%s\n' "$actual")
exit "$status"
