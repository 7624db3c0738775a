#!/usr/bin/env bash
# usage: ci/check_oss_fuzz.sh [--sanitizer=address|undefined]
#
# Asks here, without a container engine, what OSS-Fuzz and ClusterFuzzLite ask of a build: runs ci/oss-fuzz/build.sh with
# their environment variables and flags (and clang-19) on a copy of the tree in build/oss-fuzz/SANITIZER, then holds
# every target in $OUT to their rules. A table at the end; what a column means is printed under it.
#
# The targets run as they do there: $OUT in another place and read-only, only /tmp writable, options merged from
# TARGET.options over defaults that ask the sanitizer to keep SIGSEGV and SIGBUS. This needs a mount namespace: root, or
# user namespaces that are allowed. Last, a planted wild crash has to be reported from there.
#
#   --sanitizer   address (default) or undefined. memory needs a C++ library built with MSan, which their image has and
#                 this system lacks
#
# Exit status: 0 all checks passed; 1 one failed; 2 bad arguments. Works from any directory.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

sanitizer=address
while [ $# -gt 0 ]; do
  case $1 in
    --help | -h) show_help && exit ;;
    --sanitizer) [ $# -ge 2 ] || die 2 "--sanitizer wants a name; see --help"; set -- "--sanitizer=$2" "${@:3}" && continue ;;
    --sanitizer=address | --sanitizer=undefined) sanitizer=${1#*=} ;;
    --sanitizer=*) die 2 "cannot check sanitizer '${1#*=}'; address and undefined can be, see --help" ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
  esac
  shift
done

dir=$root/build/oss-fuzz/$sanitizer
say "check_oss_fuzz: copy the tree, build with $sanitizer in $(shown "$dir"), then check every target"
"$root/ci/setup.sh"
use_symbolizer

# The folders of their image. The copy has what git would give them, and the changes not yet committed.
export SRC=$dir/src WORK=$dir/work OUT=$dir/out
rm -rf -- "$SRC" "$OUT"
mkdir -p -- "$SRC/guestmem" "$WORK" "$OUT"
(cd "$root" && git ls-files -z --cached --others --exclude-standard | while IFS= read -r -d '' file; do
  if [ -e "$file" ]; then printf '%s\0' "$file"; fi
done | xargs -0 cp -p --parents -t "$SRC/guestmem")
cp -- "$root/ci/oss-fuzz/build.sh" "$SRC/"

# Their flags in meaning: line tables, -O1, the sanitizer, coverage by -fsanitize=fuzzer-no-link. They link libc++ statically;
# here it is libstdc++, also statically, so that a library missing from the image that runs the targets shows.
case $sanitizer in
  address) sanitizer_flags="-fsanitize=address -fsanitize-address-use-after-scope" ;;
  undefined)
    checks=array-bounds,bool,float-divide-by-zero,function,integer-divide-by-zero,return,shift,signed-integer-overflow,vla-bound,vptr
    sanitizer_flags="-fsanitize=$checks,unsigned-integer-overflow -fno-sanitize-recover=$checks"
    ;;
esac
export SANITIZER=$sanitizer FUZZING_ENGINE=libfuzzer ARCHITECTURE=x86_64 FUZZING_LANGUAGE=c++
export CC=clang-19 CXX=clang++-19 LIB_FUZZING_ENGINE=-fsanitize=fuzzer
export CFLAGS="-O1 -fno-omit-frame-pointer -gline-tables-only $sanitizer_flags -fsanitize=fuzzer-no-link"
export CXXFLAGS="$CFLAGS" LDFLAGS=-static-libstdc++

say "build.sh in $(shown "$SRC")"
(cd "$SRC" && bash -eu build.sh)
exec python3 "$root/ci/lib/check_oss_fuzz.py"
