#!/usr/bin/env bash
# usage: arch_seam_check.sh COMPILER LIB
#
# Nothing that differs by architecture goes missing silently: where the processor is not one that the library knows, each header
# that needs something of it stops the compiler and says what is missing. ctest runs it as arch.seam. Also checks that nothing of an
# architecture is named outside of its folders.
set -euo pipefail
compiler=$1 lib=$2

fail() { printf '%s\n' "$*" >&2 && exit 1; }

# What the compiler says of a header on a processor that nobody knows; the standard headers still need to know it.
on_another_processor() {
  printf '%s\n' '#include <atomic>' '#include <cstddef>' '#include <cstdint>' '#include <cstring>' '#include <ucontext.h>' \
    '#undef __x86_64__' '#undef __aarch64__' "#include \"${1#*/}\"" |
    "$compiler" -std=c++20 -fsyntax-only "${@:2}" "-I$lib/include" "-I$lib/src" -x c++ - 2>&1
}

headers=(include/guestmem/detail/bounds.h include/guestmem/detail/trap_inline.h src/trap/arch.h)
for header in "${headers[@]}"; do
  if said=$(on_another_processor "$header"); then fail "$header compiles on any processor, and must not"; fi
  missing=$(grep -oE "${header#*/}:[0-9:]+ .*error.*guestmem: .*" <<<"$said") || fail "$header does not say what is missing:"$'\n'"$said"
  printf '%-40s %s\n' "$header" "${missing#*guestmem: }"
done
on_another_processor include/guestmem/detail/bounds.h -DGUESTMEM_MASK_SPECULATION=0 ||
  fail "bounds.h without masks must compile on any processor"

# Outside of the folders of an architecture only the headers above may ask which one it is.
allowed=$(printf '%s|' "${headers[@]}")
if found=$(cd "$lib" && grep -rnE '__(x86_64|aarch64)__|__builtin_(ia32|cpu)_|\bREG_(R[A-Z0-9]+|ERR|TRAPNO)\b|\bgregs\b|_mm_pause' \
  --include='*.h' --include='*.cc' --include='*.inc' src include | grep -vE "^(${allowed%|}|[^:]*/(x86_64|aarch64)/[^:]*):"); then
  fail "named outside of its architecture's folder:"$'\n'"$found"
fi
