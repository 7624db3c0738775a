#!/usr/bin/env bash
# usage: handler_calls_check.sh 'OBJECT;...'
#
# Code that runs in signal context may not enter the dynamic linker: of the object files given, those named *_inside.cc.* may call
# nothing through a procedure linkage table, and need no symbol of others but those below. ctest runs it as handler_calls.
set -euo pipefail

# async-signal-safe by signal-safety(7), by what they are (memcpy, memset), or ours and in signal context too.
allowed='sigaction|raise|pthread_sigmask|sigaddset|sigemptyset|__errno_location|memcpy|memset|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail'
# The guards are the registrar's, which runs when the object is loaded.
allowed+='|__cxa_guard_(acquire|release)|guestmem_copy_to_guest_sse2|_ZN8guestmem.*|__(start|stop)_guestmem_traps'

IFS=';' read -ra objects <<<"$1"
seen=0 status=0
for object in "${objects[@]}"; do
  case $object in *_inside.cc.*) ;; *) continue ;; esac
  seen=$((seen + 1))
  # A call through the table has a PLT relocation; to what is in the object itself or hidden it needs none.
  if calls=$(readelf --relocs --wide "$object" | awk '$3 ~ /PLT/ { print $5 }' | sort -u |
    grep -vxF -f <(nm --defined-only "$object" | awk '{ print $3 }')); then
    echo "$object: bound on first use: $calls" && status=1
  fi
  if others=$(nm --undefined-only "$object" | awk '{ print $2 }' | grep -vxE "$allowed"); then
    echo "$object: needs $others" && status=1
  fi
done
[ "$seen" -ge 3 ] || { echo "only $seen object files of signal context were given" && status=1; }
exit $status
