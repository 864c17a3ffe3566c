/* gemv.cu - how the kernel of gemv.cuh is laid out, and its launchers. */
#include "gemv.cuh"
#include "fp8_gemv.h"
#include "quant_gemv.h"
#include "skinny.h"

#include <cstring>

using namespace mi_gemv;

/* ---- the layout ------------------------------------------------------------------- */

static bool normed(const MiGemvPlan *p)
{
    return p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_QKV || p->kind == MI_GEMV_HEAD;
}

static bool paired(const MiGemvPlan *p) { return p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_QKV; }

/* What is shared out among blocks: tiles, or rows where any two make a tile. */
static int units_of(const MiGemvPlan *p) { return p->kind == MI_GEMV_QKV ? p->out / 2 : p->out; }

static int most_units(const MiGemvPlan *p) { return (units_of(p) + p->grid - 1) / p->grid; }

/* Of the block that has most. */
static int most_tiles(const MiGemvPlan *p) { return paired(p) ? most_units(p) : (most_units(p) + 1) / 2; }

static int most_rows(const MiGemvPlan *p) { return paired(p) ? 2 * most_units(p) : most_units(p); }

static bool is_e4m3(const MiGemvPlan *p) { return p->form.bits == MI_QUANT_E4M3; }

/* As quant.h has them: quant_gemv.cu's. */
static bool in_records(const MiGemvPlan *p) { return p->form.bits && !is_e4m3(p); }

/* Rows of x that the chosen instantiation computes. */
static int width(const MiGemvPlan *p) { return p->rows > 2 || (p->rows > 1 && is_e4m3(p)) ? 4 : p->rows; }

static int row_bytes(const MiGemvPlan *p) { return is_e4m3(p) ? p->in : p->in * 2; }

static int stage_bytes(const MiGemvPlan *p) { return (p->stage_rows * row_bytes(p) + 127) / 128 * 128; }

/* That a block goes through. */
static int stages_of(const MiGemvPlan *p) { return (most_rows(p) + p->stage_rows - 1) / p->stage_rows; }

/* That a round of all teams takes. */
static int stages_round(const MiGemvPlan *p)
{
    return p->stage_rows == 1 ? 2 * p->teams : p->teams / (p->stage_rows / 2);
}

/* Sums stay spread over lanes: 64 bytes of each team and tile, one pass over the tiles of a block. */
static bool late(const MiGemvPlan *p)
{
    const int most = most_tiles(p);

    return (p->kind == MI_GEMV_RESIDUAL || p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_QKV) && width(p) == 1 &&
           most * SPREAD <= p->team * p->teams * 32 && most * p->team * 64 <= 6 << 10;
}

/* Behind the ring: where each part begins, and the end of all. */
typedef struct {
    int xs, known, factors, parts, end;
} Regions;

static Regions regions_of(const MiGemvPlan *p)
{
    const int m = width(p), most = most_tiles(p), found = p->team * p->teams * m * (int)sizeof(MiCandidate);
    const int summed = most * m * 2 * p->team * (int)sizeof(float), parts = late(p) ? most * p->team * 64 : summed;
    Regions   r;

    r.xs = HEADER + (p->direct ? 0 : p->stages * stage_bytes(p));
    r.known = r.xs + (normed(p) ? m * p->in * 2 : 0);
    r.factors =
        r.known + (late(p) || p->kind == MI_GEMV_GATED || p->kind == MI_GEMV_HEAD ? 0 : most * m * (int)sizeof(float4));
    r.parts = r.factors + (is_e4m3(p) && !p->form.group && !late(p) ? (most + 1) / 2 * 2 * (int)sizeof(float2) : 0);
    r.end = r.parts + (parts > found ? parts : found);
    return r;
}

/* The kernel for a plan; NULL: there is none. */

template <int KIND> static Kernel kernel_of(const MiGemvPlan *p)
{
    if constexpr (KIND == MI_GEMV_RESIDUAL || KIND == MI_GEMV_QKV)
        if (p->direct)
            return late(p) ? gemv<bf16, AS_X, KIND, 1, false, true> : NULL;
    if (p->direct)
        return NULL;
    if constexpr (KIND == MI_GEMV_RESIDUAL || KIND == MI_GEMV_QKV || KIND == MI_GEMV_GATED)
        if (late(p))
            return gemv<bf16, AS_X, KIND, 1, true, true>;
    return width(p) == 1   ? gemv<bf16, AS_X, KIND, 1, true, false>
           : width(p) == 2 ? gemv<bf16, AS_X, KIND, 2, true, false>
                           : gemv<bf16, AS_X, KIND, 4, true, false>;
}

