/* floats_avx512.c - AVX-512 F and DQ. */
#include <cpu/floats.h>
#ifdef __x86_64__
#include <immintrin.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx2,fma,f16c")
#endif
#define LANES 16
#define HAVE_F16C
#define FLOATS mi_floats_avx512
#define FLOATS_NAME "avx512"
#include <cpu/floats_body.h>
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
