# Finds Qpid Proton's C++ library; gives the target proton::proton. Debian's package has neither a working CMake
# config nor a pkg-config file for it, so its parts are looked for by name. libqpid-proton-core alone: linking
# libqpid-proton too would load the C library twice. Installed with the package Datawire, which needs it again.
find_path(PROTON_INCLUDE_DIR proton/container.hpp)
find_library(PROTON_CPP_LIBRARY qpid-proton-cpp)
find_library(PROTON_CORE_LIBRARY NAMES libqpid-proton-core.so.10 qpid-proton-core)
mark_as_advanced(PROTON_INCLUDE_DIR PROTON_CPP_LIBRARY PROTON_CORE_LIBRARY)
include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(Proton REQUIRED_VARS PROTON_CPP_LIBRARY PROTON_CORE_LIBRARY PROTON_INCLUDE_DIR)
if(Proton_FOUND AND NOT TARGET proton::proton)
  add_library(proton::proton INTERFACE IMPORTED)
  target_include_directories(proton::proton INTERFACE ${PROTON_INCLUDE_DIR})  # imported, so SYSTEM
  target_link_libraries(proton::proton INTERFACE ${PROTON_CPP_LIBRARY} ${PROTON_CORE_LIBRARY})
endif()
