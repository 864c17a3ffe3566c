/* gpu_decode_step.cu - a decode step of a Qwen2 shape with random weights for gpu_decode.c.
 * The embedding is a stand-in, and so is the attention of a single sequence: the simplest
 * that are as fast as they should be for a short context. */
#include "gpu_decode.h"
#include <algorithm>
#include <cuda/attention.h>
#include <cstdio>
#include <cstring>
#include <cuda/device.cuh>
#include <functional>
#include <string>
#include <vector>

#define MUST(call)                                                                                                     \
    do {                                                                                                               \
        const int e_ = (call);                                                                                         \
        if (e_) {                                                                                                      \
            printf("%s: %s: CUDA error %d: %s\n", __FILE__, #call, e_, cudaGetErrorString((cudaError_t)e_));           \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

const char *const kernel_names[N_KERNELS] = {"qkv", "attention", "o", "gated", "down", "head", "pick"};

static __global__ void fill(bf16 *p, size_t n, float mean, float amp, unsigned seed)
{
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        unsigned long long z = (i + seed * 0x632be59bd9b4e019ull) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
        z ^= z >> 31;
        p[i] = __float2bfloat16(mean + amp * ((unsigned)(z >> 40) * (2.f / 16777216.f) - 1));
    }
}

static __global__ void fill_f32(float *p, int n, float mean, float amp)
{
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        p[i] = mean + amp * ((i * 2654435761u >> 8) * (2.f / 16777216.f) - 1);
}

static __global__ void read_all(const uint4 *p, size_t n, unsigned *out)
{
    unsigned     x = 0;
    const size_t step = (size_t)gridDim.x * blockDim.x;

    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i + 3 * step < n; i += 4 * step) {
        uint4 v[4];
        for (int k = 0; k < 4; k++)
            asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0,%1,%2,%3}, [%4];"
                         : "=r"(v[k].x), "=r"(v[k].y), "=r"(v[k].z), "=r"(v[k].w)
                         : "l"(p + i + k * step));
        for (int k = 0; k < 4; k++)
            x ^= v[k].x ^ v[k].y ^ v[k].z ^ v[k].w;
    }
    if (x == 0x12345678)
        *out = x;
}

static __global__ void embed(const bf16 *table, const int32_t *drawn, bf16 *x, int n, int vocab)
{
    const int row = blockIdx.x;

    let_successor_start();
    wait_for_predecessor();
    const int token = min(max(((volatile const int32_t *)drawn)[row], 0), vocab - 1);
    for (int i = threadIdx.x; i < n / 8; i += blockDim.x)
        ((uint4 *)(x + (size_t)row * n))[i] = ((const uint4 *)(table + (size_t)token * n))[i];
}

