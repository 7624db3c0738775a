#!/usr/bin/env bash
# usage: ci/check_docs.sh [RULE...]
#
# Does what is written about the tree agree with it? ctest runs each rule as docs.RULE.
#
#   citations  "SPEC 7", "SPEC 3.5", "SPEC 4 and 8", "(D12)" in sources, seeds, patches and documents, and the s7_ or d12_ in
#              a seed's name: reference/SPEC.md has that section, step or row
#   links      in *.md: a link, a path or a header in backticks, an #include. Each document that any file mentions exists
#   commands   a file or folder in ci/ that any file mentions exists; in *.md, the script knows the option, and the tools of
#              fuzz/ the command; each script in ci/ prints its manual, and the README names it or something runs it
#   tree       the rooms in ARCHITECTURE.md and README.md are the folders that are there; what is marked "(next)", or stands
#              under "Next", isn't
#   names      no two scripts of ci/ or programs of fuzz/ differ by one letter or a hyphen
#   words      README.md, ARCHITECTURE.md and the public headers are free of some riddles that they once had
#
# Each offence is a line: file:line: what is wrong. Exit status 1 if there is any. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

case ${1-} in
  --help | -h) show_help && exit ;;
esac
exec python3 "$root/ci/lib/check_docs.py" "$root" "$@"
