# The CUDA device on a machine made of threads: no GPU, no driver, no nvcc.
add_executable(cuda_device_test
  ${CMAKE_CURRENT_LIST_DIR}/cuda_device_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_engine_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/fake_cuda.cpp
  ${CMAKE_CURRENT_LIST_DIR}/fake_kernels.cpp
  ${CMAKE_CURRENT_LIST_DIR}/tiny_model.cpp
  ${FLEXPLAN_CUDA_HOST_SOURCES})
target_link_libraries(cuda_device_test PRIVATE flexplan_host)
target_compile_options(cuda_device_test PRIVATE -Wall -Wextra)
# The fake cuBLAS queues its work on the fake machine's streams.
add_library(fake_cublas MODULE ${CMAKE_CURRENT_LIST_DIR}/fake_cublas.cpp)
target_compile_options(fake_cublas PRIVATE -Wall -Wextra)
set_target_properties(cuda_device_test PROPERTIES ENABLE_EXPORTS ON)
add_dependencies(cuda_device_test fake_cublas)
target_compile_definitions(cuda_device_test PRIVATE FLEXPLAN_FAKE_CUBLAS="$<TARGET_FILE:fake_cublas>")
add_test(NAME cuda_device COMMAND cuda_device_test)
set_tests_properties(cuda_device PROPERTIES COST 100)  # the longest begin first

# The whole engine on the kernels that a GPU runs, compiled for the CPU (cuda_kernels.cmake): what the host passes is
# what they take.
add_executable(cuda_emulated_engine_test
  ${CMAKE_CURRENT_LIST_DIR}/cuda_emulated_engine_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/fake_cuda.cpp
  ${CMAKE_CURRENT_LIST_DIR}/tiny_model.cpp
  ${FLEXPLAN_CUDA_HOST_SOURCES})
target_link_libraries(cuda_emulated_engine_test PRIVATE flexplan_emulated_kernels)
target_compile_options(cuda_emulated_engine_test PRIVATE -Wall -Wextra)
add_test(NAME cuda_emulated_engine COMMAND cuda_emulated_engine_test)
set_tests_properties(cuda_emulated_engine PROPERTIES
  ENVIRONMENT_MODIFICATION "ASAN_OPTIONS=string_append::detect_stack_use_after_return=0")