/* A block for each query head; what earlier steps stored is copied before the wait. */
template <int D> static __global__ void __launch_bounds__(256) attend(MiKvView kv, const bf16 *q, bf16 *out, int group)
{
#if __CUDA_ARCH__ >= 900
    extern __shared__ __align__(128) unsigned char smem[];
    __shared__ float                               qs[D], sums[8][D], ml[8][2];
    __shared__ uint64_t                            bar;
    const int     tid = threadIdx.x, lane = tid % 32, warp = tid / 32, n = kv.kv_len[0], old = n - 1;
    const int64_t head = blockIdx.x / group * kv.stride_head;
    uint4        *kt = (uint4 *)smem, *vt = kt + n * (D / 8);
    float        *sc = (float *)(vt + n * (D / 8));

    let_successor_start();
    if (tid == 0) {
        barrier_init(&bar, 1);
        barrier_init_done();
        if (old > 0) {
            barrier_expect(&bar, old * D * 4);
            bulk_load(kt, (const bf16 *)kv.k + head, old * D * 2, &bar);
            bulk_load(vt, (const bf16 *)kv.v + head, old * D * 2, &bar);
        }
    }
    __syncthreads();
    wait_for_predecessor();
    if (tid < D / 8) {
        const uint4 u = __ldcg((const uint4 *)(q + blockIdx.x * D) + tid);
        const bf16 *h = (const bf16 *)&u;
        for (int i = 0; i < 8; i++)
            qs[tid * 8 + i] = to_float(h[i]) * rsqrtf(D) * 1.44269504f;
    } else if (tid >= 32 && tid < 32 + D / 4) {
        const int i = tid - 32;
        (i < D / 8 ? kt : vt)[old * (D / 8) + i % (D / 8)] =
            __ldcg((const uint4 *)((const bf16 *)(i < D / 8 ? kv.k : kv.v) + head + (int64_t)old * D) + i % (D / 8));
    }
    __syncthreads();
    if (old > 0)
        barrier_wait(&bar, 0);
    float m = -1e30f, l = 0, acc[D / 32] = {};
    for (int j = warp * 32 + lane; j < n; j += 256) {
        float x = 0;
        for (int i = 0; i < D / 8; i++) {
            const int   c = (i + lane) % (D / 8);
            const uint4 u = kt[j * (D / 8) + c];
            const bf16 *h = (const bf16 *)&u;
            for (int k = 0; k < 8; k++)
                x = fmaf(to_float(h[k]), qs[c * 8 + k], x);
        }
        sc[j] = x;
        m = fmaxf(m, x);
    }
    m = warp_max(m);
    for (int j = warp * 32 + lane; j < n; j += 256) {
        sc[j] = exp2f(sc[j] - m);
        l += sc[j];
    }
    __syncwarp();
    l = warp_sum(l);
    for (int j0 = warp * 32; j0 < n; j0 += 256)
#pragma unroll 8
        for (int j = j0; j < min(n, j0 + 32); j++)
            for (int i = 0; i < D / 32; i++)
                acc[i] = fmaf(sc[j], to_float(((const bf16 *)vt)[j * D + lane * (D / 32) + i]), acc[i]);
    for (int i = 0; i < D / 32; i++)
        sums[warp][lane * (D / 32) + i] = acc[i];
    if (lane == 0) {
        ml[warp][0] = m;
        ml[warp][1] = l;
    }
    __syncthreads();
    if (tid >= D)
        return;
    float most = -1e30f, total = 0, y = 0;
    for (int w = 0; w < 8; w++)
        most = fmaxf(most, ml[w][0]);
    for (int w = 0; w < 8; w++) {
        const float f = exp2f(ml[w][0] - most);
        total += f * ml[w][1];
        y += f * sums[w][tid];
    }
    out[blockIdx.x * D + tid] = from_float<bf16>(y / total);
#endif
}

struct Model {
    Shape               s;
    int                 context, capacity, rows, later;
    size_t              n[N_KERNELS]; /* weights of one kernel, elements */
    bf16               *w[N_KERNELS], *cache, *x[2], *q, *a, *act;
    float              *gains, *bias, *freqs, *logits;
    int32_t            *ints; /* of each row: position, kv_len, slot, out_row, out_slot, drawn, token; seq_start */
    void               *workspace;
    int32_t            *arrived;
    MiCandidate        *best;
    MiGemvPlan          plan[N_KERNELS];
    cudaStream_t        stream;
    std::vector<void *> owned;
};

template <typename T> static T *device(Model *m, size_t n)
{
    void *p;
    MUST(cudaMalloc(&p, n * sizeof(T)));
    m->owned.push_back(p);
    return (T *)p;
}

/* Bytes of gate and up that o's kernel fetches for theirs. */
enum { LATER = 24 << 20 };

static MiGemvPlan plan_of(int rows, MiGemvKind kind, int in, int out)
{
    MiGemvPlan p = {};
    p.kind = kind;
    p.dtype = MI_BF16;
    p.rows = rows;
    p.in = in;
    p.out = out;
    MUST(mi_cuda_gemv_plan(&p));
    return p;
}

static void lay_out(Model *m)
{
    const Shape *s = &m->s;
    m->plan[QKV] = plan_of(m->rows, MI_GEMV_QKV, s->hidden, (s->heads + 2 * s->kv_heads) * s->dim);
    m->plan[O] = plan_of(m->rows, MI_GEMV_RESIDUAL, s->heads * s->dim, s->hidden);
    m->plan[GATED] = plan_of(m->rows, MI_GEMV_GATED, s->hidden, s->mlp);
    m->plan[DOWN] = plan_of(m->rows, MI_GEMV_RESIDUAL, s->mlp, s->hidden);
    m->plan[HEAD] = plan_of(m->rows, MI_GEMV_HEAD, s->hidden, s->vocab);
}

