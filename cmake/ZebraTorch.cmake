# Defines zebra::torch.
#
# Where LibTorch comes from: CMAKE_PREFIX_PATH if it holds one (an unpacked LibTorch, a Python
# site-packages/torch, or what torch.utils.cmake_prefix_path prints), else what scripts/setup.sh
# put into the cache folder (ZEBRA_CACHE, by default ~/.cache/zebra).
#
# Without ZEBRA_CUDA only libtorch_cpu and libc10 are linked, by targets made here: the CMake
# package inside a CUDA build of LibTorch insists on a CUDA toolkit even for CPU-only programs.
include_guard(GLOBAL)

if(DEFINED ENV{ZEBRA_CACHE})
  set(_zebra_cache "$ENV{ZEBRA_CACHE}")
else()
  set(_zebra_cache "$ENV{HOME}/.cache/zebra")
endif()

set(_zebra_torch_hints)
foreach(_prefix IN LISTS CMAKE_PREFIX_PATH)
  list(APPEND _zebra_torch_hints ${_prefix} ${_prefix}/torch ${_prefix}/../..)
endforeach()
list(APPEND _zebra_torch_hints ${_zebra_cache}/libtorch-2.11.0/torch)

find_path(ZEBRA_TORCH_INCLUDE_DIR ATen/Config.h HINTS ${_zebra_torch_hints} PATH_SUFFIXES include)
if(NOT ZEBRA_TORCH_INCLUDE_DIR)
  message(FATAL_ERROR "LibTorch not found. Run scripts/setup.sh, or set CMAKE_PREFIX_PATH to a LibTorch 2.11.")
endif()
get_filename_component(ZEBRA_TORCH_ROOT ${ZEBRA_TORCH_INCLUDE_DIR} DIRECTORY)
message(STATUS "LibTorch: ${ZEBRA_TORCH_ROOT}")

add_library(zebra::torch INTERFACE IMPORTED)
# at::parallel_for is a template over OpenMP pragmas: without -fopenmp it silently runs serially.
target_compile_options(zebra::torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)
target_include_directories(zebra::torch SYSTEM INTERFACE
  ${ZEBRA_TORCH_INCLUDE_DIR} ${ZEBRA_TORCH_INCLUDE_DIR}/torch/csrc/api/include)

if(ZEBRA_CUDA)
  find_package(Torch REQUIRED HINTS ${ZEBRA_TORCH_ROOT}/share/cmake/Torch)
  target_link_libraries(zebra::torch INTERFACE ${TORCH_LIBRARIES})
else()
  foreach(_lib torch_cpu c10)
    add_library(zebra::${_lib} SHARED IMPORTED)
    set_target_properties(zebra::${_lib} PROPERTIES
      IMPORTED_LOCATION ${ZEBRA_TORCH_ROOT}/lib/lib${_lib}.so)
  endforeach()
  target_compile_definitions(zebra::torch INTERFACE
    USE_DISTRIBUTED USE_C10D_GLOO USE_RPC USE_TENSORPIPE)
  target_link_libraries(zebra::torch INTERFACE zebra::torch_cpu zebra::c10)
endif()

# The OpenMP runtime must be LibTorch's own, so that both share one pool of threads.
file(GLOB _zebra_gomp ${ZEBRA_TORCH_ROOT}/lib/libgomp*.so*)
if(_zebra_gomp)
  list(GET _zebra_gomp 0 _zebra_gomp)
  add_library(zebra::gomp SHARED IMPORTED)
  set_target_properties(zebra::gomp PROPERTIES IMPORTED_LOCATION ${_zebra_gomp})
  target_link_libraries(zebra::torch INTERFACE zebra::gomp)
else()
  target_link_libraries(zebra::torch INTERFACE gomp)
endif()
