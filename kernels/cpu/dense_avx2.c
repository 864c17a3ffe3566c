/* dense_avx2.c - dense.h with two 32-byte registers for 16 lanes. */
#include <cpu/dense.h>
#include <cpu/x86.h>
#include <immintrin.h>

typedef struct { __m256 a, b; } Lanes;
enum { TILE_OUT = 2, TILE_ROWS = 3 };

static inline Lanes lanes_zero(void) { return (Lanes){ _mm256_setzero_ps(), _mm256_setzero_ps() }; }
static inline Lanes lanes_fma(Lanes a, Lanes b, Lanes sum)
{
    return (Lanes){ _mm256_fmadd_ps(a.a, b.a, sum.a), _mm256_fmadd_ps(a.b, b.b, sum.b) };
}
static inline Lanes lanes_f32(const void *p)
{
    return (Lanes){ _mm256_loadu_ps(p), _mm256_loadu_ps((const float *)p + 8) };
}
static inline Lanes lanes_f16(const void *p)
{
    return (Lanes){ _mm256_cvtph_ps(_mm_loadu_si128(p)), _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p + 1)) };
}
static inline __m256 from_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(p)), 16));
}
static inline Lanes lanes_bf16(const void *p) { return (Lanes){ from_bf16(p), from_bf16((const __m128i *)p + 1) }; }
static inline float lanes_sum(Lanes v)
{
    const __m256 eight = _mm256_add_ps(v.a, v.b);
    __m128       four = _mm_add_ps(_mm256_castps256_ps128(eight), _mm256_extractf128_ps(eight, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
}

#include <cpu/dense_lanes.h>

const MiDenseIsa mi_dense_avx2 = { "avx2", mi_x86_avx2, { run_f32, run_f16, run_bf16 } };
