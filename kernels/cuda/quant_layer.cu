/* quant_layer.cu - the kernel of quant_layer.h.
 *
 * Four products, one code: what a product is like comes from the host.  Every block has a share of the rows of each
 * matrix.  One warp streams the shares of all four through a ring, whatever the others wait for, so that memory
 * is busy while results go from block to block.  A kernel of its own for each product would be as short as its
 * start, and the chain of them would push its own instructions out of the caches.
 *
 * What a block has computed goes to all others through the second-level cache, as bf16, two to a word.  A word that
 * nobody has written yet is the one pair of bf16 that no conversion gives, so to wait for a number is to read it. There are two
 * sets of these words, for launches in turn: in one of them blocks write results, in the other, which all
 * have read when a launch begins, they write that word again. */
#include "quant_gemv.cuh"
#include "quant_layer.h"
#include "quant_short.h"

using namespace mi_gemv;
using namespace mi_quant;

enum { O, GATED, DOWN, HEADS, PHASES };
constexpr int      WARPS = 8, THREADS = WARPS * 32;
constexpr unsigned NOTHING = ~0u; /* 0xffff is a NaN, but not the one that arithmetic makes */

struct Layer {
    Packed      phase[PHASES];
    unsigned   *words[2];         /* [hidden / 2 + ff / 2 + hidden / 2] */
    int32_t     first[PHASES];    /* word of what phase i leaves there */
    int32_t    *launches;         /* [grid] */
    const char *residual;
    char       *h, *act;          /* or NULL */
    int32_t     phases;
};

#if __CUDA_ARCH__ >= 900

/* A block's share of a phase: eights of tiles where paired, else of rows. */
struct Piece {
    int first, tiles, octets, duos; /* first: tile, or row */
};

__device__ __forceinline__ Piece piece_of(const Packed &a, bool paired)
{
    const int b = blockIdx.x, n = a.each + (b < a.more), first = OCTET * (b * a.each + min(b, a.more));
    return {first, paired ? n * OCTET : n * OCTET / 2, n, paired ? n : (n + 1) / 2};
}

__device__ __forceinline__ Duo duo_at(const Packed &a, int phase, Piece t, int i)
{
    const Share s = {t.first, t.tiles, t.octets * OCTET};

    return phase == GATED   ? duo_of<MI_GEMV_GATED>(a, s, i)
           : phase == HEADS ? duo_of<MI_GEMV_QKV>(a, s, i)
                            : duo_of<MI_GEMV_PLAIN>(a, s, i);
}

__device__ __forceinline__ void produce_layer(const Layer &l, char *smem)
{
    const uint64_t policy = evict_first_policy();
    int            n = 0, phase = 0, done = 0; /* stages of the phases before this one */

#pragma unroll 1
    for (int p = 0; p < l.phases; p++)
        n += piece_of(l.phase[p], p % 2).duos * l.phase[p].cuts;
    produce_stages(l.phase[0], n, WARPS, smem, [&](int stage, int slot) {
        Piece t = piece_of(l.phase[phase], phase % 2);
        while (stage - done >= t.duos * l.phase[phase].cuts) {
            done += t.duos * l.phase[phase].cuts;
            phase++;
            t = piece_of(l.phase[phase], phase % 2);
        }
        const Packed &a = l.phase[phase];
        const int     duo = (stage - done) / a.cuts, cut = stage - done - duo * a.cuts;
        const int     left = a.blocks_of_x - cut * a.slice;
        const int     bytes = left > a.slice ? a.slice * a.chunk : left * a.chunk + a.tail;
        const int64_t from = (int64_t)cut * a.slice * a.chunk;
        const Duo     d = duo_at(a, phase, t, duo);
        uint64_t     *full = (uint64_t *)smem + slot;
        char         *to = smem + HEADER + slot * l.phase[0].stage_bytes;
        barrier_expect(full, d.second ? 2 * bytes : bytes);
        bulk_load_once(to, d.first + from, bytes, full, policy);
        if (d.second)
            bulk_load_once(to + a.half, d.second + from, bytes, full, policy);
    });
}

