set(FLEXPLAN_BENCH_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/measure.cpp
  ${CMAKE_CURRENT_LIST_DIR}/measure_device.cpp
  ${CMAKE_CURRENT_LIST_DIR}/measure_engine.cpp
  ${CMAKE_CURRENT_LIST_DIR}/operands.cpp)
