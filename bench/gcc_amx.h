/* Included before every C++ file of llama.cpp (see `make bench`).

   GCC before 14 tells its optimiser that _tile_loadconfig reads 8 bytes of the 64-byte tile configuration, so it drops the
   stores to the others; llama.cpp's AMX kernels then die of a general protection fault (seen with GCC 12.2, llama.cpp in
   llama-cpp-python 0.3.36, a Xeon with AMX). Here the operand is the whole configuration. */
#pragma once
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 14
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%0" ::"m"(*(const char(*)[64])(config)))
#endif
