#!/usr/bin/env bash
# usage: ci/setup.sh [--check] [--afl] [--compilers] [--all]
#
# Installs the Debian packages that guestmem's scripts need and that are missing, after saying which and why.
# With everything in place it does nothing and says so in one line.
#
#   --check   only report: what is missing and the command that installs it; exit status 1 if anything is
#   --afl     also AFL++, which ci/fuzz.sh --engine=afl needs
#   --compilers   also every compiler of Debian 12 that the library supports, for ci/compilers.sh
#   --all     also what nothing has to have (AFL++, hyperfine)
#
# As root it uses apt-get, else sudo; with neither it names the command and ends with status 1.
set -euo pipefail
# shellcheck source=ci/lib/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/lib/common.sh"

# package | a command that will do instead of the package, or - | why
packages="
cmake|cmake|configures the build (3.25 or newer)
ninja-build|ninja|builds
pkg-config|pkg-config|the installed library is tested through it
g++|g++|the second compiler, and the C++ runtime of both
clang-19|clang++-19|the main compiler: C++20, sanitizers, libFuzzer
libclang-rt-19-dev|-|sanitizer and libFuzzer runtimes
lld-19|ld.lld-19|the second linker: recovery tables must survive it
llvm-19|llvm-symbolizer-19|names and lines in sanitizer reports and in the stories of fuzz/hostile; coverage
libgtest-dev|-|GoogleTest: unit tests
libgmock-dev|-|GoogleMock: matchers in unit tests
librapidcheck-dev|-|rapidcheck: properties
libabsl-dev|-|Abseil: the trace tool; conversions to its status types
libbenchmark-dev|-|Google Benchmark: speed
patch|patch|the variants of fuzz/hostile
python3|python3|drives the fuzzers (standard library only)
"
afl="afl++|afl-fuzz|the second fuzzing engine
"
compilers="g++-11|g++-11|the oldest gcc
clang-22|clang++-22|the newest clang, of Debian's security updates
libclang-rt-22-dev|-|its sanitizer runtimes
lld-22|ld.lld-22|its LTO
llvm-22|llvm-profdata-22|its profiles
"
later="
hyperfine|hyperfine|times whole programs
"

check=false
for word in "$@"; do
  case $word in
    --check) check=true ;;
    --afl) packages+=$afl ;;
    --compilers) packages+=$compilers ;;
    --all) packages+=$afl$later ;;
    --help | -h) show_help && exit ;;
    *) die 2 "unknown argument '$word'; see --help" ;;
  esac
done

command -v dpkg-query >/dev/null || die 1 "this system has no dpkg; install by hand what $(shown "$root/ci/setup.sh") lists"
names=$(cut -d'|' -f1 <<<"$packages")
# shellcheck disable=SC2016,SC2086  # the format is dpkg-query's; the names are words
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $names 2>/dev/null | sed -n 's/^installed //p' || true)

missing=()
reasons=
while IFS='|' read -r package substitute reason; do
  if [ -z "$package" ] || grep -qxF -- "$package" <<<"$installed"; then continue; fi
  if [ "$substitute" != - ] && command -v "$substitute" >/dev/null; then continue; fi
  missing+=("$package")
  reasons+=$(printf '  %-20s %s' "$package" "$reason")$'\n'
done <<<"$packages"

if [ ${#missing[@]} -eq 0 ]; then
  say "setup: all packages are here"
  exit 0
fi

command="apt-get install -y --no-install-recommends ${missing[*]}"
say "setup: missing packages"
printf '%s' "$reasons"
if $check; then
  printf 'install them with:\n  %s\n' "$command"
  exit 1
fi

become=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    die 1 "not root, and there is no sudo; as root, run:
  apt-get update && $command"
  fi
  become=(sudo)
  if [ ! -t 0 ]; then become+=(-n); fi  # nobody there to type a password
fi
say "setup: will run '${become[*]:+${become[*]} }apt-get update', then '${become[*]:+${become[*]} }$command'"
"${become[@]}" apt-get update -q
"${become[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" ||
  die 1 "apt-get could not install them (above); clang-19 is in Debian 12's own archive, so check the sources for 'bookworm main'"
say "setup: installed ${#missing[@]} packages"
