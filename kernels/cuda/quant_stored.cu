/* quant_stored.cu - what quant_stored.h promises.  Loading a matrix is reading the file: plain loops, a block a record. */
#include "quant_codes.cuh"
#include "quant_stored.h"

#include <cstring>

using namespace mi_quant;

/* ---- GGUF's blocks, whose layouts kernels/cpu/blocks.c has -------------------------- */

enum Kind { Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K, IQ4_NL, IQ4_XS };

static const MiStoredBlocks known[] = { /* by Kind */
    {"q4_0", 32, 18, {4, 32, false, false, false, MI_QUANT_F16}},
    {"q4_1", 32, 20, {4, 32, true, true, false, MI_QUANT_F16}},
    {"q5_0", 32, 22, {5, 32, false, false, false, MI_QUANT_F16}},
    {"q5_1", 32, 24, {5, 32, true, true, false, MI_QUANT_F16}},
    {"q8_0", 32, 34, {8, 32, false, false, false, MI_QUANT_F16}},
    {"q4_k", 256, 144, {4, 32, true, true, false, MI_QUANT_PAIRS}},
    {"q5_k", 256, 176, {5, 32, true, true, false, MI_QUANT_PAIRS}},
    {"q6_k", 256, 210, {6, 16, false, false, false, MI_QUANT_PAIRS}},
    {"iq4_nl", 32, 18, {4, 32, false, false, true, MI_QUANT_F16}},
    {"iq4_xs", 256, 136, {4, 32, false, false, true, MI_QUANT_PAIRS}},
};

extern "C" const MiStoredBlocks *mi_stored_blocks(const char *format)
{
    for (const MiStoredBlocks &b : known)
        if (strcmp(b.name, format) == 0)
            return &b;
    return NULL;
}

struct Blocks {
    const uint8_t *src;
    int64_t        row_bytes;
    Kind           kind;
    int32_t        values, bytes;

    __device__ const uint8_t *block(int64_t r, int64_t k) const { return src + r * row_bytes + k / values * bytes; }

    __device__ static int nibble(const uint8_t *p, int j) { return p[j % 16] >> j / 16 * 4 & 15; }

    /* Of column k: signed; of levels the place. */
    __device__ int code(int64_t r, int64_t k) const
    {
        const uint8_t *p = block(r, k);
        const int      i = (int)(k % values), j = i % 32, g = i / 32;

        switch (kind) {
        case Q4_0:
            return nibble(p + 2, j) - 8;
        case Q4_1:
            return nibble(p + 4, j) - 8;
        case Q5_0:
            return (nibble(p + 6, j) | (p[2 + j / 8] >> j % 8 & 1) << 4) - 16;
        case Q5_1:
            return (nibble(p + 8, j) | (p[4 + j / 8] >> j % 8 & 1) << 4) - 16;
        case Q8_0:
            return (int8_t)p[2 + j];
        case Q4_K:
            return (p[16 + g / 2 * 32 + j] >> g % 2 * 4 & 15) - 8;
        case Q5_K:
            return ((p[48 + g / 2 * 32 + j] >> g % 2 * 4 & 15) | (p[16 + j] >> g & 1) << 4) - 16;
        case Q6_K:
            return ((p[i / 128 * 64 + i % 64] >> g % 4 / 2 * 4 & 15) | (p[128 + i / 128 * 32 + j] >> g % 4 * 2 & 3) << 4) - 32;
        case IQ4_NL:
            return nibble(p + 2, j);
        case IQ4_XS:
            return nibble(p + 8 + 16 * g, j);
        }
        return 0;
    }

    /* Of the group of which column k is one. */
    __device__ void put_scales(const Matrix &, const Scales &to, int64_t r, int64_t k) const
    {
        const uint8_t *p = block(r, k);
        const int      i = (int)(k % values), g = i / 32;
        auto           halves = [](char *dst, const uint8_t *from) { *(uint16_t *)dst = *(const uint16_t *)from; };

        halves(to.scale, kind == Q6_K ? p + 208 : p);
        if (kind == Q4_1 || kind == Q5_1 || kind == Q4_K || kind == Q5_K)
            halves(to.zero, p + 2);
        if (kind == Q4_K || kind == Q5_K) {
            const uint8_t *s = p + 4;
            *to.scale_byte = g < 4 ? s[g] & 63 : (s[g + 4] & 15) | s[g - 4] >> 6 << 4;
            *to.zero_byte = g < 4 ? s[g + 4] & 63 : s[g + 4] >> 4 | s[g] >> 6 << 4;
        } else if (kind == Q6_K) {
            *to.scale_byte = (char)p[192 + i / 16];
        } else if (kind == IQ4_XS) {
            const int low = p[4 + g / 2] >> g % 2 * 4 & 15, high = (p[2] | p[3] << 8) >> 2 * g & 3;
            *to.scale_byte = (char)((low | high << 4) - 32);
        }
    }
    __device__ float2 row_rule(int64_t) const { return {0, 0}; }
};

