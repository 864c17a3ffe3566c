/* floats_avx2.c - AVX2 with FMA and F16C. */
#include <cpu/floats.h>
#ifdef __x86_64__
#include <immintrin.h>
#include <string.h>
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,f16c")
#endif
#define LANES 8
#define HAVE_F16C
#define FLOATS mi_floats_avx2
#define FLOATS_NAME "avx2"
#include <cpu/floats_body.h>
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
