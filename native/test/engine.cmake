foreach(name tier admission engine quantization_cache)
  add_executable(${name}_test ${CMAKE_CURRENT_LIST_DIR}/${name}_test.cpp ${CMAKE_CURRENT_LIST_DIR}/tiny_model.cpp
                 ${CMAKE_CURRENT_LIST_DIR}/async_device.cpp)
  target_link_libraries(${name}_test PRIVATE flexplan_native)
  target_compile_options(${name}_test PRIVATE -Wall -Wextra)
endforeach()
foreach(name tier admission quantization_cache)
  add_test(NAME ${name} COMMAND ${name}_test)
endforeach()

# Random policies for each model and number of bits.
set(engine_policies 10)
if(SANITIZE)
  set(engine_policies 4)
endif()
foreach(part placements prefixes lagging sparse pages window ends diagonal)
  add_test(NAME engine.${part} COMMAND engine_test ${engine_policies} ${part})
endforeach()
set_tests_properties(engine.placements engine.diagonal PROPERTIES COST 50)
