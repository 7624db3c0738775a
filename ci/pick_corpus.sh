#!/usr/bin/env bash
# usage: ci/pick_corpus.sh [--dry-run] [--rapidcheck] [TARGET...]
#
# Rewrites corpus/TARGET/ (default: every target) with the smallest set of inputs, out of what is checked in and what
# fuzzing found with any engine (build/fuzz/corpus/TARGET/), that reaches all the coverage features which the seeds don't reach by
# themselves: at most 300 files and 256 KiB a target. Files named regression-* always stay.
# Sets up and builds as ci/fuzz.sh does. Changes the working tree, not git: look at it and commit what is good.
#
#   --dry-run      only the table
#   --rapidcheck   choose also from 20,000 traces that rapidcheck makes of the corpus (proptest/corpus_property_test.cc)
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

known=()
for source in "$root"/fuzz/*_fuzzer.cc; do
  if [ -e "$source" ]; then known+=("$(basename -- "$source" .cc)"); fi
done
options=()
targets=()
rapidcheck=false
for word in "$@"; do
  case $word in
    --help | -h) show_help && exit ;;
    --dry-run) options+=(--dry-run) ;;
    --rapidcheck) rapidcheck=true ;;
    -*) die 2 "unknown option '$word'; see --help" ;;
    *)
      if [[ " ${known[*]} " != *" $word "* ]]; then die 2 "unknown target '$word'; known: ${known[*]}"; fi
      targets+=("$word")
      ;;
  esac
done
if [ ${#targets[@]} -eq 0 ]; then targets=("${known[@]}"); fi
if [ ${#targets[@]} -eq 0 ]; then die 2 "there are no targets in $(shown "$root/fuzz")"; fi

say "pick_corpus: set up, build in $(shown "$root/build/fuzz"), then rewrite corpus/ for: ${targets[*]}"
"$root/ci/setup.sh"
use_symbolizer
configure fuzz
cmake --build "$root/build/fuzz" --parallel "$jobs" --target fuzzers
if $rapidcheck; then
  generated=$root/build/rapidcheck
  say "rapidcheck: traces to $(shown "$generated")"
  configure default
  cmake --build "$root/build/default" --parallel "$jobs" --target corpus_property_test
  rm -rf -- "$generated"
  mkdir -p -- "$generated"
  GUESTMEM_SAVE_TRACES=$generated "$root/build/default/proptest/corpus_property_test" "--gtest_filter=CorpusProperty.*"
  options+=(--more "$generated")
fi
exec python3 "$root/ci/lib/pick_corpus.py" --build "$root/build/fuzz" "${options[@]}" "${targets[@]}"
