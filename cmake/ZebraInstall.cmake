# Installs the program, the library, its headers, and a CMake package `zebra`.
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)
set(_package ${CMAKE_INSTALL_LIBDIR}/cmake/zebra)

install(TARGETS zebra_cli_exe)
install(TARGETS zebra EXPORT zebraTargets FILE_SET HEADERS)
install(EXPORT zebraTargets NAMESPACE zebra:: DESTINATION ${_package})

configure_package_config_file(cmake/zebraConfig.cmake.in ${PROJECT_BINARY_DIR}/zebraConfig.cmake
  INSTALL_DESTINATION ${_package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/zebraConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/zebraConfig.cmake ${PROJECT_BINARY_DIR}/zebraConfigVersion.cmake
  cmake/ZebraTorch.cmake cmake/ZebraDependencies.cmake
  DESTINATION ${_package})
