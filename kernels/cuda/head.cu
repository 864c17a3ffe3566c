/* head.cu - the kernels of head.h: rows are normed by one of their own, since a tile of W is too small a part of
 * the work to do it again, then it is the product of layer.cuh. */
#include "head.h"

#include "boxes.cuh"
#include "layer.cuh"

namespace mi_layer
{

using mi_boxes::card, mi_boxes::describe;

constexpr int STAGES = 5;

struct Variant {
    int tokens;
    void (*kernel)(Args);
    int known;
};
#define VARIANT(TOKENS) {TOKENS, product<LOGITS, TOKENS, MI_HEAD_TILE>, Known<LOGITS, TOKENS, MI_HEAD_TILE>::TURNS}
static const Variant variants[] = {VARIANT(32), VARIANT(64), VARIANT(128)};

static const Variant &variant_for(int rows) { return variants[rows <= 32 ? 0 : rows <= 64 ? 1 : 2]; }

/* A ring of STAGES or less, so that two blocks fit. */
static int stages_of(const Variant &v) { return v.tokens > 64 ? 3 : v.tokens > 32 ? 4 : STAGES; }
static int ring_of(const Variant &v)
{
    const int ring = stages_of(v) * (v.tokens + MI_HEAD_TILE) * ROW, sums = v.tokens * (MI_HEAD_TILE + PAD) * 4;
    return ring > sums ? ring : (sums + 1023) / 1024 * 1024;
}
static int smem_of(const Variant &v) { return ring_of(v) + v.known + BARS_BYTES; }

/* A row a block. */
static __global__ void __launch_bounds__(128) norm_rows(const bf16 *x, int64_t stride, const int32_t *out_rows, MiGemvNorm n, int in,
                                                        bf16 *y)
{
    __shared__ float shared[32];
    const int        row = blockIdx.x;
    float            sum = 0;

    let_successor_start();
    const bf16 *from = x + (out_rows ? out_rows[row] : row) * stride;
    wait_for_predecessor();
    for (int i = threadIdx.x * 8; i < in; i += 128 * 8) {
        const Eight<bf16> v = *(const Eight<bf16> *)(from + i);
#pragma unroll
        for (int k = 0; k < 8; k++)
            sum += to_float(v.at[k]) * to_float(v.at[k]);
    }
    const float scale = rsqrtf(block_sum(sum, shared) / in + n.eps);
    for (int i = threadIdx.x * 8; i < in; i += 128 * 8) {
        const Eight<bf16> v = *(const Eight<bf16> *)(from + i);
        Eight<bf16>       out;
#pragma unroll
        for (int k = 0; k < 8; k++)
            out.at[k] = from_float<bf16>(to_float(v.at[k]) * scale * (n.gain[i + k] + n.offset));
        *(Eight<bf16> *)(y + (int64_t)row * in + i) = out;
    }
}

} // namespace mi_layer

using namespace mi_layer;

extern "C" int mi_cuda_head_takes(int32_t rows, int32_t in, int32_t out)
{
    if (!card().encode || rows < 1 || rows > MI_HEAD_MAX_ROWS || in < 8 || in % 8 || out < 8 || out % 8)
        return cudaErrorNotSupported;
    for (const Variant &v : variants) { /* a step may have fewer rows than it was planned for */
        const int e = mi_allow_smem(v.kernel, smem_of(v));
        if (e)
            return e;
    }
    return 0;
}

extern "C" int mi_cuda_head(void *stream, const MiHeadCall *c)
{
    const Variant &v = variant_for(c->rows);
    const int      tiles = (c->out + MI_HEAD_TILE - 1) / MI_HEAD_TILE;
    Args           a = {};

    if (c->rows < 1)
        return 0;
    a.rows = c->rows;
    a.out = c->out;
    a.boxes = (c->in + BOX - 1) / BOX;
    a.groups = (c->rows + v.tokens - 1) / v.tokens;
    a.cluster = 1;
    a.stages = stages_of(v);
    a.under_way = a.stages;
    a.known = ring_of(v);
    a.bars = smem_of(v) - BARS_BYTES;
    a.logits = {c->logits, c->best, c->stride, tiles};
    if (!describe(&a.w[0], c->w, c->out, c->in, c->in, MI_HEAD_TILE) || !describe(&a.x, c->workspace, c->rows, c->in, c->in, v.tokens))
        return cudaErrorInvalidValue;
    const int e = mi_launch(norm_rows, dim3(c->rows), dim3(128), 0, stream, (const bf16 *)c->x.data, c->x.stride[0], c->out_rows,
                            c->norm, c->in, (bf16 *)c->workspace);
    if (e)
        return e;
    return mi_launch(v.kernel, dim3(tiles * a.groups), dim3((v.tokens > 64 ? 256 : 128) + 64), smem_of(v), stream, a);
}
