#!/usr/bin/env bash
# Misuse that must not compile: each line of FILE that ends in `// MISUSE: text` must be refused, at that line and with that text.
# Without these lines the file must compile, so that they are refused for their own reason.
# usage: check.sh FILE COMPILER [FLAG...]
set -euo pipefail
file=$1 compiler=$2
shift 2

# What the compiler says of FILE, whose lines keep their numbers, after awk program $1.
compile() {
  local program=$1
  shift
  { printf '# 1 "%s"\n' "$file"; awk "$program" "$file"; } |
    LC_ALL=C "$compiler" -std=c++20 -fsyntax-only -Werror=unused-result "$limit=0" "$@" -x c++ - 2>&1
}
limit=-fmax-errors
"$compiler" --version | grep -q clang && limit=-ferror-limit

compile '/\/\/ MISUSE: / { print ""; next } { print }' "$@" || { echo "$file does not compile without its marked lines"; exit 1; }
output=$(compile '{ print }' "$@") || true

# An error is told by the lines around its own, up to the errors before and after it (gcc says first where a template is used, clang last).
printf '%s\n' "$output" | awk -v file="$file" '
  FNR == NR { said[++n] = $0; if (/error: /) error[++errors] = n; next }
  function refused(line, text,   e, i, here, there) {
    for (e = 1; e <= errors; ++e) {
      here = there = 0
      for (i = e > 1 ? error[e - 1] + 1 : 1; i <= (e < errors ? error[e + 1] - 1 : n); ++i) {
        here += index(said[i], file ":" line ":") == 1
        there += index(said[i], text) != 0
      }
      if (here && there) return 1
    }
    return 0
  }
  /\/\/ MISUSE: / {
    ++misuses
    text = $0
    sub(/.*\/\/ MISUSE: /, "", text)
    if (!refused(FNR, text)) { ++wrong; printf "%s:%d: compiles, or is not refused with \"%s\":\n%s\n", file, FNR, text, $0 }
  }
  END { print misuses + 0, "misuses,", wrong + 0, "not refused as they should be"; exit misuses == 0 || wrong != 0 }' - "$file"
