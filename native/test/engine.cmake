# Random policies for each model and number of bits.
set(engine_arguments 10)
if(SANITIZE)
  set(engine_arguments 4)
endif()
foreach(name tier admission engine quantization_cache)
  add_executable(${name}_test ${CMAKE_CURRENT_LIST_DIR}/${name}_test.cpp ${CMAKE_CURRENT_LIST_DIR}/tiny_model.cpp
                 ${CMAKE_CURRENT_LIST_DIR}/async_device.cpp)
  target_link_libraries(${name}_test PRIVATE flexplan_native)
  target_compile_options(${name}_test PRIVATE -Wall -Wextra)
  add_test(NAME ${name} COMMAND ${name}_test ${${name}_arguments})
endforeach()
