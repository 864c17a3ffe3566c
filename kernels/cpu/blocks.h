/* blocks.h - how weights are stored: plain floats and the block formats of
 * GGUF, each a run of values with a scale of its own.
 *
 * The layouts are those of the GGUF format as ggml defines them; names are the
 * canonical MiWeight.format: "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0",
 * "q5_1", "q8_0", "q2_k", "q3_k", "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs". */
#ifndef MI_KERNELS_CPU_BLOCKS_H
#define MI_KERNELS_CPU_BLOCKS_H

#include <miniinfer/types.h>

typedef struct {
    const char *name;
    int32_t     gguf;   /* ggml's number of the type */
    int32_t     values; /* of a block: 1, 32 or 256 */
    int32_t     bytes;  /* of a block */
    /* n values (a multiple of `values`) from whole blocks at src, as f32. */
    void (*decode)(const void *src, float *dst, int64_t n);
} MiBlockFormat;

const MiBlockFormat *mi_block_format(const char *name);   /* NULL: not one of them */
const MiBlockFormat *mi_block_format_gguf(uint32_t type); /* NULL: not one of them */

MI_INLINE float mi_f16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v, magic = { 113u << 23 };
    v.u = (h & 0x7fffu) << 13; /* exponent and mantissa */
    const uint32_t exponent = v.u & (0x7c00u << 13);
    v.u += (127u - 15u) << 23;
    if (exponent == 0x7c00u << 13) { /* infinity, NaN */
        v.u += (128u - 16u) << 23;
    } else if (exponent == 0) { /* zero, subnormal */
        v.u += 1u << 23;
        v.f -= magic.f;
    }
    v.u |= (uint32_t)(h & 0x8000u) << 16;
    return v.f;
}

MI_INLINE uint16_t mi_f32_to_f16(float f) /* to nearest, ties to even */
{
    union { uint32_t u; float f; } v = { 0 }, denormal = { ((127u - 15u) + (23u - 10u) + 1u) << 23 };
    v.f = f;
    const uint32_t sign = v.u & 0x80000000u;
    uint32_t       out;
    v.u ^= sign;
    if (v.u >= (127u + 16u) << 23) {
        out = v.u > 255u << 23 ? 0x7e00u : 0x7c00u;
    } else if (v.u < 113u << 23) {
        v.f += denormal.f;
        out = v.u - denormal.u;
    } else {
        const uint32_t odd = v.u >> 13 & 1u;
        v.u += ((uint32_t)(15 - 127) << 23) + 0xfffu + odd;
        out = v.u >> 13;
    }
    return (uint16_t)(out | sign >> 16);
}

MI_INLINE float mi_bf16_to_f32(uint16_t h)
{
    union { uint32_t u; float f; } v = { (uint32_t)h << 16 };
    return v.f;
}

MI_INLINE uint16_t mi_f32_to_bf16(float f) /* to nearest, ties to even */
{
    union { uint32_t u; float f; } v = { 0 };
    v.f = f;
    if ((v.u & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(v.u >> 16 | 64u);
    return (uint16_t)((v.u + 0x7fffu + (v.u >> 16 & 1u)) >> 16);
}

#endif
