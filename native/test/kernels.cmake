foreach(name kernels int4_fit thread_pool)
  add_executable(${name}_test ${CMAKE_CURRENT_LIST_DIR}/${name}_test.cpp)
  target_link_libraries(${name}_test PRIVATE flexplan_native)
  add_test(NAME ${name} COMMAND ${name}_test)
endforeach()
target_sources(kernels_test PRIVATE ${CMAKE_CURRENT_LIST_DIR}/kernels_attention_test.cpp
  ${CMAKE_CURRENT_LIST_DIR}/kernels_int8_test.cpp)
include(${CMAKE_CURRENT_LIST_DIR}/cuda_kernels.cmake)
