# The Node addon: build/Release/flexplan.node. The headers are npm packages, so nothing is fetched and no Node source is
# needed.
foreach(package node-api-headers node-addon-api)
  execute_process(
    COMMAND node -p "require('${package}').include_dir"
    WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}
    OUTPUT_VARIABLE include_dir
    OUTPUT_STRIP_TRAILING_WHITESPACE
    COMMAND_ERROR_IS_FATAL ANY)
  list(APPEND FLEXPLAN_NODE_INCLUDES ${include_dir})
endforeach()

add_library(flexplan_addon MODULE
  ${CMAKE_CURRENT_LIST_DIR}/addon.cpp
  ${CMAKE_CURRENT_LIST_DIR}/convert.cpp
  ${CMAKE_CURRENT_LIST_DIR}/engine_object.cpp
  ${CMAKE_CURRENT_LIST_DIR}/job.cpp
  ${CMAKE_CURRENT_LIST_DIR}/measurements.cpp
  ${CMAKE_CURRENT_LIST_DIR}/system_info.cpp)
target_include_directories(flexplan_addon SYSTEM PRIVATE ${FLEXPLAN_NODE_INCLUDES})
target_compile_definitions(flexplan_addon PRIVATE NAPI_VERSION=9 NODE_ADDON_API_CPP_EXCEPTIONS BUILDING_NODE_EXTENSION)
target_compile_options(flexplan_addon PRIVATE -Wall -Wextra)
target_link_libraries(flexplan_addon PRIVATE flexplan_native)
set_target_properties(flexplan_addon PROPERTIES
  PREFIX "" SUFFIX ".node" OUTPUT_NAME flexplan CXX_VISIBILITY_PRESET hidden
  LIBRARY_OUTPUT_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR}/../build/Release)
