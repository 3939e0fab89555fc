# Everything zebra links; also read by zebraConfig.cmake. Nothing is downloaded.
include_guard(GLOBAL)
include(${CMAKE_CURRENT_LIST_DIR}/ZebraTorch.cmake)

find_package(Threads REQUIRED)
find_package(ZLIB REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(nlohmann_json REQUIRED)
find_package(spdlog REQUIRED)
find_package(CLI11 REQUIRED)
find_package(OpenSSL REQUIRED)

if(NOT TARGET yaml-cpp::yaml-cpp)  # yaml-cpp before 0.8 has no namespace
  add_library(yaml-cpp::yaml-cpp INTERFACE IMPORTED)
  target_link_libraries(yaml-cpp::yaml-cpp INTERFACE yaml-cpp)
endif()

# Libraries without a CMake package of their own.
function(zebra_find_plain target header)
  find_path(ZEBRA_${target}_INCLUDE_DIR ${header} REQUIRED)
  add_library(zebra::${target} INTERFACE IMPORTED)
  target_include_directories(zebra::${target} SYSTEM INTERFACE ${ZEBRA_${target}_INCLUDE_DIR})
  foreach(_lib IN LISTS ARGN)
    find_library(ZEBRA_${_lib}_LIBRARY ${_lib} REQUIRED)
    target_link_libraries(zebra::${target} INTERFACE ${ZEBRA_${_lib}_LIBRARY})
  endforeach()
endfunction()

zebra_find_plain(xxhash xxhash.h xxhash)
zebra_find_plain(utf8proc utf8proc.h utf8proc)
zebra_find_plain(pcre2 pcre2.h pcre2-8)
zebra_find_plain(sentencepiece sentencepiece_processor.h sentencepiece sentencepiece_train)
