# What runs on the host: the same in a build with CUDA and on the fake machine of the tests.
set(FLEXPLAN_CUDA_HOST_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/arena.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cublas.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_device.cpp
  ${CMAKE_CURRENT_LIST_DIR}/cuda_link.cpp
  ${CMAKE_CURRENT_LIST_DIR}/pinned.cpp
  ${CMAKE_CURRENT_LIST_DIR}/upload_ring.cpp)
if(FLEXPLAN_HAS_CUDA)
  file(GLOB FLEXPLAN_CUDA_KERNELS CONFIGURE_DEPENDS ${CMAKE_CURRENT_LIST_DIR}/*.cu)
  set(FLEXPLAN_CUDA_SOURCES
    ${FLEXPLAN_CUDA_HOST_SOURCES} ${CMAKE_CURRENT_LIST_DIR}/cuda_runtime.cpp
    ${CMAKE_CURRENT_LIST_DIR}/launch_errors.cpp ${FLEXPLAN_CUDA_KERNELS})
  # Errors name files of the package, not of the machine that built it.
  set_source_files_properties(${CMAKE_CURRENT_LIST_DIR}/cuda_runtime.cpp PROPERTIES
    COMPILE_OPTIONS "-fmacro-prefix-map=${CMAKE_CURRENT_SOURCE_DIR}/=")
else()
  set(FLEXPLAN_CUDA_SOURCES ${CMAKE_CURRENT_LIST_DIR}/cuda_stub.cpp)
endif()
