# guestmem_add_device_fuzzer(NAME SOURCES source... [ENGINE libfuzzer|none|LIBRARY]): a program that plays a hostile guest to the device
# that these sources describe (guestmem/hostile/device_fuzzer.h). The sources are compiled with load and store tracing where the
# compiler has it (clang), so that accesses through a locked page's host address are seen.
#
# ENGINE: libfuzzer (the default where the compiler is clang); none: a plain main, which replays files and runs random inputs; or
# what a fuzzing service or AFL++ links, whose instrumentation comes with CMAKE_CXX_FLAGS.

if(NOT TARGET guestmem::hostile)
  include("${CMAKE_CURRENT_LIST_DIR}/guestmem-hostile-targets.cmake")
endif()

function(guestmem_add_device_fuzzer name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "ENGINE" "SOURCES")
  if(NOT arg_SOURCES OR arg_UNPARSED_ARGUMENTS)
    message(FATAL_ERROR "guestmem_add_device_fuzzer(${name}): expected NAME SOURCES source... [ENGINE engine]")
  endif()
  set(clang FALSE)
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    set(clang TRUE)
  endif()
  if(NOT arg_ENGINE)
    set(arg_ENGINE none)
    if(clang)
      set(arg_ENGINE libfuzzer)
    endif()
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE guestmem::hostile)
  # Out of range in the C++ library's containers is a crash; names in stories need symbols.
  target_compile_definitions(${name} PRIVATE _GLIBCXX_ASSERTIONS)
  target_compile_options(${name} PRIVATE -g1)
  if(arg_ENGINE STREQUAL "libfuzzer")
    target_compile_options(${name} PRIVATE -fsanitize=fuzzer-no-link)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  elseif(arg_ENGINE STREQUAL "none")
    target_link_libraries(${name} PRIVATE guestmem::hostile_main)
  else()
    target_link_libraries(${name} PRIVATE ${arg_ENGINE})
  endif()
  if(clang)
    target_compile_options(${name} PRIVATE -fsanitize-coverage=edge,trace-loads,trace-stores)
  endif()
endfunction()
