# The kernels of native/cuda compiled for the CPU: each .cu is included by a .cpp, because a file has one language in a
# build.
file(GLOB cuda_kernels CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/cuda/*.cu)
set(emulated_kernels)
foreach(kernel ${cuda_kernels})
  get_filename_component(name ${kernel} NAME_WE)
  set(wrapper ${CMAKE_CURRENT_BINARY_DIR}/cuda_emulation/${name}.cpp)
  file(CONFIGURE OUTPUT ${wrapper} CONTENT "#include \"${kernel}\"\n" @ONLY)
  list(APPEND emulated_kernels ${wrapper})
endforeach()
add_library(flexplan_emulated_kernels STATIC EXCLUDE_FROM_ALL
  ${emulated_kernels} ${CMAKE_CURRENT_SOURCE_DIR}/cuda/launch_errors.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_emulation/emulation.cpp)
target_compile_definitions(flexplan_emulated_kernels PUBLIC FLEXPLAN_CUDA_EMULATION)
# Kernels view the same registers as numbers of several types, which nvcc allows.
target_compile_options(flexplan_emulated_kernels PRIVATE -Wall -Wextra -Wno-unknown-pragmas -fno-strict-aliasing)
target_link_libraries(flexplan_emulated_kernels PUBLIC flexplan_host)

# cuda_kernels_test runs under emulation, cuda_kernels_gpu_test on a GPU.
set(cuda_kernel_tests
  ${CMAKE_CURRENT_LIST_DIR}/cuda_kernels_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_matmul_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_experts_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_attention_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_sampling_test.cpp)
add_executable(cuda_kernels_test ${cuda_kernel_tests})
target_compile_options(cuda_kernels_test PRIVATE -Wall -Wextra)
target_link_libraries(cuda_kernels_test PRIVATE flexplan_emulated_kernels)
foreach(part elements matmul experts attention sampling)
  add_test(NAME cuda_kernels.${part} COMMAND cuda_kernels_test ${part})
  # A stack for what has gone out of scope would be mapped anew for each of millions of fibers.
  set_tests_properties(cuda_kernels.${part} PROPERTIES
    ENVIRONMENT_MODIFICATION "ASAN_OPTIONS=string_append::detect_stack_use_after_return=0")
endforeach()
set_tests_properties(cuda_kernels.attention PROPERTIES COST 90)
if(FLEXPLAN_HAS_CUDA)
  add_executable(cuda_kernels_gpu_test EXCLUDE_FROM_ALL ${cuda_kernel_tests})
  target_compile_options(cuda_kernels_gpu_test PRIVATE -Wall -Wextra)
  target_link_libraries(cuda_kernels_gpu_test PRIVATE flexplan_native CUDA::cudart_static)
endif()