static Kernel kernel_for(const MiGemvPlan *p)
{
    if (is_e4m3(p))
        return mi_fp8::kernel_for(p, width(p), late(p));
    switch (p->kind) {
    case MI_GEMV_PLAIN:
        return kernel_of<MI_GEMV_PLAIN>(p);
    case MI_GEMV_RESIDUAL:
        return kernel_of<MI_GEMV_RESIDUAL>(p);
    case MI_GEMV_GATED:
        return kernel_of<MI_GEMV_GATED>(p);
    case MI_GEMV_QKV:
        return kernel_of<MI_GEMV_QKV>(p);
    case MI_GEMV_HEAD:
        return kernel_of<MI_GEMV_HEAD>(p);
    }
    return NULL;
}

extern "C" int mi_cuda_gemv_lay_out(MiGemvPlan *p)
{
    if (in_records(p))
        return mi_quant::lay_out(p);
    if (p->rows > MI_GEMV_FEW_ROWS)
        return mi_skinny::lay_out(p);
    const int warps = p->team * p->teams, tiles = p->stage_rows / 2, block_units = paired(p) ? p->teams : 2 * p->teams;

    if (warps < 1 || warps > MAX_WARPS || p->grid < 1 || p->team * STEPS * STEP_CHUNKS * 8 < p->in)
        return cudaErrorInvalidValue;
    if (p->direct) {
        p->grid = (units_of(p) + block_units - 1) / block_units;
    } else {
        if (p->stage_rows != 1 && (p->stage_rows % 2 || tiles & (tiles - 1) || p->teams % tiles))
            return cudaErrorInvalidValue;
        /* A barrier tells two phases apart, so a team that skips stages of other teams must always come back to the
         * same ones: a ring that goes round is a whole number of rounds. */
        if (p->stages < stages_of(p))
            p->stages -= p->stages % stages_round(p);
        p->flight = p->flight < p->stages ? p->flight : p->stages;
        if (p->stages > MAX_STAGES || p->stages < 1 || p->flight < 1)
            return cudaErrorInvalidValue;
    }
    p->smem = regions_of(p).end;
    const Kernel k = p->dtype == MI_BF16 && (!p->norm_dim || late(p)) ? kernel_for(p) : NULL;
    return k ? mi_allow_smem(k, p->smem) : (int)cudaErrorNotSupported;
}

/* What a block streams through: one an SM where a stage is long or the matrix small, else two, so that one streams
 * while the other ends. */
static void choose_ring(MiGemvPlan *p, int sms, int most, int64_t bytes)
{
    const int row = row_bytes(p), per_sm = p->in > 12 << 10 || bytes < 6 << 20 ? 1 : 2;
    const int blocks = per_sm * sms, each = (units_of(p) + blocks - 1) / blocks;

    p->stage_rows = 1;
    while (p->stage_rows * row * 2 <= 18 << 10 && p->stage_rows < 2 * p->teams && p->teams % p->stage_rows == 0)
        p->stage_rows *= 2;
    p->grid = (units_of(p) + each - 1) / each;
    if (p->norm_dim) { /* blocks that share a head are a cluster */
        const int heads = p->out / p->norm_dim;
        while (p->cluster < 8 && p->norm_dim % (4 * p->cluster) == 0 && heads * p->cluster < sms * 3 / 4)
            p->cluster *= 2;
        p->grid = heads * p->cluster;
    }
    /* A matrix with short rows that ends in an addition is o: gated comes next, and its block has to fit beside it. */
    const bool before_gated = p->kind == MI_GEMV_RESIDUAL && p->stage_rows > 1;
    const int  stage = stage_bytes(p), limit = per_sm == 1 ? 190 << 10 : before_gated ? 60 << 10 : 110 << 10;
    p->stages = limit / stage < stages_of(p) ? limit / stage : stages_of(p);
    if (p->stages > MAX_STAGES)
        p->stages = MAX_STAGES;
    while (p->stages > stages_round(p) && regions_of(p).end > (per_sm == 1 ? most : (most - 2048) / 2))
        p->stages--;
    if (p->stages < stages_round(p))
        p->stages = stages_round(p);
    /* 15 KB under way before the wait where the ring takes the block's whole share, else 30 and two stages; more where
     * nothing comes after it. */
    const bool whole = p->stages >= stages_of(p) || before_gated;
    const int  under_way = whole ? 15 << 10 : p->kind == MI_GEMV_HEAD ? 60 << 10 : 30 << 10, least = whole ? 1 : 2;
    p->flight = under_way / stage > least ? under_way / stage : least;
    /* While attention and o run, the ring fills and memory would idle. */
    if (paired(p) && p->stages < stages_of(p)) {
        p->ahead = 8;
        p->pace = 2500;
    }
}