/* ---- GPTQ, AWQ, compressed-tensors: kernels/cpu/quants.c ---------------------------- */

struct Quant {
    MiQuant        q;
    const int32_t *order;
    int32_t        middle;

    __device__ static int awq_shift(int64_t o) { return (int)(o % 2 * 16 + o % 8 / 2 * 4); } /* places 0, 4, 1, 5, 2, 6, 3, 7 */

    __device__ int code(int64_t r, int64_t k) const
    {
        const int64_t   i = order ? order[k] : k, per = 32 / q.bits;
        const uint32_t *w = (const uint32_t *)q.codes, mask = (1u << q.bits) - 1;

        switch (q.codes_as) {
        case MI_CODES_I8:
            return ((const int8_t *)q.codes)[r * q.in + i];
        case MI_CODES_ALONG:
            return (int)(w[r * ((q.in + per - 1) / per) + i / per] >> i % per * q.bits & mask) - middle;
        case MI_CODES_ACROSS:
            return (int)(w[i / per * q.out + r] >> i % per * q.bits & mask) - middle;
        case MI_CODES_AWQ:
            return (int)(w[i * (q.out / 8) + r / 8] >> awq_shift(r) & 15) - middle;
        default:
            return 0;
        }
    }

    /* What is added to a code. */
    __device__ int zero(int64_t r, int64_t g) const
    {
        const int64_t   per = 32 / q.bits;
        const uint32_t *w = (const uint32_t *)q.zeros, mask = (1u << q.bits) - 1;
        const int       shift = (int)(r % per) * q.bits;
        int             z = q.zero + (q.codes_as == MI_CODES_I8 ? 128 : 0);

        switch (q.zeros_as) {
        case MI_ZEROS_I8:
            z += ((const int8_t *)q.zeros)[r / q.group_out * q.n_groups + g];
            break;
        case MI_ZEROS_DOWN:
            z = (int)(w[r / per * q.n_groups + g] >> shift & mask);
            break;
        case MI_ZEROS_ALONG:
            z = (int)((w[g * (q.out / per) + r / per] + (uint32_t)q.zero * (0xffffffffu / mask)) >> shift & mask);
            break;
        case MI_ZEROS_AWQ:
            z = (int)(w[g * (q.out / 8) + r / 8] >> awq_shift(r) & 15);
            break;
        default:
            break;
        }
        return middle - z;
    }

    __device__ int64_t scale_index(int64_t r, int64_t g) const { return r / q.group_out * q.scale_row + g * q.scale_group; }

    __device__ void put_scales(const Matrix &m, const Scales &to, int64_t r, int64_t k) const
    {
        const int64_t g = k / q.group_in, at = scale_index(r, g);

        if (m.form.scales == MI_QUANT_F32)
            *(float *)to.scale = ((const float *)q.scales)[at];
        else
            *(uint16_t *)to.scale = ((const uint16_t *)q.scales)[at];
        if (m.form.zeros)
            *(__half *)to.zero = __int2half_rn(zero(r, g));
    }
    __device__ float2 row_rule(int64_t r) const
    {
        const int64_t at = scale_index(r, 0);
        const float   s = q.scale_dtype == MI_F32   ? ((const float *)q.scales)[at]
                          : q.scale_dtype == MI_F16 ? __half2float(((const __half *)q.scales)[at])
                                                    : __bfloat162float(((const bf16 *)q.scales)[at]);
        return {s, (float)zero(r, 0)};
    }
};

/* ---- packing ---------------------------------------------------------------------- */