__device__ __forceinline__ uint4 word_now(const uint4 *p)
{
    uint4 v;
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(p)
                 : "memory");
    return v;
}

__device__ __forceinline__ bool there(uint4 v)
{
    return v.x != NOTHING && v.y != NOTHING && v.z != NOTHING && v.w != NOTHING;
}

__device__ __forceinline__ void tell(const Layer &l, int set, int word, unsigned v)
{
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(l.words[set] + word), "r"(v) : "memory");
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(l.words[set ^ 1] + word), "r"(NOTHING) : "memory");
}

/* x of a phase into shared memory, the sums of its squares with it where it is normed. */
template <int BITS, int SCALES>
__device__ __forceinline__ void gather(const Packed &a, const char *x, bool wait, float4 (*gain)[2], char *smem)
{
    const int    tid = threadIdx.x, all = a.blocks_of_x * 16;
    const uint4 *from = (const uint4 *)x;
    float        sum = 0;
    uint4        next = {0, 0, 0, 0};

    if (tid < a.chunks)
        next = word_now(from + tid);
#pragma unroll 1
    for (int e = tid; e - tid % 32 < all; e += THREADS) { /* whole warps: they shuffle */
        uint4 v = next;
        if (wait && e < a.chunks)
            while (!there(v))
                v = word_now(from + e);
        next = {0, 0, 0, 0};
        if (e + THREADS < a.chunks)
            next = word_now(from + e + THREADS);
        __syncwarp();
        split<BITS, SCALES, true, 1>(a, smem, e, 0, v, gain[0], sum);
        if (a.gain) {
            gain[0][0] = gain[1][0];
            gain[0][1] = gain[1][1];
            if (e + 2 * THREADS < a.chunks) {
                gain[1][0] = ((const float4 *)a.gain)[2 * (e + 2 * THREADS)];
                gain[1][1] = ((const float4 *)a.gain)[2 * (e + 2 * THREADS) + 1];
            }
        }
    }
    if (a.gain) {
        sum = warp_sum(sum);
        if (tid % 32 == 0)
            ((float *)(smem + SQUARES))[tid / 32] = sum;
    }
}

struct Ring {
    int slot, phase;
};