/* The rules are measurements on an H100 of a whole step: docs/performance.md. */
extern "C" int mi_cuda_gemv_plan(MiGemvPlan *p)
{
    const int     steps = (p->in + 8 * STEP_CHUNKS - 1) / (8 * STEP_CHUNKS);
    const int64_t bytes = (int64_t)p->out * row_bytes(p) * (p->kind == MI_GEMV_GATED ? 2 : 1);
    int           device, major, sms, most;

    if (cudaGetDevice(&device) || cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ||
        cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device) ||
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))
        return cudaGetLastError();
    if (in_records(p))
        return major != 9 ? (int)cudaErrorNotSupported : mi_quant::plan(p, sms, most);
    if (is_e4m3(p) && (p->rows > MI_GEMV_FEW_ROWS || p->in % 16 || (p->form.group && p->form.group != BLOCK)))
        return cudaErrorNotSupported;
    if (p->rows > MI_GEMV_FEW_ROWS)
        return major != 9 || p->dtype != MI_BF16 || p->in < 8 || p->in % 8 || p->rows > MI_GEMV_MAX_ROWS || p->out < 1 ||
                       p->norm_dim
                   ? (int)cudaErrorNotSupported
                   : mi_skinny::plan(p, sms, most);
    p->team = (steps + STEPS - 1) / STEPS;
    if ((p->norm_dim &&
         (p->kind != MI_GEMV_QKV || p->rows != 1 || p->norm_dim < 2 || p->norm_dim % 2 || p->out % p->norm_dim)) ||
        major != 9 || p->dtype != MI_BF16 || p->in < 8 || p->in % 8 || p->team > MAX_WARPS || p->rows < 1 ||
        p->out < 1)
        return cudaErrorNotSupported;
    p->teams = p->team >= 8 ? 1 : 8 / p->team;
    p->stage_rows = 2;
    p->grid = p->stages = p->flight = 1;
    p->ahead = p->pace = 0;
    p->cluster = p->split = 1;
    /* Registers hold the weights of small matrices beside everything else; o takes more time to end than q, k and v. */
    p->direct = p->rows == 1 && !p->norm_dim && !is_e4m3(p) &&
                ((p->kind == MI_GEMV_QKV && bytes < 8 << 20) || (p->kind == MI_GEMV_RESIDUAL && bytes < 3 << 20));
    if (!p->direct) {
        if (bytes < 6 << 20 && p->teams > 1)
            p->teams /= 2;
        choose_ring(p, sms, most, bytes);
    }
    return regions_of(p).end > most ? (int)cudaErrorNotSupported : mi_cuda_gemv_lay_out(p);
}

extern "C" int mi_cuda_gemv_form(MiGemvPlan *p, const MiQuantForm *f)
{
    if (memcmp(&p->form, f, sizeof *f) == 0)
        return cudaSuccess;
    p->form = *f;
    return mi_cuda_gemv_plan(p);
}

extern "C" MiGemvLater mi_cuda_gemv_later(const MiGemvPlan *p, const void *w, int64_t most)
{
    return p->rows > MI_GEMV_FEW_ROWS && !p->form.bits ? mi_skinny::later(p, w, most) : MiGemvLater{};
}

/* ---- launching -------------------------------------------------------------------- */

static Args args_of(const MiGemvPlan *p, const MiTensor *x, const MiTensor *y, bool interleaved)
{
    Args a = {};

    const Regions r = regions_of(p);
    const int     row = row_bytes(p);
    const bool    split = p->kind == MI_GEMV_GATED || (p->kind == MI_GEMV_QKV && !interleaved);
    a.out = p->out;
    a.chunks = p->in / 8;
    a.row_bytes = row;
    a.per_in = 1.f / (float)p->in;
    a.each = units_of(p) / p->grid;
    a.more = units_of(p) % p->grid;
    a.warps = p->team * p->teams;
    a.team = p->team;
    a.teams = p->teams;
    a.team_magic = 65536 / p->team + 1;
    a.stage_tiles = p->stage_rows / 2;
    while (2 << a.stage_shift <= a.stage_tiles)
        a.stage_shift++;
    a.stages = p->stages;
    a.stages_round = stages_round(p);
    a.stage_bytes = stage_bytes(p);
    a.flight = p->flight;
    a.ahead = p->ahead;
    a.pace = p->pace;
    a.tile_pitch = split ? row : 2 * row;
    a.second = !a.stage_tiles ? a.stage_bytes : split ? a.stage_tiles * row : row;
    a.xs = r.xs;
    a.known = r.known;
    a.factors = r.factors;
    a.parts = r.parts;
    for (int i = 0; i < 3; i++)
        a.scales[i] = p->scales[i];
    a.across = (p->in + BLOCK - 1) / BLOCK;
    a.x = (const char *)x->data;
    a.x_stride = x->stride[0];
    a.y = (char *)y->data;
    a.y_stride = y->stride[0];
    a.y_f32 = y->dtype == MI_F32;
    a.rows = (int32_t)y->shape[0];
    return a;
}

