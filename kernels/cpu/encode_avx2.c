/* encode_avx2.c - encode.h with AVX2. */
#define ENCODE encode
#include <cpu/encode_lanes.h>

extern const MiEncodeFn mi_encode_avx2;
const MiEncodeFn        mi_encode_avx2 = encode;
