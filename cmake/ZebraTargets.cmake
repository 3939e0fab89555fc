# How zebra's targets are made: flags, precompiled headers, modules.

if(ZEBRA_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80 90a-real CACHE STRING "GPU architectures of the kernels")
  endif()
  set(CMAKE_CUDA_RUNTIME_LIBRARY None)  # zebra::torch brings the one that LibTorch loads
  enable_language(CUDA)
endif()

# Flags of every target of ours. They must be the same everywhere, or the precompiled header is
# refused; a source that needs others gets SKIP_PRECOMPILE_HEADERS. -fPIC also for executables.
add_library(zebra_flags INTERFACE)
target_compile_features(zebra_flags INTERFACE cxx_std_20)
target_compile_options(zebra_flags INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -fPIC>
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<COMPILE_LANGUAGE:CXX>>:-fpch-preprocess>)
target_include_directories(zebra_flags INTERFACE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
if(ZEBRA_CUDA)
  target_compile_definitions(zebra_flags INTERFACE ZEBRA_CUDA=1)
endif()
if(ZEBRA_MOLD)
  target_link_options(zebra_flags INTERFACE -fuse-ld=mold)
endif()
if(ZEBRA_SANITIZE)
  set(_zebra_sanitize -fsanitize=${ZEBRA_SANITIZE} -fno-omit-frame-pointer)
  if(ZEBRA_SANITIZE STREQUAL address)
    list(APPEND _zebra_sanitize -fsanitize=undefined -fno-sanitize=vptr -fno-sanitize-recover=undefined)
  endif()
  target_compile_options(zebra_flags INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${_zebra_sanitize}>)
  target_link_options(zebra_flags INTERFACE ${_zebra_sanitize})
endif()

# A precompiled header, to be used by other targets through REUSE_FROM.
function(zebra_precompile target)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${target}.cpp)
  file(CONFIGURE OUTPUT ${source} CONTENT "// Carries a precompiled header.\n")
  add_library(${target} OBJECT ${source})
  target_link_libraries(${target} PRIVATE zebra_flags zebra::torch)
  target_precompile_headers(${target} PRIVATE ${ARGN})
endfunction()

# zebra_module(NAME [PLAIN] [SOURCES f...] [CUDA_SOURCES f...] [USES module...] [LINK target...])
# One object library zebra_NAME. USES names our modules below it, LINK the libraries of others.
# PLAIN: without LibTorch and without the precompiled header, and LINK stays hidden from users.
# A module without sources is an empty interface library.
function(zebra_module name)
  cmake_parse_arguments(M "PLAIN" "" "SOURCES;CUDA_SOURCES;USES;LINK" ${ARGN})
  set(target zebra_${name})
  list(TRANSFORM M_USES PREPEND zebra_ OUTPUT_VARIABLE uses)
  set_property(GLOBAL APPEND PROPERTY ZEBRA_MODULES ${name})

  if(NOT M_SOURCES)
    add_library(${target} INTERFACE)
    target_link_libraries(${target} INTERFACE zebra_flags ${uses} ${M_LINK} zebra::torch)
  else()
    add_library(${target} OBJECT ${M_SOURCES})
    target_link_libraries(${target} PUBLIC zebra_flags ${uses})
    if(M_PLAIN)
      target_link_libraries(${target} PRIVATE ${M_LINK})
    else()
      target_link_libraries(${target} PUBLIC zebra::torch ${M_LINK})
      target_precompile_headers(${target} REUSE_FROM zebra_pch)
    endif()
  endif()

  if(ZEBRA_CUDA AND M_CUDA_SOURCES)
    zebra_cuda_objects(${target}_cuda ${M_CUDA_SOURCES})
    set_property(TARGET ${target} PROPERTY ZEBRA_CUDA_OBJECTS ${target}_cuda)
  endif()
  set_property(TARGET ${target} PROPERTY ZEBRA_USES "${M_USES}")
  set_property(TARGET ${target} PROPERTY ZEBRA_LINK "${M_LINK}")
endfunction()

# Kernels see no LibTorch header, and are C++17: CMake 3.25 knows no CUDA C++20 for nvcc 13.
function(zebra_cuda_objects target)
  add_library(${target} OBJECT ${ARGN})
  target_include_directories(${target} PRIVATE ${PROJECT_SOURCE_DIR}/include ${PROJECT_SOURCE_DIR}/src)
  set_target_properties(${target} PROPERTIES
    CUDA_STANDARD 17 CUDA_STANDARD_REQUIRED ON POSITION_INDEPENDENT_CODE ON)
  target_compile_options(${target} PRIVATE --expt-relaxed-constexpr -lineinfo)
endfunction()

# Puts the objects of the named modules, and of all modules below them, into a target.
function(zebra_add_objects target)
  set(todo ${ARGN})
  set(done)
  while(todo)
    list(POP_FRONT todo name)
    if(name IN_LIST done)
      continue()
    endif()
    list(APPEND done ${name})
    get_target_property(uses zebra_${name} ZEBRA_USES)
    get_target_property(link zebra_${name} ZEBRA_LINK)
    get_target_property(type zebra_${name} TYPE)
    get_target_property(cuda zebra_${name} ZEBRA_CUDA_OBJECTS)
    list(APPEND todo ${uses})
    if(type STREQUAL OBJECT_LIBRARY)
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:zebra_${name}>)
    endif()
    if(cuda)
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:${cuda}>)
    endif()
    target_link_libraries(${target} PRIVATE ${link})
  endwhile()
endfunction()
