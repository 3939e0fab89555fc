# Conveniences for whoever builds zebra itself; never active when zebra is a subproject.
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${PROJECT_BINARY_DIR}/bin)

find_program(ZEBRA_CCACHE ccache)
if(ZEBRA_CCACHE)
  # Precompiled headers need this sloppiness; base dir and no dir hash let clones share the cache.
  set(_launcher
    ${CMAKE_COMMAND} -E env
    CCACHE_SLOPPINESS=pch_defines,time_macros,include_file_mtime,include_file_ctime
    CCACHE_BASEDIR=${PROJECT_SOURCE_DIR} CCACHE_NOHASHDIR=1 CCACHE_INODECACHE=1 ${ZEBRA_CCACHE})
  foreach(_language CXX CUDA)
    if(NOT CMAKE_${_language}_COMPILER_LAUNCHER)
      set(CMAKE_${_language}_COMPILER_LAUNCHER ${_launcher})
    endif()
  endforeach()
endif()

find_program(ZEBRA_MOLD mold)

# A toolkit in its usual place need not be on the PATH.
if(ZEBRA_CUDA AND NOT CMAKE_CUDA_COMPILER AND NOT DEFINED ENV{CUDACXX})
  find_program(ZEBRA_NVCC nvcc HINTS /usr/local/cuda/bin)
  if(ZEBRA_NVCC)
    set(CMAKE_CUDA_COMPILER ${ZEBRA_NVCC})
  endif()
endif()
