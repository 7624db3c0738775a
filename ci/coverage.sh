#!/usr/bin/env bash
# usage: ci/coverage.sh [--html DIR]
#
# Line, branch and MC/DC coverage of lib/ reached by the checked-in corpus alone: every fuzz target replays its own
# corpus/<target>/ and all of corpus/seeds/; no unit test runs. Prints a table by file and writes an HTML report
# (default build/coverage/html).
#
# Works from any directory.
set -euo pipefail
# shellcheck source=ci/common.sh
. "$(dirname -- "${BASH_SOURCE[0]}")/common.sh"

html=$root/build/coverage/html
while [ $# -gt 0 ]; do
  case $1 in
    --html) [ $# -ge 2 ] || die 2 "--html needs a folder"; html=$(realpath -m -- "$2") && shift ;;
    --help | -h) show_help && exit ;;
    *) die 2 "unknown argument '$1'; see --help" ;;
  esac
  shift
done

dir=$root/build/coverage
say "coverage of lib/ by the checked-in corpus: build with instrumentation, replay, report in $(shown "$html")"
"$root/ci/setup.sh"
configure default "$dir" -DCMAKE_CXX_COMPILER=clang++-19 -DGUESTMEM_TESTS=OFF -DCMAKE_BUILD_TYPE=Debug \
  "-DCMAKE_CXX_FLAGS=-fprofile-instr-generate -fcoverage-mapping -fcoverage-mcdc"
cmake --build "$dir" --parallel "$jobs"

rm -rf -- "$dir/profiles"
mkdir -p -- "$dir/profiles"
objects=()
for source in "$root"/fuzz/*_fuzzer.cc; do
  target=$(basename -- "$source" .cc)
  printf '   replay %s\n' "$target"
  LLVM_PROFILE_FILE=$dir/profiles/$target.profraw "$dir/fuzz/$target" "$root/corpus/$target" "$dir/seeds" >/dev/null
  objects+=(-object "$dir/fuzz/$target")
done
llvm-profdata-19 merge -sparse -o "$dir/corpus.profdata" "$dir"/profiles/*.profraw

files=()
while IFS= read -r file; do files+=("$file"); done < <(find "$root/lib/src" "$root/lib/include" -name '*.cc' -o -name '*.h' | sort)
llvm-cov-19 show "${objects[@]:1}" -instr-profile "$dir/corpus.profdata" -format=html -output-dir "$html" \
  -show-branches=count -show-mcdc -show-mcdc-summary "${files[@]}" >/dev/null 2>&1
llvm-cov-19 export "${objects[@]:1}" -instr-profile "$dir/corpus.profdata" -summary-only "${files[@]}" >"$dir/summary.json" \
  2>/dev/null
python3 - "$dir/summary.json" "$root" <<'PY'
import json, os, sys
data = json.load(open(sys.argv[1]))["data"][0]
rows = [(os.path.relpath(f["filename"], sys.argv[2]), f["summary"]) for f in data["files"]]
rows.append(("lib/ in all", data["totals"]))
kinds = ("lines", "branches", "mcdc")
print(f"\n{'file':44s}" + "".join(f"{kind:>22s}" for kind in kinds))
for name, summary in rows:
    cells = (f"{s['covered']:5d}/{s['count']:<5d} {s['percent']:6.2f} %" if s["count"] else "-" for s in (summary[k] for k in kinds))
    print(f"{name:44s}" + "".join(f"{cell:>22s}" for cell in cells))
PY
say "report: $(shown "$html")/index.html"
