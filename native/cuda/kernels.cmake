# Compiles our CUDA kernels into one file for all architectures, which becomes part of the library. The driver is
# loaded at run time, so this is all that nvcc is needed for.
set(MMEDGE_CUDA "AUTO" CACHE STRING "CUDA kernels: AUTO (where nvcc is found), ON (nvcc is required) or OFF")
set_property(CACHE MMEDGE_CUDA PROPERTY STRINGS AUTO ON OFF)
# 87: Orin, 110: Thor. From old to new: what is newer than all of them compiles the last one's portable form when it loads.
set(MMEDGE_CUDA_ARCHITECTURES "75;80;86;87;89;90;100;110;120;121" CACHE STRING
    "Compute capabilities that kernels are compiled for, as far as nvcc knows them")
if(NOT MMEDGE_CUDA MATCHES "^(AUTO|ON|OFF)$")
  message(FATAL_ERROR "MMEDGE_CUDA must be AUTO, ON or OFF, not '${MMEDGE_CUDA}'")
endif()
if(MMEDGE_CUDA STREQUAL "OFF")
  return()
endif()

find_program(MMEDGE_NVCC nvcc HINTS ENV CUDACXX PATHS /usr/local/cuda/bin)
set(known "")
if(MMEDGE_NVCC)
  execute_process(COMMAND ${MMEDGE_NVCC} --list-gpu-arch OUTPUT_VARIABLE listed RESULT_VARIABLE failed ERROR_QUIET)
  if(NOT failed)
    foreach(architecture IN LISTS MMEDGE_CUDA_ARCHITECTURES)
      if(listed MATCHES "compute_${architecture}\n")
        list(APPEND known ${architecture})
      endif()
    endforeach()
  endif()
endif()
if(NOT known)
  set(reason "nvcc, which knows one of the architectures ${MMEDGE_CUDA_ARCHITECTURES}, was not found")
  if(MMEDGE_CUDA STREQUAL "ON")
    message(FATAL_ERROR "MMEDGE_CUDA is ON, and ${reason}. Install CUDA's nvcc, or set MMEDGE_NVCC to it.")
  endif()
  message(STATUS "CUDA kernels are left out: ${reason}")
  return()
endif()

set(codes "")
foreach(architecture IN LISTS known)
  list(APPEND codes -gencode arch=compute_${architecture},code=sm_${architecture})
endforeach()
list(GET known -1 newest)
list(APPEND codes -gencode arch=compute_${newest},code=compute_${newest})
set(fatbin ${CMAKE_CURRENT_BINARY_DIR}/kernels.fatbin)
set(folder ${PROJECT_SOURCE_DIR}/native)
add_custom_command(
  OUTPUT ${fatbin}
  COMMAND ${MMEDGE_NVCC} -fatbin -O3 -std=c++17 --threads 2 -Xfatbin -compress-all -I${folder} ${codes} -o ${fatbin}
          ${folder}/cuda/kernels.cu
  DEPENDS ${folder}/cuda/kernels.cu ${folder}/cuda/picture_pixel.hpp ${folder}/pixel_factors.hpp
  COMMENT "Compiling CUDA kernels for ${known}" VERBATIM)
add_custom_target(mmedge_cuda_kernels DEPENDS ${fatbin})
add_dependencies(mmedge_native mmedge_cuda_kernels)
# Link-time optimisation would move the bytes apart from those who read them.
set_source_files_properties(native/cuda/kernels.cpp PROPERTIES
  COMPILE_DEFINITIONS "MMEDGE_CUDA_FATBIN=\"${fatbin}\"" COMPILE_OPTIONS -fno-lto OBJECT_DEPENDS ${fatbin})
message(STATUS "CUDA kernels for ${known} by ${MMEDGE_NVCC}")