/* A block has a record, a warp a row of it. */
template <typename S> static __global__ void __launch_bounds__(256) pack(Matrix m, S src, char *dst)
{
    const int     lane = threadIdx.x % 32, row = threadIdx.x / 32;
    const int64_t r = (int64_t)blockIdx.x * MI_QUANT_ROWS + row;
    char         *record = dst + blockIdx.x * m.record;

    for (int64_t c = 0; c < m.chunks; c++) {
        const int64_t first = c * MI_QUANT_COLUMNS, k = first + lane * m.form.group;
        char         *chunk = record + c * m.chunk;
        int           q[4];
        for (int i = 0; i < 4; i++)
            q[i] = r < m.rows && first + lane * 4 + i < m.in ? src.code(r, first + lane * 4 + i) : 0;
        put_codes(m.form, chunk, row, lane, q);
        if (lane >= m.groups)
            continue;
        const Scales to = scales_at(m, chunk, row, lane);
        if (r < m.rows && k < m.in) {
            src.put_scales(m, to, r, k);
        } else {
            memset(to.scale, 0, m.form.scales == MI_QUANT_F32 ? 4 : 2);
            if (m.form.zeros)
                *(uint16_t *)to.zero = 0;
        }
    }
    if (m.form.group || lane)
        return;
    float       *end = (float *)(record + m.chunks * m.chunk);
    const float2 rule = r < m.rows ? src.row_rule(r) : float2{0, 0};
    end[row] = rule.x;
    end[MI_QUANT_ROWS + row] = rule.y;
}

static bool possible(MiQuantForm f, int64_t rows, int64_t in)
{
    return mi_quant_possible(f) && rows > 0 && in > 0 && rows <= INT32_MAX && in <= INT32_MAX;
}

static unsigned records(int64_t rows) { return (unsigned)((rows + MI_QUANT_ROWS - 1) / MI_QUANT_ROWS); }

extern "C" int mi_cuda_pack_blocks(void *stream, const MiStoredBlocks *b, const void *src, int64_t rows, int64_t in,
                                   void *dst)
{
    const Blocks from = {(const uint8_t *)src, in / b->values * b->bytes, (Kind)(b - known), b->values, b->bytes};

    if (!possible(b->form, rows, in) || in % b->values)
        return cudaErrorInvalidValue;
    pack<<<records(rows), 256, 0, (cudaStream_t)stream>>>(matrix_of(b->form, rows, in), from, (char *)dst);
    return cudaGetLastError();
}

extern "C" int mi_cuda_pack_quant(void *stream, MiQuantForm f, const MiQuant *q, const int32_t *order, void *dst)
{
    const Quant from = {*q, order, 1 << (q->bits - 1)};

    if (!possible(f, q->out, q->in) || f.bits != q->bits || f.minima || f.levels || f.scales == MI_QUANT_PAIRS ||
        q->codes_as == MI_CODES_F8 || (q->n_groups > 1 && (!f.group || q->group_in % f.group)))
        return cudaErrorInvalidValue;
    pack<<<records(q->out), 256, 0, (cudaStream_t)stream>>>(matrix_of(f, q->out, q->in), from, (char *)dst);
    return cudaGetLastError();
}

/* ---- x in another order ------------------------------------------------------------- */

template <typename T>
static __global__ void __launch_bounds__(256) gather(const T *x, int64_t stride, const int32_t *order, int64_t in, T *y)
{
    const int64_t k = (int64_t)blockIdx.x * 256 + threadIdx.x;
    const int32_t from = k < in ? order[k] : 0;

    let_successor_start();
    wait_for_predecessor();
    if (k < in)
        y[blockIdx.y * in + k] = x[blockIdx.y * stride + from];
}

extern "C" int mi_cuda_gather_columns(void *stream, MiTensor x, const int32_t *order, MiTensor y)
{
    const int64_t in = y.shape[1];

    for (int64_t at = 0; at < y.shape[0]; at += 65535) { /* rows of a grid */
        const dim3 grid((unsigned)((in + 255) / 256), (unsigned)(y.shape[0] - at < 65535 ? y.shape[0] - at : 65535));
        const int  e =
            mi_dtype_size(x.dtype) == 2
                 ? mi_launch(gather<uint16_t>, grid, dim3(256), 0, stream, (const uint16_t *)x.data + at * x.stride[0],
                             x.stride[0], order, in, (uint16_t *)y.data + at * in)
                 : mi_launch(gather<uint32_t>, grid, dim3(256), 0, stream, (const uint32_t *)x.data + at * x.stride[0],
                             x.stride[0], order, in, (uint32_t *)y.data + at * in);
        if (e)
            return e;
    }
    return cudaSuccess;
}