/* The block's rows of a phase, a warp's part of each sum into parts[row][warp]. */
template <int BITS, int SCALES>
__device__ __forceinline__ void multiply_piece(const Packed &a, int duos, int octets, bool paired, bool apart, char *smem,
                                               int stages, int stage_bytes, Ring &ring)
{
    const int      lane = threadIdx.x % 32, warp = threadIdx.x / 32, g = lane / 4;
    constexpr bool QUARTERS = SCALES != USUAL; /* as in quant_gemv.cuh */
    const unsigned of_x = shared_address(smem) + a.xs + g % 2 * 64 + lane % 4 * 16;
    const unsigned x = QUARTERS ? of_x + g / 4 * 128 + g / 2 % 2 * 8 : of_x;
    const unsigned factors = shared_address(smem) + a.factors + (QUARTERS ? lane % 4 * sizeof(float2) : 0);
    constexpr int  OF_CHUNK = GROUPS<SCALES> * sizeof(float2);
    float         *parts = (float *)(smem + a.parts);

#pragma unroll 1
    for (int i = 0; i < duos; i++) {
        const bool     both = paired || 2 * i + 1 < octets;
        const unsigned second = both ? a.half : 0;
        float          y[2] = {}, offset = 0;
#pragma unroll 1
        for (int cut = 0; cut < a.cuts; cut++) {
            uint64_t      *full = (uint64_t *)smem + ring.slot;
            const unsigned at = shared_address(smem) + HEADER + ring.slot * stage_bytes;
            const int      from = cut * a.slice, n = min(a.slice, a.blocks_of_x - from);
            barrier_wait(full, ring.phase);
#pragma unroll 1
            for (int c = warp; c < n; c += WARPS) {
                const unsigned p = at + c * a.chunk, q = p + second, xc = x + (from + c) * 256, fc = factors + (from + c) * OF_CHUNK;
                if constexpr (QUARTERS) {
                    multiply_quarter<BITS, SCALES>(a, p, q, xc, fc, y, offset);
                } else {
                    multiply_usual<BITS, 1>(p, q, xc, fc, y);
                }
            }
            if (QUARTERS && cut == a.cuts - 1) {
                added_up(y[0]);
                added_up(y[1]);
                added_up(offset);
            }
            if (BITS == 8 && SCALES <= ROW_SCALES && cut == a.cuts - 1) {
                const float *s = (const float *)(smem + HEADER + ring.slot * stage_bytes + n * a.chunk) + g;
                const float *r = s + second / 4;
                y[0] = s[0] * (SCALES == ROW_SCALES ? fmaf(s[OCTET], offset, y[0]) : y[0]);
                y[1] = r[0] * (SCALES == ROW_SCALES ? fmaf(r[OCTET], offset, y[1]) : y[1]);
            }
            __syncwarp();
            if (lane == 0)
                barrier_arrive(full + MAX_STAGES);
            if (++ring.slot == stages)
                ring = {0, ring.phase ^ 1};
        }
        if (lane % 4 == 0) {
            const int tile = i * OCTET + (apart ? g : g / 2), one = apart ? 0 : g % 2;
            parts[(2 * tile + one) * WARPS + warp] = y[0];
            if (both)
                parts[(2 * (tile + (apart ? 0 : OCTET / 2)) + (apart ? 1 : one)) * WARPS + warp] = y[1];
        }
    }
}

__device__ __forceinline__ float added(const float *parts)
{
    const float4 p = ((const float4 *)parts)[0], q = ((const float4 *)parts)[1];
    return ((p.x + p.y) + (p.z + p.w)) + ((q.x + q.y) + (q.z + q.w));
}

template <int BITS, int SCALES> __global__ void __maxnreg__(96) layer(const __grid_constant__ Layer l)
{
    extern __shared__ __align__(128) char smem[];
    const Packed &whole = l.phase[0];
    const int     tid = threadIdx.x;

    let_successor_start();
    if (tid / 32 == WARPS) {
        produce_layer(l, smem);
        return;
    }
    int      set = 0;
    unsigned h = 0; /* of the tile that this thread has in O and DOWN */
    Ring     ring = {0, 0};
#pragma unroll 1
    for (int p = 0; p < l.phases; p++) {
        const Packed &a = l.phase[p];
        const bool    paired = p % 2, apart = p == GATED || (p == HEADS && !a.interleaved);
        const Piece   t = piece_of(a, paired);
        const bool    mine = tid < t.tiles;
        const int     unit = t.first + (paired ? tid : 2 * tid);
        float4        gain[2][2], ahead = {0, 0, 1, 0};
        Target        target = {};
        const char   *x = a.x;

#pragma unroll
        for (int k = 0; k < 2; k++) {
            gain[k][0] = gain[k][1] = {1, 1, 1, 1};
            if (a.gain && tid + k * THREADS < a.chunks) {
                gain[k][0] = ((const float4 *)a.gain)[2 * (tid + k * THREADS)];
                gain[k][1] = ((const float4 *)a.gain)[2 * (tid + k * THREADS) + 1];
            }
        }
        if (mine && p == HEADS) {
            ahead = look_up<MI_GEMV_QKV>(a, unit, 0, true);
            target = target_of<bf16>(a, unit, 0);
        } else if (mine && !paired && a.bias[0]) {
            ahead.x = a.bias[0][unit];
            ahead.y = a.bias[0][unit + 1];
        }
        if (p == O) {
            __syncthreads();
            wait_for_predecessor();
            if (tid == 0)
                barrier_arrive((uint64_t *)(smem + RELEASED));
            set = __ldcg(l.launches + blockIdx.x) & 1;
            if (mine)
                h = __ldcg((const unsigned *)l.residual + unit / 2);
        } else {
            x = (const char *)(l.words[set] + l.first[p - 1]);
        }
        if (t.octets == 0)
            continue;
        gather<BITS, SCALES>(a, x, p != O, gain, smem);
        consumers_meet(whole);
        multiply_piece<BITS, SCALES>(a, t.duos, t.octets, paired, apart, smem, whole.stages, whole.stage_bytes, ring);
        const float scale = a.gain ? inverse_rms<1>(a, smem, 0) : 1;
        consumers_meet(whole);
        const float *parts = (const float *)(smem + a.parts) + 2 * WARPS * tid;
        float        y0 = 0, y1 = 0;
        if (mine) {
            y0 = added(parts) * scale + ahead.x;
            y1 = added(parts + WARPS) * scale + ahead.y;
        }
        if (p == GATED) {
            const float v = __fdividef(y0, 1 + __expf(-y0)) * y1, w = __shfl_down_sync(~0u, v, 1);
            if (mine && tid % 2 == 0) {
                const unsigned word = pack({v, w}, bf16());
                tell(l, set, l.first[p] + unit / 2, word);
                if (l.act)
                    ((unsigned *)l.act)[unit / 2] = word;
            }
        } else if (p == HEADS) {
            if (mine)
                end_tile<bf16, MI_GEMV_QKV>(a, unit, 0, true, y0, y1, ahead, {0, 0}, target);
        } else if (mine) {
            const float2 before = unpack(h, bf16());
            h = pack({y0 + before.x, y1 + before.y}, bf16());
            tell(l, set, l.first[p] + unit / 2, h);
            char *to = p == O ? l.h : a.y;
            if (to)
                ((unsigned *)to)[unit / 2] = h;
        }
    }
    if (tid == 0)
        l.launches[blockIdx.x] = set + 1;
}