extern "C" Model *model_new(const Shape *s, int context, int n_rows)
{
    Model       *m = new Model();
    const size_t rows = (size_t)(s->heads + 2 * s->kv_heads) * s->dim, h = (size_t)s->hidden;
    const double width[N_KERNELS] = {(double)h, 1, (double)s->heads * s->dim, (double)h, (double)s->mlp, (double)h, 1};

    m->s = *s;
    m->context = context;
    m->rows = n_rows;
    m->later = LATER;
    m->capacity = (context + 127) / 64 * 64;
    MUST(cudaStreamCreateWithFlags(&m->stream, cudaStreamNonBlocking));
    m->n[QKV] = rows * h;
    m->n[O] = h * s->heads * s->dim;
    m->n[GATED] = 2 * h * s->mlp;
    m->n[DOWN] = h * s->mlp;
    m->n[HEAD] = h * s->vocab;
    for (int k = 0; k < N_KERNELS; k++) {
        const size_t all = m->n[k] * (k == HEAD ? 1 : s->layers);
        if (!all)
            continue;
        m->w[k] = device<bf16>(m, all);
        fill<<<2048, 256, 0, m->stream>>>(m->w[k], all, 0, sqrtf(3 / width[k]), 1 + k);
    }
    m->cache = device<bf16>(m, (size_t)2 * s->layers * n_rows * s->kv_heads * m->capacity * s->dim);
    for (int i = 0; i < 2; i++)
        m->x[i] = device<bf16>(m, n_rows * h);
    m->q = device<bf16>(m, n_rows * rows);
    m->a = device<bf16>(m, n_rows * rows);
    m->act = device<bf16>(m, (size_t)n_rows * s->mlp);
    m->gains = device<float>(m, h);
    m->bias = device<float>(m, rows);
    m->freqs = device<float>(m, s->dim / 2);
    m->logits = device<float>(m, (size_t)n_rows * s->vocab);
    m->best = device<MiCandidate>(m, n_rows * 1024);
    m->ints = device<int32_t>(m, 8 * n_rows + 1);
    m->workspace = device<char>(m, mi_cuda_attention_workspace(s->dim));
    m->arrived = device<int32_t>(m, n_rows * s->kv_heads);
    MUST(cudaMemsetAsync(m->arrived, 0, n_rows * s->kv_heads * 4, m->stream));
    fill_f32<<<1, 256, 0, m->stream>>>(m->gains, (int)h, 1, 0.2f);
    fill_f32<<<1, 256, 0, m->stream>>>(m->bias, (int)rows, 0, 0.5f);
    fill_f32<<<1, 256, 0, m->stream>>>(m->freqs, s->dim / 2, 0.5f, 0.5f);
    lay_out(m);
    MUST(cudaStreamSynchronize(m->stream));
    return m;
}

extern "C" void model_free(Model *m)
{
    for (void *p : m->owned)
        MUST(cudaFree(p));
    MUST(cudaStreamDestroy(m->stream));
    delete m;
}

extern "C" bool model_lay_out(Model *m, const char *changes)
{
    char kernel[16], field[16];
    int  value, used;

    lay_out(m);
    m->later = LATER;
    for (; sscanf(changes, " %15[a-z].%15[a-z_]=%d%n", kernel, field, &value, &used) == 3; changes += used)
        for (int k = 0; k < N_KERNELS; k++) {
            MiGemvPlan *p = &m->plan[k];
            if (strcmp(kernel, kernel_names[k]) != 0)
                continue;
            if (!strcmp(field, "later"))
                m->later = value << 20;
            if (!strcmp(field, "split"))
                p->split = value;
            if (!strcmp(field, "cluster"))
                p->cluster = value;
            if (!strcmp(field, "grid"))
                p->grid = value;
            if (!strcmp(field, "team"))
                p->team = value;
            if (!strcmp(field, "teams"))
                p->teams = value;
            if (!strcmp(field, "stages"))
                p->stages = value;
            if (!strcmp(field, "flight"))
                p->flight = value;
            if (!strcmp(field, "direct"))
                p->direct = value;
            if (!strcmp(field, "ahead"))
                p->ahead = value;
            if (!strcmp(field, "pace"))
                p->pace = value;
            if (!strcmp(field, "rows"))
                p->stage_rows = value;
            p->flight = std::min(p->flight, p->stages);
        }
    for (int k : {QKV, O, GATED, DOWN, HEAD})
        if (mi_cuda_gemv_lay_out(&m->plan[k])) {
            (void)cudaGetLastError();
            return false;
        }
    return true;
}