static void add_norm(Args *a, MiGemvNorm n)
{
    a->gain = n.gain;
    a->eps = n.eps;
    a->offset = n.offset;
}

static int start(void *stream, const MiGemvPlan *p, const Args &a)
{
    if (a.rows < 1 || a.rows > p->rows)
        return a.rows ? cudaErrorInvalidValue : cudaSuccess;
    if (in_records(p))
        return mi_quant::start(stream, p, a);
    if (p->rows > MI_GEMV_FEW_ROWS)
        return mi_skinny::start(stream, p, a);
    const dim3 block((a.warps + !p->direct) * 32);
    return p->norm_dim
               ? mi_launch_clusters(kernel_for(p), dim3(p->grid), block, (unsigned)p->cluster, p->smem, stream, a)
               : mi_launch(kernel_for(p), dim3(p->grid), block, p->smem, stream, a);
}

extern "C" int mi_cuda_gemv(void *stream, const MiGemvPlan *p, MiTensor x, const void *w, const float *bias, MiTensor y)
{
    Args a = args_of(p, &x, &y, false);

    a.w[0] = (const char *)w;
    a.bias[0] = bias;
    return start(stream, p, a);
}

extern "C" int mi_cuda_gemv_residual(void *stream, const MiGemvPlan *p, MiTensor x, const void *w, const float *bias,
                                     MiTensor residual, MiTensor y)
{
    Args a = args_of(p, &x, &y, false);

    a.w[0] = (const char *)w;
    a.bias[0] = bias;
    a.residual = (const char *)residual.data;
    a.r_stride = residual.stride[0];
    return start(stream, p, a);
}

extern "C" int mi_cuda_gemv_gated(void *stream, const MiGemvPlan *p, MiTensor x, MiGemvNorm n, const void *gate,
                                  const void *up, MiTensor y)
{
    Args a = args_of(p, &x, &y, false);

    a.w[0] = (const char *)gate;
    a.w[1] = (const char *)up;
    add_norm(&a, n);
    return start(stream, p, a);
}

extern "C" bool mi_cuda_gemv_qkv_takes(int32_t head_dim, int32_t rope_dim, bool interleaved, bool quantised)
{
    if (quantised && (head_dim % 16 || (!interleaved && rope_dim % 16)))
        return false;
    return head_dim > 0 && head_dim % 2 == 0 && rope_dim > 0 && rope_dim % 2 == 0 && rope_dim <= head_dim;
}

extern "C" int mi_cuda_gemv_qkv(void *stream, const MiGemvPlan *p, MiTensor x, MiGemvNorm n, const MiGemvQkv *q)
{
    Args a = args_of(p, &x, &q->q, q->interleaved);

    for (int i = 0; i < 3; i++) {
        a.w[i] = (const char *)q->w[i];
        a.bias[i] = q->bias[i];
    }
    add_norm(&a, n);
    a.freqs = q->freqs;
    a.positions = q->positions;
    a.n_heads = q->n_heads;
    a.n_kv_heads = q->n_kv_heads;
    a.head_dim = q->head_dim;
    a.half_magic = (uint32_t)((((uint64_t)1 << 32) + q->head_dim / 2 - 1) / (q->head_dim / 2));
    a.rope_dim = q->rope_dim;
    a.interleaved = q->interleaved;
    a.magnitude = q->magnitude;
    a.kv = q->kv;
    a.cluster = p->norm_dim ? p->cluster : 0;
    a.head_gain[0] = q->head_gain[0];
    a.head_gain[1] = q->head_gain[1];
    a.head_eps = q->head_eps;
    a.head_offset = q->head_offset;
    return start(stream, p, a);
}

extern "C" int mi_cuda_gemv_head(void *stream, const MiGemvPlan *p, MiTensor x, const int32_t *out_rows, MiGemvNorm n,
                                 const void *w, MiTensor logits, MiCandidate *candidates)
{
    Args a = args_of(p, &x, &logits, false);

    a.w[0] = (const char *)w;
    a.out_rows = out_rows;
    a.best = candidates;
    add_norm(&a, n);
    return start(stream, p, a);
}
