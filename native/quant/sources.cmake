set(FLEXPLAN_QUANT_SOURCES
  ${CMAKE_CURRENT_LIST_DIR}/int4.cpp
  ${CMAKE_CURRENT_LIST_DIR}/int4_fit.cpp)

# The scalar meaning of the formats: the vector kernels must give the same bits, so nothing is fused.
set_source_files_properties(${FLEXPLAN_QUANT_SOURCES} PROPERTIES COMPILE_OPTIONS "-ffp-contract=off")