static MiTensor rows_of(const Model *m, void *data, MiDType dtype, int64_t n)
{
    MiTensor t = {};
    t.data = data;
    t.dtype = dtype;
    t.ndim = 2;
    t.shape[0] = m->rows;
    t.shape[1] = t.stride[0] = n;
    t.stride[1] = 1;
    return t;
}

static MiKvView view_of(const Model *m, int layer)
{
    const int64_t side = (int64_t)m->s.kv_heads * m->capacity * m->s.dim;
    MiKvView      kv = {};

    kv.k = m->cache + 2 * layer * side * m->rows;
    kv.v = m->cache + (2 * layer + 1) * side * m->rows;
    kv.dtype = MI_BF16;
    kv.n_kv_heads = m->s.kv_heads;
    kv.head_dim = m->s.dim;
    kv.stride_token = m->s.dim;
    kv.stride_head = (int64_t)m->capacity * m->s.dim;
    kv.stride_block = side;
    kv.block_size = m->capacity;
    kv.max_blocks = 1;
    kv.kv_len = m->ints + m->rows;
    kv.slots = m->ints + 2 * m->rows;
    return kv;
}

static MiTensor heads_of(const Model *m, void *data)
{
    MiTensor t = rows_of(m, data, MI_BF16, (int64_t)m->s.heads * m->s.dim);

    t.ndim = 3;
    t.shape[1] = m->s.heads;
    t.shape[2] = t.stride[1] = m->s.dim;
    t.stride[2] = 1;
    return t;
}

static void attend_many(Model *m, int layer)
{
    MiCudaAttention a = {};

    a.q = heads_of(m, m->q);
    a.out = heads_of(m, m->a);
    a.kv = view_of(m, layer);
    a.batch.shape = {m->rows, m->rows, m->rows, m->context, true};
    a.batch.positions = m->ints;
    a.batch.seq_start = m->ints + 7 * m->rows;
    a.scale = rsqrtf((float)m->s.dim);
    MUST(mi_cuda_attention_decode(m->stream, &a, m->workspace, m->arrived));
}

