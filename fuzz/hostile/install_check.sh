#!/usr/bin/env bash
# usage: install_check.sh SOURCE_DIR BUILD_DIR CXX
#
# What the page of the kit (README.md beside this script) tells a new user, done as it says: installs BUILD_DIR's library and kit, puts the
# page's two files into an empty folder, builds, and runs. The mistake of the page's device must be found, by libFuzzer where the compiler
# is clang, and the finding must replay; with the mistake mended nothing is found. ctest runs it as install.hostile.
set -euo pipefail

[ $# -eq 3 ] || { sed -n '2,6s/^# \{0,1\}//p' "$0" && exit 2; }
source=$1 work=$2/fuzz/hostile/installed
export CXX=$3
unset CXXFLAGS LDFLAGS
page=$source/fuzz/hostile/README.md
mkdir -p "$work"

# Not where it was built, and moved afterwards.
rm -rf "$work/first" "$work/prefix" "$work/user"
cmake --install "$2" --prefix "$work/first" >"$work/log"
mv "$work/first" "$work/prefix"

block() { awk -v language="$1" '$0 == "```" language { on = 1; next } /^```/ { on = 0 } on' "$page"; }
mkdir "$work/user" && cd "$work/user"
block cpp >fuzzer.cc
block cmake >CMakeLists.txt
build() {
  cmake -S . -B build -G Ninja -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_BUILD_TYPE=RelWithDebInfo >log 2>&1 &&
    cmake --build build >>log 2>&1 || { cat log && exit 1; }
}

build
if build/adder --help 2>&1 | grep -q libFuzzer; then
  run=(build/adder -seed=1 -max_total_time=60)
else
  run=(build/adder --random 1000000)
fi
if "${run[@]}" >story 2>&1; then echo "nothing was found:" && cat story && exit 1; fi
grep -A12 '^double fetch: ' story
finding=$(ls ./*.finding)
if build/adder --replay "$finding"; then echo "the finding does not replay" && exit 1; fi
build/adder --test "$finding" | grep -F 'EXPECT_EQ(guestmem::hostile::Replay(' >/dev/null

# The number is read once.
sed -i -e 's/if (memory_.ReadPlain<uint32_t>(0x100).value_or(~0u) > 100) return;/const uint32_t n = memory_.ReadPlain<uint32_t>(0x100).value_or(~0u);/' \
  -e 's/total_ += .*/if (n > 100) return;\n    total_ += n;/' fuzzer.cc
build
build/adder --replay "$finding"
build/adder --random 20000
build/adder --twice 1000
