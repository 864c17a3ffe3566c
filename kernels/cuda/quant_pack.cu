/* quant_pack.cu - plain rows to the records of quant.h and back. */
#include "quant_codes.cuh"

using namespace mi_quant;

struct Range {
    float least, most;
};

__device__ static Range over_lanes(Range r, int lanes)
{
    for (int o = 1; o < lanes; o *= 2) {
        r.least = fminf(r.least, __shfl_xor_sync(~0u, r.least, o));
        r.most = fmaxf(r.most, __shfl_xor_sync(~0u, r.most, o));
    }
    return r;
}

/* How the values of a range are rounded. */
__device__ static Rule rule_of(MiQuantForm f, Range r)
{
    const float least = f.bits == 4 ? -8 : -128, steps = f.bits == 4 ? 15 : 255;
    Rule        rule = {0, 0};

    r = {fminf(r.least, 0), fmaxf(r.most, 0)};
    if (f.zeros)
        rule.scale = (r.most - r.least) / steps;
    else if (f.bits == 8)
        rule.scale = fmaxf(-r.least, r.most) / 127;
    else
        rule.scale = (-r.least > r.most ? r.least : r.most) / -8;
    if (f.group)
        rule.scale = __half2float(__float2half_rn(rule.scale));
    if (f.zeros && rule.scale > 0)
        rule.zero = -least - fminf(fmaxf(rintf(-r.least / rule.scale), 0), steps);
    return rule;
}

__device__ static int rounded(MiQuantForm f, Rule r, float v)
{
    const float most = f.bits == 4 ? 7 : 127;
    return r.scale == 0 ? 0 : (int)fminf(fmaxf(rintf(v / r.scale) - r.zero, -most - 1), most);
}

/* A block has a record, a warp a row of it. */
template <typename T> static __global__ void __launch_bounds__(256) quantise(Matrix m, const T *src, char *dst)
{
    const int     lane = threadIdx.x % 32, row = threadIdx.x / 32;
    const int64_t r = (int64_t)blockIdx.x * MI_QUANT_ROWS + row;
    char         *record = dst + blockIdx.x * m.record;
    auto          four = [&](int64_t c, float *v) {
        for (int i = 0; i < 4; i++) {
            const int64_t k = c * MI_QUANT_COLUMNS + lane * 4 + i;
            v[i] = r < m.rows && k < m.in ? to_float(src[r * m.in + k]) : 0;
        }
    };
    auto range = [&](const float *v) {
        return Range{fminf(fminf(v[0], v[1]), fminf(v[2], v[3])), fmaxf(fmaxf(v[0], v[1]), fmaxf(v[2], v[3]))};
    };
    Rule  rule = {};
    float v[4];

    if (!m.form.group) {
        Range all = {0, 0};
        for (int64_t c = 0; c < m.chunks; c++) {
            four(c, v);
            const Range here = range(v);
            all = {fminf(all.least, here.least), fmaxf(all.most, here.most)};
        }
        rule = rule_of(m.form, over_lanes(all, 32));
    }
    for (int64_t c = 0; c < m.chunks; c++) {
        char *chunk = record + c * m.chunk;
        int   q[4];
        four(c, v);
        if (m.form.group) {
            const int lanes = m.form.group / 4, g = lane / lanes;
            rule = rule_of(m.form, over_lanes(range(v), lanes));
            if (lane % lanes == 0) {
                const Scales s = scales_at(m, chunk, row, g);
                *(__half *)s.scale = __float2half_rn(rule.scale);
                if (m.form.zeros)
                    *(__half *)s.zero = __float2half_rn(rule.zero);
            }
        }
        for (int i = 0; i < 4; i++)
            q[i] = rounded(m.form, rule, v[i]);
        put_codes(m.form, chunk, row, lane, q);
    }
    if (!m.form.group && lane == 0) {
        float *end = (float *)(record + m.chunks * m.chunk);
        end[row] = rule.scale;
        end[MI_QUANT_ROWS + row] = rule.zero;
    }
}

/* As above, several chunks of a record to a block. */
template <typename T>
static __global__ void __launch_bounds__(256) dequantise(Matrix m, const char *packed, int64_t first, T *dst)
{
    const int     lane = threadIdx.x % 32, row = threadIdx.x / 32;
    const int64_t r = (int64_t)blockIdx.x * MI_QUANT_ROWS + row;
    const char   *record = packed + (first / MI_QUANT_ROWS + blockIdx.x) * m.record;
    const float  *end = (const float *)(record + m.chunks * m.chunk);

    if (r >= m.rows)
        return;
    for (int64_t c = blockIdx.y; c < m.chunks; c += gridDim.y) {
        const char *chunk = record + c * m.chunk;
        const Rule  rule = m.form.group ? rule_at(m, chunk, row, lane * 4 / m.form.group)
                                        : Rule{end[row], end[MI_QUANT_ROWS + row], 0};
        int         q[4];
        get_codes(m.form, chunk, row, lane, q);
        for (int i = 0; i < 4; i++) {
            const int64_t k = c * MI_QUANT_COLUMNS + lane * 4 + i;
            if (k < m.in)
                dst[r * m.in + k] = from_float<T>(fmaf(rule.scale, (float)q[i] + rule.zero, rule.more));
        }
    }
}

static bool possible(MiQuantForm f, int64_t rows, int64_t in)
{
    return mi_quant_possible(f) && rows > 0 && in > 0 && rows <= INT32_MAX && in <= INT32_MAX;
}

extern "C" int mi_cuda_quantise(void *stream, MiQuantForm f, const void *src, MiDType dtype, int64_t rows, int64_t in,
                                void *dst)
{
    const dim3   grid((unsigned)((rows + MI_QUANT_ROWS - 1) / MI_QUANT_ROWS));
    const Matrix m = matrix_of(f, rows, in);

    if (!possible(f, rows, in) || f.minima || f.levels || f.scales || (f.bits != 4 && f.bits != 8))
        return cudaErrorInvalidValue;
    if (dtype == MI_BF16)
        quantise<<<grid, 256, 0, (cudaStream_t)stream>>>(m, (const bf16 *)src, (char *)dst);
    else if (dtype == MI_F16)
        quantise<<<grid, 256, 0, (cudaStream_t)stream>>>(m, (const __half *)src, (char *)dst);
    else
        quantise<<<grid, 256, 0, (cudaStream_t)stream>>>(m, (const float *)src, (char *)dst);
    return cudaGetLastError();
}

extern "C" int mi_cuda_dequantise(void *stream, MiQuantForm f, const void *packed, int64_t first, int64_t rows,
                                  int64_t in, void *dst, MiDType dtype)
{
    const int64_t records = (rows + MI_QUANT_ROWS - 1) / MI_QUANT_ROWS, chunks = mi_quant_chunks(in);
    const dim3    grid((unsigned)records, (unsigned)(chunks < 8 ? chunks : 8));
    const Matrix  m = matrix_of(f, rows, in);

    if (!possible(f, rows, in) || first % MI_QUANT_ROWS)
        return cudaErrorInvalidValue;
    if (dtype == MI_BF16)
        dequantise<<<grid, 256, 0, (cudaStream_t)stream>>>(m, (const char *)packed, first, (bf16 *)dst);
    else if (dtype == MI_F16)
        dequantise<<<grid, 256, 0, (cudaStream_t)stream>>>(m, (const char *)packed, first, (__half *)dst);
    else
        dequantise<<<grid, 256, 0, (cudaStream_t)stream>>>(m, (const char *)packed, first, (float *)dst);
    return cudaGetLastError();
}
