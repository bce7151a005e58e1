set(FLEXPLAN_CPU_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/dispatch.cpp
  ${CMAKE_CURRENT_LIST_DIR}/experts.cpp
  ${CMAKE_CURRENT_LIST_DIR}/isa_generic.cpp
  ${CMAKE_CURRENT_LIST_DIR}/ops.cpp
  ${CMAKE_CURRENT_LIST_DIR}/sampling.cpp)

# Kernels are compiled optimised in every build type (less so under sanitizers). Products and sums are fused only where
# the source says so: the order of roundings is part of the result.
set(FLEXPLAN_KERNEL_OPTIONS ${FLEXPLAN_KERNEL_OPTIMISATION} -ffp-contract=off -fno-math-errno)
set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/isa_generic.cpp PROPERTIES
  COMPILE_OPTIONS "${FLEXPLAN_KERNEL_OPTIONS}")

# GCC 12 takes the undefined operands inside its own AVX-512 intrinsics for bugs, hence the warnings that are off.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
  list(APPEND FLEXPLAN_CPU_SOURCES
    ${CMAKE_CURRENT_LIST_DIR}/isa_avx2.cpp
    ${CMAKE_CURRENT_LIST_DIR}/isa_avx512.cpp
    ${CMAKE_CURRENT_LIST_DIR}/isa_avx512softbf16.cpp
    ${CMAKE_CURRENT_LIST_DIR}/isa_avx512vnni.cpp
    ${CMAKE_CURRENT_LIST_DIR}/isa_avx512bf16.cpp)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/isa_avx2.cpp PROPERTIES
    COMPILE_OPTIONS "${FLEXPLAN_KERNEL_OPTIONS};-mavx2;-mfma;-mf16c")
  set(FLEXPLAN_AVX512_OPTIONS ${FLEXPLAN_KERNEL_OPTIONS} -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c
    -mprefer-vector-width=512 -Wno-uninitialized -Wno-maybe-uninitialized)
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/isa_avx512.cpp ${CMAKE_CURRENT_LIST_DIR}/isa_avx512softbf16.cpp
    PROPERTIES COMPILE_OPTIONS "${FLEXPLAN_AVX512_OPTIONS}")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/isa_avx512vnni.cpp PROPERTIES
    COMPILE_OPTIONS "${FLEXPLAN_AVX512_OPTIONS};-mavx512vnni")
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/isa_avx512bf16.cpp PROPERTIES
    COMPILE_OPTIONS "${FLEXPLAN_AVX512_OPTIONS};-mavx512vnni;-mavx512bf16")
endif()
