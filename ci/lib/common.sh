# shellcheck shell=bash
# Sourced by the scripts in ci/ and ci/lib/: where we are, how we speak, how we configure.

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/../.." && pwd)
jobs=$(nproc)
export root jobs

say() { printf '== %s\n' "$*"; }
die() {  # die STATUS MESSAGE...
  local status=$1
  shift
  printf '%s: %s\n' "$(basename -- "$0")" "$*" >&2
  exit "$status"
}

# The manual of a script is the comment at its top.
show_help() { awk 'NR > 1 { if (!/^#/) exit; sub(/^# ?/, ""); print }' "$0"; }

# The path of a file as one types it from where one is.
shown() { realpath -s --relative-to="$PWD" -- "$1"; }

# configure PRESET [BUILD_DIR [CMAKE_ARGUMENT...]]: once; from then on ninja reruns CMake by itself where needed.
configure() {
  local preset=$1 dir=${2:-$root/build/$1}
  shift $(($# < 2 ? $# : 2))
  if [ -f "$dir/build.ninja" ] && [ "$root/CMakePresets.json" -ot "$dir/build.ninja" ]; then return; fi
  say "configure $preset in $(shown "$dir")"
  (cd "$root" && cmake --preset "$preset" -B "$dir" "$@")
  touch "$dir/build.ninja"
}

# Sanitizer reports with names and lines. Debian's symbolizer has the version in its name, which the runtimes don't try.
use_symbolizer() {
  local symbolizer=/usr/lib/llvm-19/bin/llvm-symbolizer
  if [ ! -x "$symbolizer" ]; then return; fi
  export ASAN_SYMBOLIZER_PATH=${ASAN_SYMBOLIZER_PATH:-$symbolizer}
  export UBSAN_SYMBOLIZER_PATH=${UBSAN_SYMBOLIZER_PATH:-$symbolizer}
  export MSAN_SYMBOLIZER_PATH=${MSAN_SYMBOLIZER_PATH:-$symbolizer}
  export TSAN_OPTIONS=${TSAN_OPTIONS:-external_symbolizer_path=$symbolizer}
}
