#!/usr/bin/env bash
# usage: check.sh static|shared|pkgconfig SOURCE_DIR BUILD_DIR CXX
#
# Installs the library below BUILD_DIR/lib/consumer, moves what was installed, and builds and runs the project beside this
# script against it: with find_package (static, shared) or with what pkg-config says (pkgconfig: both kinds, and every public
# header once). The static library is the one of BUILD_DIR. The shared one is built here, with neither tests nor fuzzers nor
# optimization, and with Abseil out of sight, which it must not need. ctest runs each as install.MODE.
set -euo pipefail

[ $# -eq 4 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" && exit 2; }
mode=$1 source=$2 built=$3 work=$3/lib/consumer cxx=$4
here=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export CXX=$cxx
unset CXXFLAGS LDFLAGS
mkdir -p "$work"

build_shared() {
  local log=$work/shared.log
  { cmake -S "$source" -B "$work/shared.build" -G Ninja -DGUESTMEM_TESTS=OFF -DGUESTMEM_FUZZ=OFF -DGUESTMEM_KITS=OFF -DCMAKE_BUILD_TYPE=Debug \
    -DBUILD_SHARED_LIBS=ON -DCMAKE_DISABLE_FIND_PACKAGE_absl=ON && cmake --build "$work/shared.build"; } >"$log" 2>&1 ||
    { cat "$log" && exit 1; }
  if nm -C "$work"/shared.build/lib/libguestmem.so | grep -F 'absl::'; then echo "the library uses Abseil" && exit 1; fi
}

# Installs, and moves what was installed: nothing in it may say where it was.
install_to() {  # KIND: static or shared
  local from=$built
  if [ "$1" = shared ]; then
    build_shared
    from=$work/shared.build
  fi
  rm -rf "$work/$1" "$work/$1.first"
  cmake --install "$from" --prefix "$work/$1.first" >"$work/$1.install.log"
  mv "$work/$1.first" "$work/$1"
}

with_find_package() {  # KIND
  rm -rf "$work/$1.consumer"
  cmake -S "$here" -B "$work/$1.consumer" -G Ninja -DCMAKE_PREFIX_PATH="$work/$1" -DCMAKE_BUILD_TYPE=Release |
    grep -F 'found guestmem'
  cmake --build "$work/$1.consumer"
  "$work/$1.consumer/consumer"
  if [ "$1" = shared ]; then "$work/$1.consumer/without"; fi
}

with_pkg_config() {  # KIND
  export PKG_CONFIG_PATH=$work/$1/lib/pkgconfig
  local out=$work/$1.pkgconfig cflags libs header
  read -ra cflags <<<"$(pkg-config --cflags guestmem)"
  read -ra libs <<<"$(pkg-config --libs guestmem)"
  echo "$1: ${cflags[*]} ${libs[*]}"
  rm -rf "$out" && mkdir -p "$out"
  if [ "$1" = shared ]; then
    "$cxx" -std=c++20 -O1 -fPIC -shared "${cflags[@]}" "$here/plugin.cc" "${libs[@]}" "-Wl,-rpath,$work/$1/lib" -o "$out/plugin.so"
    libs+=("-Wl,-rpath,$work/$1/lib")
  else
    "$cxx" -std=c++20 -O1 -fPIC -shared "${cflags[@]}" "$here/plugin.cc" -o "$out/plugin.so"
    libs=(-Wl,--whole-archive "${libs[@]}" -Wl,--no-whole-archive -rdynamic)
  fi
  "$cxx" -std=c++20 -O1 "${cflags[@]}" "-DPLUGIN=\"$out/plugin.so\"" "$here/main.cc" "${libs[@]}" -ldl -o "$out/consumer"
  "$out/consumer"
  # With wider vectors, which gcc 12 would like to use where it cannot.
  "$cxx" -std=c++20 -O2 -march=haswell "${cflags[@]}" -DPLUGIN='""' -c "$here/main.cc" -o /dev/null
  for header in "$work/$1"/include/guestmem/*.h; do
    [ "${header##*/}" = absl_status.h ] || echo "#include \"guestmem/${header##*/}\""
  done >"$out/headers.cc"
  "$cxx" -std=c++20 -Wall -Wextra -Werror -fsyntax-only "${cflags[@]}" "$out/headers.cc"
}

case $mode in
  static | shared)
    install_to "$mode"
    with_find_package "$mode"
    ;;
  pkgconfig)
    for kind in static shared; do
      install_to $kind
      with_pkg_config $kind
    done
    ;;
  *) echo "unknown mode '$mode'; known: static shared pkgconfig" >&2 && exit 2 ;;
esac
echo "$mode: ok"