#else

template <int BITS, int SCALES> __global__ void layer(const __grid_constant__ Layer l) { (void)l; }

#endif

/* ---- the layout -------------------------------------------------------------------------- */

typedef void (*Kernel)(Layer);

static bool is_usual(MiQuantForm f) { return !f.zeros && f.group == (f.bits == 4 ? 128 : 0); }

static Kernel kernel_for(MiQuantForm f)
{
    if (f.bits == 4)
        return is_usual(f) ? layer<4, USUAL> : layer<4, F16_SCALES>;
    return is_usual(f) ? layer<8, USUAL> : f.group ? layer<8, F16_SCALES> : layer<8, ROW_SCALES>;
}

typedef struct {
    int xs, factors, parts, end; /* behind the ring */
} Regions;

static Regions regions_of(const MiQuantLayerPlan *p)
{
    const int groups = is_usual(p->shape.form) ? 1 : 4;
    int       chunks = 0, tiles = 0;
    Regions   r;

    for (int i = 0; i < p->phases; i++) {
        const MiQuantPhase *m = &p->phase[i];
        const int           most = (m->each + (m->more > 0)) * (m->paired ? OCTET : OCTET / 2) + OCTET;
        chunks = chunks > mi_quant_chunks(m->in) ? chunks : (int)mi_quant_chunks(m->in);
        tiles = tiles > most ? tiles : most;
    }
    r.xs = HEADER + p->stages * p->stage_bytes;
    r.factors = r.xs + chunks * 256;
    r.parts = r.factors + (chunks * groups * (int)sizeof(float2) + 15) / 16 * 16;
    r.end = r.parts + tiles * 2 * WARPS * (int)sizeof(float);
    return r;
}

static int tail_of(MiQuantForm f, int in)
{
    return (int)(mi_quant_record(f, in) - mi_quant_chunks(in) * mi_quant_chunk(f));
}

