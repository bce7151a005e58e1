set(FLEXPLAN_CORE_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/aligned_buffer.cpp
  ${CMAKE_CURRENT_LIST_DIR}/thread_pool.cpp)
