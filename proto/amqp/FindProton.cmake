# Debian's Proton ships neither a working CMake config nor a pkg-config file for the C++ library (PLATFORM facts):
# look for its parts by name. libqpid-proton-core alone: linking libqpid-proton too would load the C library twice.
find_path(PROTON_INCLUDE_DIR proton/container.hpp REQUIRED)
find_library(PROTON_CPP_LIBRARY qpid-proton-cpp REQUIRED)
find_library(PROTON_CORE_LIBRARY NAMES libqpid-proton-core.so.10 qpid-proton-core REQUIRED)
add_library(proton_imported INTERFACE)
target_include_directories(proton_imported SYSTEM INTERFACE ${PROTON_INCLUDE_DIR})
target_link_libraries(proton_imported INTERFACE ${PROTON_CPP_LIBRARY} ${PROTON_CORE_LIBRARY})
add_library(proton::proton ALIAS proton_imported)
