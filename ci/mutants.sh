#!/usr/bin/env bash
# usage: ci/mutants.sh [--seconds N] [--quick] [--again] [MUTANT...]
#        ci/mutants.sh list | check | refresh
#
# Is the harness blind? Plants the bugs of ci/mutants/*.patch in a copy of the tree (build/mutants/tree), one at a time,
# and lets everything that should notice hunt each:
#
#   seeds        corpus/ and corpus/seeds/ through each fuzz target, plain build
#   fuzz         libFuzzer, plain build, N seconds in all over the lockstep targets; from the corpus if that alone didn't
#                notice, else from nothing
#   unit         the unit tests of lib/ and reference/, schedules included
#   property     proptest/lockstep_property_test
#   exhaustive   proptest/exhaustive_test
#   schedule     fuzz/schedule search: every schedule of the scenarios, then 10 s of random ones
#
# The unchanged tree goes first and must stay quiet. Only files that a patch changes are built again. Ends with a table: who
# noticed, after how long and how many executions.
#
#   MUTANT       by name, as list shows them (default: all)
#   --seconds N  most fuzzing a mutant (default 60)
#   --quick      stop hunting a mutant at its first kill
#   --again      forget earlier results (build/mutants/results.json); without it, what was run on the same sources is kept,
#                so an interrupted run goes on where it stopped
#   list         the mutants, and what mistake each imitates
#   check        whether each patch applies to this tree
#   refresh      rewrite the patches whose surroundings have moved, where patch(1) still finds their place
#
# Exit status: 0 every mutant was killed and the unchanged tree was quiet; 1 not so; 2 bad arguments or a patch that
# doesn't apply or build; 130 interrupted. Works from any directory.
set -euo pipefail
# shellcheck source=ci/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

case ${1-} in
  --help | -h) show_help && exit ;;
  list | check | refresh) exec python3 "$root/ci/mutants.py" "$1" ;;
esac
"$root/ci/setup.sh"
exec python3 "$root/ci/mutants.py" run "$@"