/* One kernel of a layer; moved: its weights come from this many places further on in the head's, past the L2. */
static void enqueue(Model *m, int kind, int layer, int64_t moved)
{
    const Shape      *s = &m->s;
    const MiGemvNorm  norm = {m->gains, 1e-6f, 0};
    const MiTensor    x = rows_of(m, m->x[0], MI_BF16, s->hidden), y = rows_of(m, m->x[1], MI_BF16, s->hidden);
    const bf16       *w = m->w[kind] + layer * (kind == HEAD ? 0 : m->n[kind]);
    const MiGemvPlan *p = &m->plan[kind];

    if (moved >= 0)
        w = m->w[HEAD] + moved * m->n[kind] % (m->n[HEAD] - m->n[kind]) / 64 * 64;
    switch (kind) {
    case QKV: {
        const size_t nq = (size_t)s->heads * s->dim * s->hidden, nk = (size_t)s->kv_heads * s->dim * s->hidden;
        MiGemvQkv    c = {};
        c.w[0] = w;
        c.w[1] = w + nq;
        c.w[2] = w + nq + nk;
        c.bias[0] = m->bias;
        c.bias[1] = m->bias + s->heads * s->dim;
        c.bias[2] = c.bias[1] + s->kv_heads * s->dim;
        c.freqs = m->freqs;
        c.positions = m->ints;
        c.n_heads = s->heads;
        c.n_kv_heads = s->kv_heads;
        c.head_dim = c.rope_dim = s->dim;
        c.magnitude = 1;
        c.q = rows_of(m, m->q, MI_BF16, s->heads * s->dim);
        c.kv = view_of(m, layer);
        MUST(mi_cuda_gemv_qkv(m->stream, p, x, norm, &c));
        break;
    }
    case ATTENTION: {
        if (m->rows > 1) {
            attend_many(m, layer);
            break;
        }
        const int  smem = m->context * (s->dim * 4 + 4);
        const auto f = s->dim == 64 ? attend<64> : attend<128>;
        MUST(mi_allow_smem(f, smem));
        MUST(mi_launch(f, dim3(s->heads), dim3(256), smem, m->stream, view_of(m, layer), m->q, m->a,
                       s->heads / s->kv_heads));
        break;
    }
    case O: {
        MiGemvPlan   o = *p;
        const bf16  *g = m->w[GATED] + layer * m->n[GATED];
        const double part = std::min(1., m->later / (2. * m->n[GATED]));
        if (m->rows > MI_GEMV_FEW_ROWS && moved < 0 && m->later) {
            const int64_t most = (int64_t)(part * m->n[GATED] / (m->plan[GATED].grid / m->plan[GATED].split));
            o.later[0] = mi_cuda_gemv_later(&m->plan[GATED], g, most);
            o.later[1] = mi_cuda_gemv_later(&m->plan[GATED], g + m->n[GATED] / 2, most);
            if (part == 1)
                o.later[2] = mi_cuda_gemv_later(&m->plan[DOWN], m->w[DOWN] + layer * m->n[DOWN], 1 << 20);
        }
        MUST(mi_cuda_gemv_residual(m->stream, &o, rows_of(m, m->a, MI_BF16, s->heads * s->dim), w, NULL, x, y));
        break;
    }
    case GATED:
        MUST(mi_cuda_gemv_gated(m->stream, p, y, norm, w, w + m->n[GATED] / 2, rows_of(m, m->act, MI_BF16, s->mlp)));
        break;
    case DOWN:
        MUST(mi_cuda_gemv_residual(m->stream, p, rows_of(m, m->act, MI_BF16, s->mlp), w, NULL, y, x));
        break;
    case HEAD:
        MUST(mi_cuda_gemv_head(m->stream, p, x, m->ints + 3 * m->rows, norm, w, rows_of(m, m->logits, MI_F32, s->vocab), m->best));
        break;
    case PICK:
        MUST(mi_cuda_gemv_pick(m->stream, m->best, m->plan[HEAD].grid, m->rows, m->ints + 6 * m->rows,
                              m->ints + 5 * m->rows, m->ints + 4 * m->rows));
        break;
    }
}

static void enqueue_step(Model *m)
{
    MUST(mi_launch(embed, dim3(m->rows), dim3(128), 0, m->stream, m->w[HEAD], m->ints + 5 * m->rows, m->x[0], m->s.hidden, m->s.vocab));
    for (int l = 0; l < m->s.layers; l++)
        for (int k : {QKV, ATTENTION, O, GATED, DOWN})
            enqueue(m, k, l, -1);
    enqueue(m, HEAD, 0, -1);
    enqueue(m, PICK, 0, -1);
}

static cudaGraphExec_t capture(Model *m, const std::function<void()> &work)
{
    cudaGraph_t     g;
    cudaGraphExec_t run;

    MUST(cudaStreamBeginCapture(m->stream, cudaStreamCaptureModeThreadLocal));
    work();
    MUST(cudaStreamEndCapture(m->stream, &g));
    MUST(cudaGraphInstantiate(&run, g, 0));
    MUST(cudaGraphDestroy(g));
    MUST(cudaGraphUpload(run, m->stream));
    return run;
}

static void restart(Model *m)
{
    const size_t         n = (size_t)2 * m->s.layers * m->rows * m->s.kv_heads * m->capacity * m->s.dim;
    std::vector<int32_t> ints(8 * m->rows + 1);

    for (int r = 0; r < m->rows; r++) {
        const int32_t of_row[] = {m->context - 1, m->context, r * m->capacity + m->context - 1, r, r, 17 + r, -1, r};
        for (int i = 0; i < 8; i++)
            ints[i * m->rows + r] = of_row[i];
    }
    ints[8 * m->rows] = m->rows;

    fill<<<1024, 256, 0, m->stream>>>(m->cache, n, 0, 1, 9);
    MUST(cudaMemcpyAsync(m->ints, ints.data(), ints.size() * 4, cudaMemcpyDefault, m->stream));
    MUST(cudaStreamSynchronize(m->stream));
}

