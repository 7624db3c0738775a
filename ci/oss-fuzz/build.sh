#!/bin/bash -eu
# Builds the fuzz targets for OSS-Fuzz and ClusterFuzzLite, inside their builder image: with its $CXX, $CXXFLAGS and
# $LIB_FUZZING_ENGINE, from $SRC/guestmem, in $WORK, into $OUT. Needs no package and no network: a target links nothing
# but this repository, the engine and the C++ runtime.
#
# $OUT gets, per target: the program, TARGET.options, TARGET.dict, TARGET_seed_corpus.zip (corpus/TARGET and all seeds).
# ci/check_oss_fuzz.sh runs this file outside of the image and judges the result.
: "${SRC:?}" "${OUT:?}" "${WORK:?}" "${CXX:?}" "${LIB_FUZZING_ENGINE:?}"
source_dir=$SRC/guestmem
build_dir=$WORK/guestmem

# CMake takes CC, CXX, CFLAGS and CXXFLAGS from the environment; build type None adds nothing to them.
cmake -S "$source_dir" -B "$build_dir" -DCMAKE_BUILD_TYPE=None -DGUESTMEM_TESTS=OFF -DGUESTMEM_FUZZ_ENGINE=external \
  -DGUESTMEM_FUZZ_LIBRARY="$LIB_FUZZING_ENGINE"
cmake --build "$build_dir" --parallel "$(nproc)" --target fuzzers

for source in "$source_dir"/fuzz/*_fuzzer.cc; do
  target=$(basename "$source" .cc)
  cp "$build_dir/fuzz/$target" "$build_dir/fuzz/$target.options" "$OUT/"
  if [ -f "$source_dir/fuzz/$target.dict" ]; then cp "$source_dir/fuzz/$target.dict" "$OUT/"; fi

  inputs=$WORK/inputs/$target
  rm -rf "$inputs" "$OUT/${target}_seed_corpus.zip"
  mkdir -p "$inputs" "$source_dir/corpus/$target"
  while IFS= read -r input; do  # one level; two folders may have files of one name
    cp "$input" "$inputs/$(basename "$(dirname "$input")")-$(basename "$input")"
  done < <(find "$source_dir/corpus/$target" "$build_dir/seeds" -type f)
  (cd "$inputs" && cmake -E tar cf "$OUT/${target}_seed_corpus.zip" --format=zip -- *)
done
