set(FLEXPLAN_MODEL_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/host_device.cpp
  ${CMAKE_CURRENT_LIST_DIR}/layers.cpp
  ${CMAKE_CURRENT_LIST_DIR}/quantization_cache.cpp
  ${CMAKE_CURRENT_LIST_DIR}/weight_loader.cpp
  ${CMAKE_CURRENT_LIST_DIR}/weights.cpp)
