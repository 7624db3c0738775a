#!/usr/bin/env bash
# usage: ci/lib/check_no_schedule.sh LIBRARY
#
# Checks that a production library has no trace of schedule points (lib/include/guestmem/detail/schedule.h): no symbol,
# defined or wanted, that has to do with them. ctest runs it as schedule.absent. Exit status 1 if there is one.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

case ${1:-} in
  --help | -h) show_help && exit ;;
esac
if [ $# -ne 1 ] || [ ! -f "$1" ]; then die 2 "wants one library file; see --help"; fi

symbols=$(nm -C "$1" 2>/dev/null) || die 2 "$1: nm cannot read it"
# Or the check below would pass on a file that is not the engine at all.
grep -q 'guestmem::Rcu::Synchronize' <<<"$symbols" || die 2 "$1: not the engine: no guestmem::Rcu::Synchronize in it"
if grep -iE 'schedule(d|_|hooks|point)|AwaitSchedule|SharedWord<|ForgetReaders|LeaveReaders|detail::Mutex::' <<<"$symbols"; then
  die 1 "$1: the lines above are of schedule points, which production code must not have"
fi
