/* numbers.h - f32 as what activations and caches hold, and back; host, one by one. */
#ifndef MI_CORE_NUMBERS_H
#define MI_CORE_NUMBERS_H

#include <miniinfer/types.h>

/* f32, f16, bf16 to nearest, ties to even; i32 as far as f32 is exact. */
void  mi_numbers_to(MiDType, const float *x, int64_t n, void *out);
void  mi_numbers_from(MiDType, const void *x, int64_t n, float *out);
float mi_number_as(MiDType, float x); /* rounded to it */

#endif