extern "C" void model_generate(Model *m, int steps, int32_t *tokens, float *logits)
{
    const cudaGraphExec_t run = capture(m, [&] { enqueue_step(m); });

    restart(m);
    for (int i = 0; i < steps; i++) {
        MUST(cudaGraphLaunch(run, m->stream));
        MUST(cudaMemcpyAsync(tokens + i * m->rows, m->ints + 6 * m->rows, m->rows * 4, cudaMemcpyDefault, m->stream));
    }
    MUST(cudaMemcpyAsync(logits, m->logits, (size_t)m->rows * m->s.vocab * 4, cudaMemcpyDefault, m->stream));
    MUST(cudaStreamSynchronize(m->stream));
    MUST(cudaGraphExecDestroy(run));
}

static double time_ms(Model *m, cudaGraphExec_t run, int batches, int reps)
{
    cudaEvent_t        a, b;
    std::vector<float> t;

    MUST(cudaEventCreate(&a));
    MUST(cudaEventCreate(&b));
    restart(m);
    for (int i = -1; i < batches; i++) {
        float ms;
        MUST(cudaEventRecord(a, m->stream));
        for (int r = 0; r < (i < 0 ? 3 : reps); r++)
            MUST(cudaGraphLaunch(run, m->stream));
        MUST(cudaEventRecord(b, m->stream));
        MUST(cudaEventSynchronize(b));
        MUST(cudaEventElapsedTime(&ms, a, b));
        if (i >= 0)
            t.push_back(ms / reps);
    }
    MUST(cudaEventDestroy(a));
    MUST(cudaEventDestroy(b));
    MUST(cudaGraphExecDestroy(run));
    std::sort(t.begin(), t.end());
    return t[t.size() / 2];
}

extern "C" double model_step_ms(Model *m, int batches, int reps)
{
    return time_ms(m, capture(m, [&] { enqueue_step(m); }), batches, reps);
}

extern "C" double model_kernel_us(Model *m, int kind)
{
    const int  n = kind == HEAD ? 4 : 3 * m->s.layers;
    const bool own = kind == DOWN || kind == HEAD || kind == ATTENTION || kind == PICK;

    return time_ms(m,
                   capture(m,
                           [&] {
                               for (int i = 0; i < n; i++)
                                   enqueue(m, kind, i % m->s.layers, own ? -1 : i);
                           }),
                   5, 10) *
           1e3 / n;
}

extern "C" double model_bytes(const Model *m, int kind)
{
    const double cache = 4.0 * m->rows * m->s.kv_heads * m->s.dim * m->context;
    double       all = 0;

    if (kind < N_KERNELS)
        return kind == ATTENTION ? cache : 2.0 * m->n[kind];
    for (int k = 0; k < N_KERNELS; k++)
        all += model_bytes(m, k) * (k == HEAD ? 1 : m->s.layers);
    return all;
}

extern "C" double read_bandwidth(void)
{
    const size_t n = (size_t)8 << 30;
    cudaEvent_t  a, b;
    bf16        *p;
    unsigned    *out;
    float        best = 1e9f;

    MUST(cudaMalloc((void **)&p, n));
    MUST(cudaMalloc((void **)&out, 4));
    MUST(cudaEventCreate(&a));
    MUST(cudaEventCreate(&b));
    fill<<<2048, 256>>>(p, n / 2, 0, 1, 99);
    for (int i = 0; i < 6; i++)
        for (int per : {4, 8, 16}) {
            float ms;
            MUST(cudaEventRecord(a));
            read_all<<<132 * per, 256>>>((const uint4 *)p, n / 16, out);
            MUST(cudaEventRecord(b));
            MUST(cudaEventSynchronize(b));
            MUST(cudaEventElapsedTime(&ms, a, b));
            best = std::min(best, ms);
        }
    MUST(cudaFree(p));
    MUST(cudaFree(out));
    MUST(cudaEventDestroy(a));
    MUST(cudaEventDestroy(b));
    return n / (best * 1e-3);
}
