#!/usr/bin/env bash
# usage: ci/one_token_mutants.sh [--sample N] [--seed N] [--jobs N] [--again | --again-survivors] [--list] [KEY...]
#
# What do the tests not see? Changes one token of lib/src or lib/include at a time (relations, arithmetic, constants, negated
# conditions, forced branches, removed statements), builds it and asks, until one notices: the corpora and seeds in lockstep
# with the model, the unit tests, a short property run, and schedules where those could see it. What compiles to the same code
# is no mutant. Ends with a table by operator and with each survivor: its change, and its class and reason if
# ci/lib/one_token_survivors.txt has them (equivalent, performance, elsewhere, hole).
#
#   --sample N         so many, each operator in turn (default 300)
#   --seed N           which (default 1)
#   --jobs N           so many at a time, each in a tree of its own (default: one a core)
#   --again            forget earlier results (build/one_token_mutants/results.json); without it an interrupted run goes on where it stopped
#   --again-survivors  ask again about those that survived
#   --list             only show what would be changed
#   KEY                these mutants instead of a sample
#
# Exit status: 0 every survivor is classified and none is a hole; 1 not so; 130 interrupted. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

case ${1-} in
  --help | -h) show_help && exit ;;
esac
"$root/ci/setup.sh"
exec python3 "$root/ci/lib/one_token_mutants.py" "$@"
