/* quant_codes.cuh - where in the records of quant.h a warp finds the codes and scales of a row's chunk: lane l has its
 * columns 4 l ..+3.  What is faster is in quant_gemv.cuh; this is for packing and unpacking. */
#ifndef KERNELS_CUDA_QUANT_CODES_CUH
#define KERNELS_CUDA_QUANT_CODES_CUH

#include "device.cuh"
#include "quant.h"

namespace mi_quant
{

/* What all threads of a kernel know of a matrix. */
struct Matrix {
    MiQuantForm form;
    int64_t     record, rows, in, chunks;
    int32_t     chunk, values, groups;
};

static inline Matrix matrix_of(MiQuantForm f, int64_t rows, int64_t in)
{
    return {f,
            mi_quant_record(f, in),
            rows,
            in,
            mi_quant_chunks(in),
            mi_quant_chunk(f),
            mi_quant_values(f),
            mi_quant_groups(f)};
}

__device__ inline int level_of(int code)
{
    constexpr int8_t levels[16] = MI_QUANT_LEVELS;
    return levels[code];
}

/* ---- codes ------------------------------------------------------------------------ */

/* Of a lane: quarter, t and half. */
struct Corner {
    int j, t, second;
};

__device__ inline Corner corner_of(MiQuantForm f, int lane)
{
    return f.group == 16 ? Corner{lane / 8, lane % 4, lane / 4 % 2} : Corner{lane / 8, lane / 2 % 4, lane % 2};
}

__device__ inline unsigned *bytes_at(char *chunk, int row, Corner c)
{
    return (unsigned *)(chunk + c.j / 2 * 512 + (row * 4 + c.t) * 16 + c.j % 2 * 8 + c.second * 4);
}
__device__ inline unsigned *nibbles_at(char *chunk, int row, Corner c)
{
    return (unsigned *)(chunk + (row * 4 + c.t) * 16 + c.j * 4);
}
__device__ inline unsigned *above_at(MiQuantForm f, char *chunk, int row, Corner c)
{
    return (unsigned *)(chunk + 512 + (row * 4 + c.t) * 4 * (f.bits - 4) + (f.bits == 6 ? c.j / 2 * 4 : 0));
}

/* The first bit of byte i's in those words. */
__device__ inline int nibble_bit(MiQuantForm f, Corner c, int i)
{
    return f.levels ? 16 * c.second + 4 * i : 8 * i + 4 * c.second;
}
__device__ inline int above_bit(MiQuantForm f, Corner c, int i)
{
    return 8 * i + (f.bits == 6 ? 2 * (c.j % 2 * 2 + c.second) : 2 * c.j + c.second);
}

/* Signed codes, of levels their places.  Whole warps. */
__device__ inline void put_codes(MiQuantForm f, char *chunk, int row, int lane, const int *q)
{
    const Corner c = corner_of(f, lane);
    const int    other = f.group == 16 ? 4 : 1; /* the lane of the other half */
    unsigned     word = 0, above = 0;

    if (f.bits == 8) {
        for (int i = 0; i < 4; i++)
            word |= (unsigned)(q[i] & 255) << 8 * i;
        *bytes_at(chunk, row, c) = word;
        return;
    }
    for (int i = 0; i < 4; i++)
        word |= (unsigned)(q[i] & 15) << nibble_bit(f, c, i);
    word |= __shfl_xor_sync(~0u, word, other);
    if (!c.second)
        *nibbles_at(chunk, row, c) = word;
    if (f.bits == 4)
        return;
    for (int i = 0; i < 4; i++)
        above |= (unsigned)(q[i] >> 4 & (f.bits == 6 ? 3 : 1)) << above_bit(f, c, i);
    above |= __shfl_xor_sync(~0u, above, other);
    above |= __shfl_xor_sync(~0u, above, 8);
    if (f.bits == 5)
        above |= __shfl_xor_sync(~0u, above, 16);
    if (!c.second && (f.bits == 6 ? c.j % 2 == 0 : c.j == 0))
        *above_at(f, chunk, row, c) = above;
}

/* The numbers that they stand for, zeros not yet added. */
__device__ inline void get_codes(MiQuantForm f, const char *from, int row, int lane, int *q)
{
    const Corner   c = corner_of(f, lane);
    char          *chunk = (char *)from;
    const unsigned word = f.bits == 8 ? *bytes_at(chunk, row, c) : *nibbles_at(chunk, row, c);
    const unsigned above = f.bits == 5 || f.bits == 6 ? *above_at(f, chunk, row, c) : 0;

    for (int i = 0; i < 4; i++) {
        int code = f.bits == 8 ? (int)(word >> 8 * i & 255) : (int)(word >> nibble_bit(f, c, i) & 15);
        if (f.bits == 5 || f.bits == 6)
            code |= (int)(above >> above_bit(f, c, i) & (f.bits == 6 ? 3 : 1)) << 4;
        q[i] = f.levels ? level_of(code) : (int)((unsigned)code << (32 - f.bits)) >> (32 - f.bits);
    }
}

/* ---- scales ----------------------------------------------------------------------- */

/* Behind a chunk's values: row's scale of a group, its zero or minimum; of pairs the f16 and the byte. */
struct Scales {
    char *scale, *zero, *scale_byte, *zero_byte;
};

__device__ inline Scales scales_at(const Matrix &m, char *chunk, int row, int group)
{
    char     *p = chunk + m.values;
    const int width = m.form.scales == MI_QUANT_F32 ? 4 : 2, n = 1 + m.form.zeros;

    if (m.form.scales == MI_QUANT_PAIRS) {
        char *bytes = p + 2 * n * MI_QUANT_ROWS + (group * MI_QUANT_ROWS + row) * n;
        return {p + row * 2 * n, p + row * 2 * n + 2, bytes, bytes + 1};
    }
    const int at = group * MI_QUANT_ROWS + row;
    return {p + at * width, p + m.groups * MI_QUANT_ROWS * width + at * 2, NULL, NULL};
}

/* A value is scale * (code + zero) + more. */
struct Rule {
    float scale, zero, more;
};

__device__ inline Rule rule_at(const Matrix &m, const char *chunk, int row, int group)
{
    const Scales s = scales_at(m, (char *)chunk, row, group);
    Rule         r = {0, 0, 0};

    r.scale = m.form.scales == MI_QUANT_F32    ? *(const float *)s.scale
              : m.form.scales == MI_QUANT_BF16 ? __bfloat162float(*(const bf16 *)s.scale)
                                               : __half2float(*(const __half *)s.scale);
    if (m.form.zeros)
        r.zero = __half2float(*(const __half *)s.zero);
    if (m.form.scales == MI_QUANT_PAIRS) {
        r.scale *= (float)*(const int8_t *)s.scale_byte;
        if (m.form.zeros)
            r.zero *= -(float)*(const uint8_t *)s.zero_byte;
    }
    if (m.form.minima) {
        r.more = r.zero;
        r.zero = (float)(1 << (m.form.bits - 1));
    }
    return r;
}

} // namespace mi_quant
#endif
