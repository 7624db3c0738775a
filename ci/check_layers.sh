#!/usr/bin/env bash
# usage: ci/check_layers.sh [RULE...]
#
# Checks by include lines that no part includes what it must not (ARCHITECTURE.md). ctest runs each rule as layers.RULE.
#
#   model     reference/model includes the C++ library, itself and reference/world, nothing else; so do reference/trace and the model
#             of reference/vmm; reference/world, which the model shares with its subjects, the C++ library and itself alone
#   trap      lib/src/trap, which may run in a signal handler or fault, includes only what the list below allows; files
#             named *_outside.* run in neither context (installing, reporting) and are free, but no file that does includes them
#   order     lib's layers: types, trap, rcu, host, guest: each includes itself and those before it; lib includes no
#             harness and no Abseil (its own absl_status.h excepted)
#   harness   lib <- reference/lockstep <- {fuzz, proptest}; neither of the last two knows the other; fuzz/hostile, which is installed,
#             knows lib's public headers and itself alone
#   folders   the top-level folders are the six
#
# Each offence is a line: file:line: what it includes, and why not. Exit status 1 if there is any.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

# What trap code may include, as whole-word patterns. Nothing here allocates, locks, throws or needs initialising before
# main when used as trap uses it. Keep it short: every line is something to audit.
trap_whitelist='
assert\.h errno\.h pthread\.h signal\.h stddef\.h stdint\.h string\.h ucontext\.h unistd\.h
sys/[a-z]+\.h linux/[a-z]+\.h asm/[a-z]+\.h
atomic bit concepts cstddef cstdint cstring span type_traits
sanitizer/[a-z]+_interface\.h
guestmem/detail/([a-z0-9_]+/)?[a-z0-9_]+\.(h|inc) guestmem/fault\.h guestmem/types\.h guestmem/config\.h
trap/([a-z0-9_]+/)?[a-z0-9_]+\.(h|inc)
'

# The layer of a public header; one that isn't listed belongs to the last layer, and only that may include it.
layers=(types trap rcu host guest)
declare -A header_layer=(
  [types.h]=types
  [status.h]=types
  [absl_status.h]=types
  [backing.h]=types
  [detail/debug_name.h]=types
  [detail/schedule.h]=types
  [detail/schedule_sync.h]=types
  [sharing.h]=types
  [plain.h]=types
  [fault.h]=trap
  [detail/trap_inline.h]=trap
  [detail/x86_64/access.h]=trap
  [detail/host_side.h]=trap
  [rcu.h]=rcu
  [detail/read_section.h]=rcu
  [detail/host_calls.h]=host
  [detail/page_locks.h]=host
  [access_bitmap.h]=host
  [sparse_mapping.h]=host
  [heap_memory.h]=host
  [shared_memory.h]=host
  [event.h]=host
  [memory_mapper.h]=host
  [doorbell.h]=host
  [rom_mapper.h]=host
  [in_process_guest.h]=host
)

offences=0
offend() {  # FILE:LINE INCLUDED REASON
  printf '%s: %s: %s\n' "$1" "$2" "$3"
  offences=$((offences + 1))
}

