// With what this compilation of a kernel multiplies. Part of kernel.cc and row_kernel.cc: compiled
// once for each instruction set.
//
// Every choice between instructions asks here, and the width of the kernel's vectors is part of the
// answer: a compiler may be told to allow more than the kernel is for (CXXFLAGS=-mavx512vnni, or a
// default of x86-64-v3), and two places that asked it differently would not fit together.
//
//   CRISP_VNNI      four products of bytes, added up in 32 bits
//   CRISP_PAIRS     two products of bytes, added up in 16 bits; where there is no CRISP_VNNI
//   CRISP_BF16      pairs of products of bfloat16
//   CRISP_AMX_INT8, CRISP_AMX_BF16  tiles of either; with CRISP_VNNI and CRISP_BF16
#pragma once

#if CRISP_VECTOR_BYTES == 64
#if defined(__AVX512VNNI__)
#define CRISP_VNNI
#elif defined(__AVX512BW__)
#define CRISP_PAIRS
#endif
#if defined(__AVX512BF16__)
#define CRISP_BF16
#endif
#if defined(__AMX_INT8__) && defined(CRISP_VNNI)
#define CRISP_AMX_INT8
#endif
#if defined(__AMX_BF16__) && defined(CRISP_BF16)
#define CRISP_AMX_BF16
#endif
#elif CRISP_VECTOR_BYTES == 32
#if defined(__AVXVNNI__)
#define CRISP_VNNI
#elif defined(__AVX2__)
#define CRISP_PAIRS
#endif
#endif
