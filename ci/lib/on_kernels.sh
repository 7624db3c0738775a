#!/usr/bin/env bash
# usage: ci/lib/on_kernels.sh sse2|avx|string COMMAND...
#
# Runs COMMAND with the library's bulk kernels of that name, where this CPU has them; without this the widest are used, avx512 where
# the CPU has it. Exit status: the command's; 77 and a line with the reason on a CPU without them.
set -euo pipefail
kernels=$1
shift
case $kernels in
  sse2) needs= ;;
  avx) needs=avx2 ;;
  string) needs=avx512_vbmi2 ;;
  *) echo "on_kernels.sh: there are no kernels '$kernels'" >&2 && exit 2 ;;
esac
if [ -n "$needs" ] && ! grep -qw -- "$needs" /proc/cpuinfo; then
  echo "skipped: the $kernels kernels need $needs, which this CPU has not"
  exit 77
fi
exec env GUESTMEM_KERNELS="$kernels" "$@"
