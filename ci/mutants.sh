#!/usr/bin/env bash
# usage: ci/mutants.sh [--seconds N] [--seeds N] [--ablation] [--mutators] [--tests] [--again] [MUTANT...]
#        ci/mutants.sh list | check | refresh
#
# Is the harness blind? Plants the bugs of ci/mutants/*.patch in a copy of the tree (build/mutants/tree), one at a time, and
# hunts each, one hunt a core:
#
#   corpus         corpus/ and corpus/seeds/ through each fuzz target, plain build
#   from nothing   libFuzzer, plain build, N seconds in all over the targets, from an empty corpus; once a seed
#
# and takes what noticed it through ci/repro.sh: how many operations the minimal trace has, how long it took, and whether the
# C++ test it wrote fails on the mutant and passes on the engine. The unchanged tree goes first and must stay quiet. Ends with
# a table: seconds to the kill and executions. A mutant counts as killed if the corpus does it, or every seed from nothing.
#
# What no trace can show is not hunted. A second line in the head of such a patch names who judges it instead, and the mutant
# counts as killed if that fails with it and passes on the unchanged tree:
#
#   # unit: NAME_test        this unit test, run by ctest
#   # compiler: TARGET       this library of lib/CMakeLists.txt, which must not compile with the patch
#
#   MUTANT       by name, as list shows them (default: all)
#   --seconds N  most fuzzing a mutant and seed (default 60)
#   --seeds N    hunts from nothing, by different random numbers (default 3; 0: only the corpus)
#   --ablation   the same hunts once more with the model's judgement off, under ASan and UBSan: what would they alone notice?
#   --mutators   the hunts from nothing once more with libFuzzer's own mutations alone: is fuzz/mutator.cc worth having?
#   --tests      also the unit tests, properties, enumerations and schedules
#   --again      forget earlier results (build/mutants/results.json); without it, what was run on the same sources (but for
#                tests) is kept, so an interrupted run, or one with more seeds, goes on where it stopped; a change of what
#                ci/repro.sh alone uses repeats that step alone
#   list         the mutants, and what mistake each imitates
#   check        whether each patch applies to this tree, in one place, and the judge that its head names exists
#   refresh      rewrite the patches whose surroundings have moved, where patch(1) still finds their place
#
# Exit status: 0 every mutant was killed, and, if hunted, shown by a test of at most 6 operations, and the unchanged tree was quiet; 1 not so;
# 2 bad arguments or a patch that doesn't apply or build; 130 interrupted. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

case ${1-} in
  --help | -h) show_help && exit ;;
  list | check | refresh) exec python3 "$root/ci/lib/mutants.py" "$1" ;;
esac
"$root/ci/setup.sh"
exec python3 "$root/ci/lib/mutants.py" run "$@"
