set(FLEXPLAN_TIER_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/clock.cpp
  ${CMAKE_CURRENT_LIST_DIR}/direct_file.cpp
  ${CMAKE_CURRENT_LIST_DIR}/io_batch.cpp
  ${CMAKE_CURRENT_LIST_DIR}/memory_budget.cpp
  ${CMAKE_CURRENT_LIST_DIR}/paced_link.cpp)