/* Rows of a matrix, pairs of two, over the blocks; and its rows over stages of 16 KB or so. */
static MiQuantPhase phase_of(MiQuantForm f, int in, int out, bool paired, int grid)
{
    const int    chunks = (int)mi_quant_chunks(in), octets = out / OCTET;
    const int    least = f.bits == 4 ? 8 : 1; /* so many chunks end at a multiple of 128 bytes */
    MiQuantPhase m = {in, out, paired, octets / grid, octets % grid, chunks, 1, 0};

    if (2 * chunks * mi_quant_chunk(f) > 20 << 10) {
        m.slice = (f.bits == 4 ? 12 << 10 : 8 << 10) / mi_quant_chunk(f) / least * least;
        m.slice = m.slice < least ? least : m.slice;
    }
    m.cuts = (chunks + m.slice - 1) / m.slice;
    m.half = (m.slice * mi_quant_chunk(f) + tail_of(f, in) + 127) / 128 * 128;
    return m;
}

extern "C" int mi_cuda_quant_layer_plan(MiQuantLayerPlan *p)
{
    const MiQuantLayerShape s = p->shape;
    const MiQuantForm       f = s.form;
    int                     device, major, sms, most, cooperative, stages = 0;

    if (cudaGetDevice(&device) || cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) ||
        cudaDeviceGetAttribute(&sms, cudaDevAttrMultiProcessorCount, device) ||
        cudaDeviceGetAttribute(&cooperative, cudaDevAttrCooperativeLaunch, device) ||
        cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device))
        return cudaGetLastError();
    p->grid = sms;
    if (s.small)
        return major == 9 ? plan_short(p, sms, most) : (int)cudaErrorNotSupported;
    if (major != 9 || !cooperative || (f.bits != 4 && f.bits != 8) || (f.bits == 4 && !f.group) || s.hidden < 8 ||
        s.hidden % 8 || s.ff < 8 || s.ff % 8 || s.heads_width < 8 || s.heads_width % 8 || s.heads_rows < 0 ||
        s.heads_rows % 16)
        return cudaErrorNotSupported;
    p->phases = s.heads_rows ? 4 : 3;
    p->phase[O] = phase_of(f, s.heads_width, s.hidden, false, sms);
    p->phase[GATED] = phase_of(f, s.hidden, s.ff, true, sms);
    p->phase[DOWN] = phase_of(f, s.ff, s.hidden, false, sms);
    p->phase[HEADS] = phase_of(f, s.hidden, s.heads_rows / 2, true, sms);
    p->stage_bytes = 0;
    for (int i = 0; i < p->phases; i++) {
        const MiQuantPhase *m = &p->phase[i];
        const int           octets = m->each + (m->more > 0), duos = m->paired ? octets : (octets + 1) / 2;
        if (octets * (m->paired ? OCTET : OCTET / 2) > THREADS)
            return cudaErrorNotSupported; /* a tile has no thread of its own */
        p->stage_bytes = p->stage_bytes > 2 * m->half ? p->stage_bytes : 2 * m->half;
        stages += duos * m->cuts;
    }
    p->stages = 0;
    p->stages = (most - 2048 - regions_of(p).end) / p->stage_bytes;
    p->stages = p->stages < MAX_STAGES ? p->stages : MAX_STAGES;
    p->stages = p->stages < stages ? p->stages : stages;
    if (p->stages < 2 && p->stages < stages)
        return cudaErrorNotSupported;
    const int under_way = (30 << 10) / p->stage_bytes; /* before the predecessor is done */
    p->flight = under_way > 2 ? under_way : 2;
    p->flight = p->flight < p->stages ? p->flight : p->stages;
    p->smem = regions_of(p).end;
    return mi_allow_smem(kernel_for(f), (size_t)p->smem);
}

static size_t words_of(const MiQuantLayerPlan *p) { return (size_t)(p->shape.hidden + p->shape.ff / 2 + 15) / 16 * 16; }

extern "C" size_t mi_cuda_quant_layer_bytes(const MiQuantLayerPlan *p)
{
    const size_t one = (2 * words_of(p) + (size_t)p->grid) * sizeof(unsigned), three = short_bytes(p);
    return one > three ? one : three;
}

