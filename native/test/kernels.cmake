add_executable(kernels_test
  ${CMAKE_CURRENT_LIST_DIR}/kernels_test.cpp
  ${FLEXPLAN_CORE_SOURCES} ${FLEXPLAN_QUANT_SOURCES} ${FLEXPLAN_CPU_SOURCES})
target_include_directories(kernels_test PRIVATE ${CMAKE_CURRENT_LIST_DIR}/..)
target_compile_features(kernels_test PRIVATE cxx_std_20)
find_package(Threads REQUIRED)
target_link_libraries(kernels_test PRIVATE Threads::Threads)
add_test(NAME kernels COMMAND kernels_test)
