/* numbers.h - f32 as what activations and caches hold, and back; host, one by one. */
#ifndef MI_CORE_NUMBERS_H
#define MI_CORE_NUMBERS_H

#include <miniinfer/types.h>

/* f32, f16, bf16 to nearest, ties to even; i32 as far as f32 is exact. */
void  mi_numbers_to(MiDType, const float *x, int64_t n, void *out);
void  mi_numbers_from(MiDType, const void *x, int64_t n, float *out);
float mi_number_as(MiDType, float x); /* rounded to it */

/* MI_F8 (E4M3) and MI_I8 that share a scale, a bf16, by which the largest is no more than the largest number; 1 for zeros.
 * Of x - shift, or of x where that is NULL. */
uint16_t mi_scaled_to(MiDType, const float *x, const float *shift, int64_t n, uint8_t *codes);
void     mi_scaled_from(MiDType, const uint8_t *codes, uint16_t scale, int64_t n, float *out);
/* The scale as a number; E4M3 of one number, to nearest, 448 for what is more, and back. */
float    mi_scale_for(MiDType, float largest);
uint8_t  mi_number_to_f8(float x);
float    mi_number_from_f8(uint8_t code);

#endif
