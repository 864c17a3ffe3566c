/* dense_avx512.c - dense.h with one 64-byte register for 16 lanes. */
#include <cpu/dense.h>
#include <cpu/x86.h>
#include <immintrin.h>

typedef __m512 Lanes;
enum { TILE_OUT = 4, TILE_ROWS = 6 };

static inline Lanes lanes_zero(void) { return _mm512_setzero_ps(); }
static inline Lanes lanes_fma(Lanes a, Lanes b, Lanes sum) { return _mm512_fmadd_ps(a, b, sum); }
static inline Lanes lanes_f32(const void *p) { return _mm512_loadu_ps(p); }
static inline Lanes lanes_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256(p)); }
static inline Lanes lanes_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16));
}
static inline float lanes_sum(Lanes v)
{
    const __m256 eight = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128       four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

#include <cpu/dense_lanes.h>

const MiDenseIsa mi_dense_avx512 = { "avx512", mi_x86_avx512_vnni, { run_f32, run_f16, run_bf16 } };
