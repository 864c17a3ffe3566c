/* encode_avx512.c - encode.h with AVX-512. */
#define ENCODE encode
#include <cpu/encode_lanes.h>

extern const MiEncodeFn mi_encode_avx512;
const MiEncodeFn        mi_encode_avx512 = encode;
