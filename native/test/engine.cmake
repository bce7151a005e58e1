add_executable(engine_test ${CMAKE_CURRENT_LIST_DIR}/engine_test.cpp)
target_link_libraries(engine_test PRIVATE flexplan_native)
add_test(NAME engine COMMAND engine_test)