extern "C" int mi_cuda_quant_layer_clear(void *stream, const MiQuantLayerPlan *p, void *exchange)
{
    const size_t words = 2 * words_of(p) * sizeof(unsigned);
    const int    e = cudaMemsetAsync(exchange, 0xff, words, (cudaStream_t)stream);

    return e ? e : cudaMemsetAsync((char *)exchange + words, 0, (size_t)p->grid * sizeof(int), (cudaStream_t)stream);
}

/* ---- the launch ---------------------------------------------------------------------------- */

static Packed packed_of(const MiQuantLayerPlan *p, int phase, Regions r)
{
    const MiQuantPhase *m = &p->phase[phase];
    const MiQuantForm   f = p->shape.form;
    Packed              a = {};

    a.rows = 1;
    a.out = m->out;
    a.chunks = m->in / 8;
    a.per_in = 1.f / (float)m->in;
    a.each = m->each;
    a.more = m->more;
    a.warps = WARPS;
    a.stages = p->stages;
    a.stage_bytes = p->stage_bytes;
    a.flight = p->flight;
    a.xs = r.xs;
    a.factors = r.factors;
    a.parts = r.parts;
    a.record = mi_quant_record(f, m->in);
    a.blocks_of_x = (int)mi_quant_chunks(m->in);
    a.chunk = mi_quant_chunk(f);
    a.values = mi_quant_values(f);
    a.slice = m->slice;
    a.cuts = m->cuts;
    a.half = m->half;
    a.tail = tail_of(f, m->in);
    set_form(&a, f);
    return a;
}

extern "C" int mi_cuda_quant_layer(void *stream, const MiQuantLayerPlan *p, const MiQuantLayerCall *c)
{
    const Regions r = regions_of(p);
    const int     hidden = p->shape.hidden, ff = p->shape.ff;
    Layer         l = {};

    if (p->shape.small)
        return start_short(stream, p, c);
    for (int i = 0; i < p->phases; i++)
        l.phase[i] = packed_of(p, i, r);
    for (int i = 0; i < 2; i++)
        l.words[i] = (unsigned *)c->exchange + i * words_of(p);
    l.launches = (int32_t *)((unsigned *)c->exchange + 2 * words_of(p));
    l.first[GATED] = hidden / 2;
    l.first[DOWN] = hidden / 2 + ff / 2;
    l.phases = p->phases;
    l.residual = (const char *)c->x.data;
    l.h = (char *)c->h;
    l.act = (char *)c->act;
    l.phase[O].x = (const char *)c->a.data;
    l.phase[O].w[0] = (const char *)c->o;
    l.phase[O].bias[0] = c->o_bias;
    l.phase[GATED].w[0] = (const char *)c->gate;
    l.phase[GATED].w[1] = (const char *)c->up;
    add_norm(&l.phase[GATED], c->norm);
    l.phase[DOWN].w[0] = (const char *)c->down;
    l.phase[DOWN].bias[0] = c->down_bias;
    l.phase[DOWN].y = (char *)c->y.data;
    if (p->phases > HEADS) {
        add_heads(&l.phase[HEADS], &c->qkv);
        add_norm(&l.phase[HEADS], c->next_norm);
    }
    cudaLaunchConfig_t  config = {};
    cudaLaunchAttribute attrs[2] = {};
    config.gridDim = p->grid;
    config.blockDim = THREADS + 32;
    config.dynamicSmemBytes = p->smem;
    config.stream = (cudaStream_t)stream;
    config.attrs = attrs;
    attrs[0].id = cudaLaunchAttributeCooperative;
    attrs[0].val.cooperative = 1;
    attrs[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attrs[1].val.programmaticStreamSerializationAllowed = 1;
    config.numAttrs = mi_overlaps() ? 2 : 1;
    const cudaError_t e = cudaLaunchKernelEx(&config, kernel_for(p->shape.form), l);
    if (e)
        (void)cudaGetLastError();
    return e;
}
