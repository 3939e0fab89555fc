# Defines zebra::torch from a LibTorch 2.11. Also read by an installed zebraConfig.cmake.
#
# Where it comes from: CMAKE_PREFIX_PATH if that holds one (an unpacked LibTorch, a Python
# site-packages or its torch folder, or what torch.utils.cmake_prefix_path prints), else what
# scripts/setup.sh put into the cache folder (ZEBRA_CACHE, by default ~/.cache/zebra).
#
# The targets are made here: the CMake package inside a CUDA build of LibTorch demands a CUDA
# toolkit even for a program that only wants libtorch_cpu, and probes with global flags.
include_guard(GLOBAL)
set(ZEBRA_TORCH_VERSION 2.11)

set(_cache "$ENV{ZEBRA_CACHE}")
if(NOT _cache)
  set(_cache "$ENV{HOME}/.cache/zebra")
endif()
set(_cached ${_cache}/libtorch-2.11.0/torch ${_cache}/libtorch-2.11.0-cuda/torch)
if(ZEBRA_CUDA)
  list(REVERSE _cached)
endif()
string(REPLACE ":" ";" _prefixes "${CMAKE_PREFIX_PATH};$ENV{CMAKE_PREFIX_PATH}")
set(_hints)
foreach(_prefix IN LISTS _prefixes)
  list(APPEND _hints ${_prefix} ${_prefix}/torch ${_prefix}/../..)
endforeach()
find_path(ZEBRA_TORCH_INCLUDE_DIR ATen/Config.h
  HINTS ${_hints} ${_cached} ${ZEBRA_TORCH_FALLBACK} PATH_SUFFIXES include)
if(NOT ZEBRA_TORCH_INCLUDE_DIR)
  message(FATAL_ERROR "LibTorch was not found. Run scripts/setup.sh, or set CMAKE_PREFIX_PATH.")
endif()
get_filename_component(ZEBRA_TORCH_ROOT ${ZEBRA_TORCH_INCLUDE_DIR} DIRECTORY)

file(STRINGS ${ZEBRA_TORCH_ROOT}/share/cmake/Torch/TorchConfigVersion.cmake _version
  REGEX "set\\(PACKAGE_VERSION \"")
string(REGEX REPLACE ".*\"([0-9.]+).*" "\\1" _version "${_version}")
message(STATUS "LibTorch ${_version}: ${ZEBRA_TORCH_ROOT}")
if(NOT _version MATCHES "^${ZEBRA_TORCH_VERSION}")
  message(FATAL_ERROR "zebra wants LibTorch ${ZEBRA_TORCH_VERSION}, found ${_version} in ${ZEBRA_TORCH_ROOT}")
endif()

add_library(zebra::torch INTERFACE IMPORTED)
target_include_directories(zebra::torch SYSTEM INTERFACE
  ${ZEBRA_TORCH_INCLUDE_DIR} ${ZEBRA_TORCH_INCLUDE_DIR}/torch/csrc/api/include)
target_compile_definitions(zebra::torch INTERFACE
  USE_DISTRIBUTED USE_C10D_GLOO USE_RPC USE_TENSORPIPE)
# at::parallel_for is a template over OpenMP pragmas: without -fopenmp it silently runs serially.
target_compile_options(zebra::torch INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-fopenmp>)

# zebra_torch_library(NAME FILE...): links the first of the files that exists, as zebra::NAME.
function(zebra_torch_library name)
  foreach(file IN LISTS ARGN)
    if(EXISTS ${file})
      add_library(zebra::${name} SHARED IMPORTED)
      set_target_properties(zebra::${name} PROPERTIES IMPORTED_LOCATION ${file})
      target_link_libraries(zebra::torch INTERFACE zebra::${name})
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "${name} was not found in LibTorch: none of ${ARGN}. Run scripts/setup.sh again.")
endfunction()

set(_lib ${ZEBRA_TORCH_ROOT}/lib)
set(_nvidia ${ZEBRA_TORCH_ROOT}/../nvidia)
if(ZEBRA_CUDA)
  find_package(CUDAToolkit 13.0 REQUIRED)
  target_include_directories(zebra::torch SYSTEM INTERFACE ${CUDAToolkit_INCLUDE_DIRS})
  if(EXISTS ${_nvidia}/nccl/include)
    target_include_directories(zebra::torch SYSTEM INTERFACE ${_nvidia}/nccl/include)
  endif()
  target_compile_definitions(zebra::torch INTERFACE USE_C10D_NCCL)
  # Nothing may refer to libtorch_cuda by symbol, yet loading it is what registers the CUDA backend.
  target_link_libraries(zebra::torch INTERFACE
    "-Wl,--push-state,--no-as-needed,${_lib}/libtorch_cuda.so,--pop-state")
  zebra_torch_library(c10_cuda ${_lib}/libc10_cuda.so)
  # One CUDA runtime, cuBLASLt and NCCL in the process: the ones LibTorch loads.
  zebra_torch_library(cudart ${_nvidia}/cu13/lib/libcudart.so.13 ${_lib}/libcudart.so.13 ${CUDA_cudart_LIBRARY})
  zebra_torch_library(cublaslt
    ${_nvidia}/cu13/lib/libcublasLt.so.13 ${_lib}/libcublasLt.so.13 ${CUDA_cublasLt_LIBRARY})
  if(EXISTS ${_nvidia}/nccl/lib/libnccl.so.2)
    zebra_torch_library(nccl ${_nvidia}/nccl/lib/libnccl.so.2)
  endif()
endif()
zebra_torch_library(torch_cpu ${_lib}/libtorch_cpu.so)
zebra_torch_library(c10 ${_lib}/libc10.so)

# LibTorch's own OpenMP runtime, so that both share one pool of threads.
file(GLOB _gomp ${_lib}/libgomp*.so*)
if(_gomp)
  zebra_torch_library(gomp ${_gomp})
else()
  target_link_libraries(zebra::torch INTERFACE gomp)
endif()