# "file:line included" for every include line of the C++ and assembler files below the given folders. The included name
# keeps no quotes; one in quotes that names a neighbour gets its folder.
includes() {
  local folders=() folder
  for folder in "$@"; do
    if [ -d "$root/$folder" ]; then folders+=("$folder"); fi
  done
  if [ ${#folders[@]} -eq 0 ]; then return 0; fi
  (cd "$root" && { grep -rnE --include='*.h' --include='*.cc' --include='*.inc' --include='*.S' \
    '^[[:space:]]*#[[:space:]]*include' "${folders[@]}" || true; }) |
    sed -E 's/^([^:]+:[0-9]+):[^<"]*[<"]([^>"]*)[>"].*$/\1 \2/'
}

layer_of_file() {  # a path below lib/
  case $1 in
    lib/src/*/*) local layer=${1#lib/src/} && echo "${layer%%/*}" ;;
    lib/include/guestmem/*) layer_of_include "${1#lib/include/}" ;;
  esac
}
layer_of_include() {  # what stands in the include line; empty: not lib's
  case $1 in
    guestmem/*) echo "${header_layer[${1#guestmem/}]:-guest}" ;;
    types/* | trap/* | rcu/* | host/* | guest/*) echo "${1%%/*}" ;;
  esac
}
rank() {
  local i
  for i in "${!layers[@]}"; do
    if [ "${layers[i]}" = "$1" ]; then echo "$i" && return; fi
  done
  echo -1
}

rule_model() {
  local where what
  while read -r where what; do
    case $what in
      reference/model/* | reference/world/*) ;;
      gtest/* | gmock/*) [[ $where == *_test.cc:* ]] || offend "$where" "$what" "only the model's tests use GoogleTest" ;;
      *[/.]*) offend "$where" "$what" "the model knows only the C++ library, reference/model/ and reference/world/" ;;
    esac
  done < <(includes reference/model)
  while read -r where what; do
    case $what in
      reference/world/*) ;;
      *[/.]*) offend "$where" "$what" "what the model shares with its subjects knows only the C++ library" ;;
    esac
  done < <(includes reference/world)
  while read -r where what; do
    case $what in
      reference/vmm/trace.h | reference/vmm/machine.h | reference/vmm/model*.h | reference/vmm/space_world.h | reference/trace/*) ;;
      *[/.]*) offend "$where" "$what" "the model of the VMM interfaces knows only its traces" ;;
    esac
  done < <(includes reference/vmm | grep -E '^reference/vmm/(trace|machine|model[a-z_]*|space_world)\.')
  while read -r where what; do
    case $what in
      reference/trace/*) ;;
      gtest/* | gmock/*) ;;
      *[/.]*) offend "$where" "$what" "what all sorts of traces share knows none of them" ;;
    esac
  done < <(includes reference/trace)
}

rule_trap() {
  local where what allowed
  allowed="^($(tr -s ' \n' '|' <<<"$trap_whitelist" | sed 's/^|//; s/|$//'))\$"
  while read -r where what; do
    if [[ $where == *_outside.*:* ]]; then continue; fi
    [[ $what =~ $allowed && $what != *_outside.* ]] ||
      offend "$where" "$what" "not on the whitelist of code that may run in a signal handler"
  done < <(includes lib/src/trap)
}

rule_order() {
  local where what own other
  while read -r where what; do
    own=$(layer_of_file "${where%%:*}")
    other=$(layer_of_include "$what")
    case $what in
      reference/* | fuzz/* | proptest/* | lib/* | gtest/* | gmock/* | rapidcheck*)
        offend "$where" "$what" "lib knows nothing of its harness, and its own files by layer or as guestmem/" ;;
      absl/*) [[ $where == lib/include/guestmem/absl_status.h:* ]] ||
        offend "$where" "$what" "lib needs no Abseil; only guestmem/absl_status.h converts to it" ;;
      ../*) offend "$where" "$what" "paths start at lib/src or lib/include" ;;
    esac
    if [ -z "$other" ]; then continue; fi
    if [ "$(rank "$own")" -lt 0 ]; then
      offend "$where" "$what" "lib/src/$own is not a layer; the layers are ${layers[*]}"
    elif [ "$(rank "$other")" -gt "$(rank "$own")" ]; then
      offend "$where" "$what" "layer $own may not know layer $other"
    fi
  done < <(includes lib/src lib/include)
}

rule_harness() {
  local where what
  while read -r where what; do
    case $where:$what in
      reference/*:fuzz/* | reference/*:proptest/*) offend "$where" "$what" "the reference does not know who drives it" ;;
      fuzz/*:proptest/* | proptest/*:fuzz/*) offend "$where" "$what" "fuzz and proptest meet in reference/lockstep only" ;;
      fuzz/hostile/*:fuzz/* | fuzz/hostile/*:reference/* | fuzz/hostile/*:guestmem/detail/*)
        offend "$where" "$what" "an installed kit knows lib's public headers and itself" ;;
      lib/test/*:reference/*) offend "$where" "$what" "lib's unit tests stand on their own" ;;
    esac
  done < <(includes reference fuzz proptest lib/test)
}

rule_folders() {
  local folder
  # What git ignores (build/) does not count; without git, build/ alone.
  while read -r folder; do
    case $folder in
      ci | corpus | fuzz | lib | proptest | reference) ;;
      *) offend "$folder/" "a top-level folder" "the six are ci corpus fuzz lib proptest reference" ;;
    esac
  done < <(cd "$root" && if [ -e .git ]; then
    git ls-files -co --exclude-standard | sed -n 's,/.*,,p'
  else
    find . -mindepth 1 -maxdepth 1 -type d -not -name build -printf '%P\n'
  fi | grep -v '^\.' | sort -u)
}

rules=()
for word in "$@"; do
  case $word in
    --help | -h) show_help && exit ;;
    model | trap | order | harness | folders) rules+=("$word") ;;
    *) die 2 "unknown rule '$word'; known: model trap order harness folders" ;;
  esac
done
if [ ${#rules[@]} -eq 0 ]; then rules=(model trap order harness folders); fi
for rule in "${rules[@]}"; do
  before=$offences
  "rule_$rule"
  printf '%-8s %s\n' "$rule" "$([ "$offences" -eq "$before" ] && echo ok || echo "$((offences - before)) offences")"
done
[ "$offences" -eq 0 ]
