#!/usr/bin/env bash
# usage: ci/lib/msan_libcxx.sh
#
# Builds libc++ with MSan in build/msan-libcxx, for ci/fuzz.sh --sanitizer=memory: MSan has to see every write, and the
# packaged C++ library was built without it. Takes the source from Debian's archive, 165 MB, without touching
# the system's package lists or installing anything. Some minutes, once; with the library in place it does nothing.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"
case ${1-} in
  "") ;;
  --help | -h) show_help && exit ;;
  *) die 2 "unknown argument '$1'; see --help" ;;
esac

dir=$root/build/msan-libcxx
if [ -f "$dir/lib/libc++.a" ]; then
  say "msan_libcxx: $(shown "$dir") is here"
  exit 0
fi
version=$(dpkg-query -W -f '${source:Version}' clang-19)
say "msan_libcxx: download llvm-toolchain-19 $version (source), build libc++ with MSan in $(shown "$dir")"

work=$dir/work
rm -rf -- "$dir"
mkdir -p -- "$work/lists/partial"
cat >"$work/sources.list" <<LIST
deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm main
deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
LIST
apt_here() {  # apt-get with lists and caches of our own
  (cd "$work" && apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$work/lists" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= "$@")
}
apt_here update
apt_here source --download-only "llvm-toolchain-19=$version"

say "unpack what libc++ needs"
mkdir "$work/src"
archive=$(echo "$work"/llvm-toolchain-19_*.orig.tar.xz)
top=$(basename "$archive" .orig.tar.xz)
tar -C "$work/src" --strip-components=1 -xf "$archive" \
  "$top/runtimes" "$top/libcxx" "$top/libcxxabi" "$top/cmake" "$top/llvm/cmake" "$top/llvm/utils/llvm-lit" "$top/third-party" "$top/libc"

cmake -G Ninja -S "$work/src/runtimes" -B "$work/build" -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_INSTALL_PREFIX="$dir" \
  -DCMAKE_C_COMPILER=clang-19 -DCMAKE_CXX_COMPILER=clang++-19 "-DLLVM_ENABLE_RUNTIMES=libcxx;libcxxabi" -DLLVM_USE_SANITIZER=Memory \
  -DLIBCXX_ENABLE_SHARED=OFF -DLIBCXXABI_ENABLE_SHARED=OFF -DLIBCXXABI_USE_LLVM_UNWINDER=OFF -DLIBCXX_INCLUDE_BENCHMARKS=OFF \
  -DLIBCXX_INCLUDE_TESTS=OFF -DLIBCXXABI_INCLUDE_TESTS=OFF -DLLVM_INCLUDE_TESTS=OFF
cmake --build "$work/build" --parallel "$jobs" --target install-cxx install-cxxabi
rm -rf -- "$work"
say "msan_libcxx: built $(shown "$dir")"
