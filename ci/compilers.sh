#!/usr/bin/env bash
# usage: ci/compilers.sh [--compiler NAME]... [--variant NAME]... [--functions N] [--seed N] [--function NAME]... [--list]
#
# Do all compilers get guest accesses right? Writes some hundred small functions with all sorts of control flow round plain
# accesses and Try calls (ci/lib/compilers_functions.py), some of which fault, and compiles each twice: over the library
# and over raw memory. Both must return the same and leave the same bytes. So with every compiler of Debian 12 that the library supports,
# at -O0, -Og, -O1, -O2, -O3 and -Os, all functions cold or not, with LTO, profiles, sanitizers and options that reorder code.
# Compiles the library anew for each. Installs what is missing. Ends with a table, compiler by variant; some 30 minutes in all.
#
#   --compiler NAME   g++-11, g++-12, clang++-19, clang++-22, or any command (default: these four)
#   --variant NAME    one of those that --list shows (default: all)
#   --functions N     how many (default 300)
#   --seed N          other functions (default 1)
#   --function NAME   only this one, as a mismatch names it
#   --list            the variants
#
# ctest runs a sample with the build's own compiler (compilers.*). Programs that fail stay in build/compilers.
# Exit status: 0 all agree; 1 not so; 2 bad arguments. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

case " $* " in
  *" --help "* | *" -h "*) show_help && exit ;;
  *" --list "*) exec python3 "$root/ci/lib/compilers.py" --list ;;
esac
say "compilers: set up, compile in $(shown "$root/build/compilers"), run, compare"
"$root/ci/setup.sh" --compilers
exec python3 "$root/ci/lib/compilers.py" "$@"
