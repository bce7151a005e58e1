add_executable(kernels_test ${CMAKE_CURRENT_LIST_DIR}/kernels_test.cpp)
target_link_libraries(kernels_test PRIVATE flexplan_native)
add_test(NAME kernels COMMAND kernels_test)
