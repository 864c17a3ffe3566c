/* quant_short.cu - the kernels of quant_short.h, for one row of x, weights of the usual form, up to 2,048 columns of x.
 *
 * Between the end of a kernel and that of the next, which overlaps it, lie 1.3 us and what it does after its wait: so few
 * kernels, and little after the wait.  A warp has one chunk of x, 128 columns, which it makes into digits by itself and
 * keeps in registers for all rows of the block; warps meet once, to add up what each has of a row.
 *
 * The MLP is one kernel.  A cluster of blocks has 128 columns of down and the rows of gate and up that they
 * are multiplied with: so what gate and up give stays within the cluster, by stores into the other blocks' memory.  Of down
 * a cluster has a part of every row's sum; the parts are added up in memory as integers of 64 bit, 2^-32 of y each, whose
 * sum does not depend on the order.  o's kernel begins them with the residual, q, k and v's reads them as x.
 * |y| and |parts| from 2^24 on, and what is no number, leave a mark that makes x no number. */
#include "quant_short.cuh"

using namespace mi_gemv;
using namespace mi_short;

namespace
{

#if __CUDA_ARCH__ >= 900

/* ---- o; q, k and v ----------------------------------------------------------------------------- */

/* A warp for each chunk of x; a block's weights are in registers before the wait. */
template <int BITS, int KIND> __global__ void __launch_bounds__(MOST_CHUNKS * 32) rows_short(const __grid_constant__ Rows a)
{
    __shared__ __align__(16) char  digits[MOST_CHUNKS * 256];
    __shared__ __align__(16) float sums[DUO_ROWS * PITCH], squares[MOST_CHUNKS];
    constexpr bool                 HEADS = KIND == MI_GEMV_QKV;
    const int   tid = threadIdx.x, lane = tid % 32, g = lane / 4, chunk = tid / 32, column = chunk * COLUMNS + lane * 4;
    const int   first = blockIdx.x * (HEADS ? OCTET : DUO_ROWS), columns = a.chunks * 8, eights = (a.blocks_of_x + 7) / 8;
    const Share t = {first, OCTET, HEADS ? DUO_ROWS : min(DUO_ROWS, a.out - first)};

    let_successor_start();
    const Duo     d = duo_of<KIND>(a, t, 0);
    const char   *second = d.second ? d.second : d.first;
    Weights<BITS> u, v;
    load_direct(u, d.first + chunk * a.chunk);
    load_direct(v, second + chunk * a.chunk);
    float s0 = 1, s1 = 1;
    if (BITS == 4) {
        s0 = half_before(d.first + chunk * a.chunk + VALUES<BITS> + g * 2);
        s1 = half_before(second + chunk * a.chunk + VALUES<BITS> + g * 2);
    }
    const float4 gain = HEADS ? gain_before(a, column) : float4{1, 1, 1, 1};
    /* Threads 0 to 15 end a row each; of pairs, two threads one. */
    const bool apart = HEADS && !a.interleaved;
    const int  row = !HEADS ? tid : apart ? tid % 2 * OCTET + tid / 2 : tid / 8 * OCTET + tid / 2 % 4 * 2 + tid % 2;
    const int  unit = HEADS ? first + tid / 2 : first + tid;
    const bool mine = tid < t.rows;
    float4     ahead = {0, 0, 1, 0};
    Target     target = {};
    float      of_row = 1;
    if (mine) {
        if (BITS == 8)
            of_row = float_before((row < OCTET ? d.first : second) + (int64_t)a.blocks_of_x * a.chunk + row % OCTET * 4);
        if (HEADS) {
            ahead = look_up<KIND>(a, unit, 0, true);
            target = target_of<bf16>(a, unit, 0);
        } else {
            ahead.x = a.bias[0] ? a.bias[0][unit] : 0;
            ahead.y = a.bias[1] ? a.bias[1][unit] : 0; /* down's, for its sum */
        }
    }
    for (int i = tid; i < DUO_ROWS * MOST_CHUNKS; i += a.warps * 32) /* those past the last chunk */
        sums[i / MOST_CHUNKS * PITCH + i % MOST_CHUNKS] = squares[i % MOST_CHUNKS] = 0;
    consumers_meet(a);
    /* Else the assembler puts the loads above behind the wait: so it depends on them.  To wait twice does no harm. */
    const bool twice = (u.v[0].x ^ v.v[0].x) == __float_as_uint(s0 + s1);
#pragma unroll 1
    for (int i = 0; i < 1 + twice; i++) {
        wait_for_predecessor();
    }
    float residual = 0;
    if (!HEADS && mine)
        residual = to_float(__ldcg((const bf16 *)a.residual + unit));
    float4 f = HEADS ? four_summed(a.sums, column, columns) : four_of(a.x, column, columns);
    if (HEADS && blockIdx.x == 0 && column < columns && a.hidden)
        *(uint2 *)(a.hidden + column * 2) = packed_four(f);
    const float4 plain = f;
    if (HEADS)
        scale_by(f, gain);
    uint4        b[2];
    const float  scale = digits_of<BITS>(f, shared_address(digits) + chunk * 256, b);
    const float2 y = multiplied(u, v, b);
    if (lane % 4 < 2)
        sums[(lane % 4 * OCTET + g) * PITCH + chunk] = lane % 4 ? y.y * (s1 * scale) : y.x * (s0 * scale);
    if (HEADS) {
        const float sum = squares_of(plain);
        if (lane == 0)
            squares[chunk] = sum;
    }
    consumers_meet(a);
    if (tid >= 32)
        return;
    float z = mine ? added_up_over(sums + row * PITCH, eights) * of_row : 0;
    if (HEADS) {
        z *= rsqrtf(added_up_over(squares, eights) * a.per_in + a.eps);
        const float other = __shfl_xor_sync(~0u, z, 1);
        if (mine && tid % 2 == 0)
            end_tile<bf16, KIND>(a, unit, 0, true, z + ahead.x, other + ahead.y, ahead, {0, 0}, target);
    } else if (mine) {
        const bf16 h = from_float<bf16>(z + ahead.x + residual);
        ((bf16 *)a.y)[unit] = h;
        a.sums[unit] = fixed(to_float(h)) + fixed(ahead.y);
        if (unit == 0)
            a.sums[a.out] = 0;
    }
}

/* ---- the MLP ------------------------------------------------------------------------------------- */

/* A block's octets of its cluster's gate and up, and of down. */
struct Part {
    int unit, rank, gate, duos, first, octets;
};

__device__ __forceinline__ Part part_of(const Mlp &a)
{
    const int unit = blockIdx.x / a.blocks, rank = blockIdx.x - unit * a.blocks, all = min(UNIT, a.ff / OCTET - unit * UNIT);
    const int gate = all * rank / a.blocks, first = a.octets * rank / a.blocks;
    return {unit, rank, gate, all * (rank + 1) / a.blocks - gate, first, a.octets * (rank + 1) / a.blocks - first};
}

/* Barriers: those of stages, one for what gate and up give, one that opens with the predecessor's end. */
__device__ __forceinline__ uint64_t *given_of(char *smem) { return (uint64_t *)smem + STAGES; }
__device__ __forceinline__ uint64_t *released_of(char *smem) { return (uint64_t *)smem + STAGES + 1; }

/* One warp.  A stage is a record of gate and one of up, or up to 16 pieces of records of down. */
__device__ __forceinline__ void produce_mlp(const Mlp &a, Part p, char *smem)
{
    const int      lane = threadIdx.x % 32, stages = p.duos + (p.octets + GROUP - 1) / GROUP;
    const uint64_t policy = evict_first_policy();
    uint64_t      *full = (uint64_t *)smem;
    auto           request = [&](int s) {
        if (s < p.duos) {
            const int64_t at = (int64_t)(p.unit * UNIT + p.gate + s) * a.record;
            char         *to = smem + BEGIN + 2 * s * (int)a.record;
            if (lane == 0) {
                barrier_expect(full + s, 2 * (int)a.record);
                bulk_load_once(to, a.w[0] + at, (int)a.record, full + s, policy);
                bulk_load_once(to + a.record, a.w[1] + at, (int)a.record, full + s, policy);
            }
        } else {
            const int first = (s - p.duos) * GROUP, n = min(GROUP, p.octets - first);
            if (lane == 0)
                barrier_expect(full + s, n * a.chunk);
            __syncwarp();
            if (lane < n)
                bulk_load_once(smem + a.down_at + (first + lane) * a.chunk,
                               a.down + (p.first + first + lane) * a.down_record + p.unit * a.chunk, a.chunk, full + s, policy);
        }
        __syncwarp();
    };

    for (int i = lane; i < stages; i += 32)
        barrier_init(full + i, 1);
    if (lane == 0) {
        barrier_init(given_of(smem), 1);
        barrier_init(released_of(smem), 1);
    }
    barrier_init_done();
    __syncwarp();
    if (lane == 0)
        barrier_expect(given_of(smem), min(COLUMNS, a.ff - p.unit * COLUMNS) * 4);
    int s = 0;
#pragma unroll 1
    for (int pass = 0; pass < 2; pass++) {
#pragma unroll 1
        for (; s < (pass ? stages : min(stages, a.flight)); s++) {
            if (pass) /* as many as memory gives while others wait for it, too */
                while (!barrier_open(released_of(smem), 0) && !barrier_done(full + s - a.flight, 0)) {
                }
            request(s);
        }
        if (pass == 0) {
            __syncthreads();
            cluster_here();
        }
    }
    cluster_wait();
}

/* silu(gate) * up of the block's rows to all blocks of the cluster; two threads have a row. */
__device__ __forceinline__ void give_act(const Mlp &a, Part p, char *smem, float scale)
{
    const int    tid = threadIdx.x, item = tid / 2, up = tid % 2, row = item / OCTET * DUO_ROWS + up * OCTET + item % OCTET;
    const bool   mine = item < p.duos * OCTET;
    const float *sums = (const float *)(smem + a.sums_at);
    const float  y = mine ? added_up_over(sums + row * PITCH, (a.blocks_of_x + 7) / 8) * scale : 0;
    const float  other = __shfl_xor_sync(~0u, y, 1), one = up ? other : y, two = up ? y : other;
    const float  v = __fdividef(one, 1 + __expf(-one)) * two;
    const int    at = p.gate * OCTET + item;

    if (!mine)
        return;
#pragma unroll 1
    for (int rank = up; rank < a.blocks; rank += 2)
        asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];" ::"r"(
                         in_block(shared_address(smem) + a.act_at + at * 4, rank)),
                     "f"(v), "r"(in_block(shared_address(given_of(smem)), rank))
                     : "memory");
    if (a.act && !up)
        ((bf16 *)a.act)[p.unit * COLUMNS + at] = from_float<bf16>(v);
}

template <int BITS> __global__ void __maxnreg__(80) mlp_short(const __grid_constant__ Mlp a)
{
    extern __shared__ __align__(128) char smem[];
    const int  tid = threadIdx.x, lane = tid % 32, g = lane / 4, warp = tid / 32, columns = a.chunks * 8;
    const Part p = part_of(a);

    let_successor_start();
    if (warp == a.warps) {
        produce_mlp(a, p, smem);
        return;
    }
    const int group = warp / a.blocks_of_x, chunk = warp - group * a.blocks_of_x, column = chunk * COLUMNS + lane * 4;
    const unsigned memory = shared_address(smem), digits = memory + a.digits_at + warp * 256;
    const float4   gain = gain_before(a, column);
    float         *sums = (float *)(smem + a.sums_at), *squares = (float *)(smem + a.squares_at);
    float         *of_down = (float *)(smem + a.scales_at); /* of 8 bit: scales of down's rows */
    const int      odd = lane % 2;                          /* lanes with an even t have rows g of a duo's first record */
    float          of_row = 1;                              /* of the row of gate or up that this thread ends */
    if (tid < COLUMNS)
        ((float *)(smem + a.act_at))[tid] = 0;
    for (int i = tid; i < p.duos * DUO_ROWS * PITCH; i += a.warps * 32)
        sums[i] = 0;
    if (tid < MOST_CHUNKS)
        squares[tid] = 0;
    if (BITS == 8) {
        for (int i = tid; i < p.octets * OCTET; i += a.warps * 32)
            of_down[i] = float_before(a.down + (p.first + i / OCTET) * a.down_record + a.down_tail + i % OCTET * 4);
        if (tid / 2 < p.duos * OCTET)
            of_row = float_before(a.w[tid % 2] + (int64_t)(p.unit * UNIT + p.gate + tid / 2 / OCTET) * a.record +
                                  (int64_t)a.blocks_of_x * a.chunk + tid / 2 % OCTET * 4);
    }
    __syncthreads();
    cluster_here();
    cluster_wait();

    wait_for_predecessor();
    if (tid == 0)
        barrier_arrive(released_of(smem));
    float4 f = four_of(a.x, column, columns);
    const float sum = squares_of(f);
    if (group == 0 && lane == 0)
        squares[chunk] = sum;
    scale_by(f, gain);
    /* Gate beside up, a warp's chunk of them; then the cluster's chunk of down, two records at once.  One copy of the code: what
     * runs for the first time takes seven clocks an instruction. */
#pragma unroll 1
    for (int down = 0; down < 2; down++) {
        uint4          b[2];
        const float    scale = digits_of<BITS>(f, digits, b);
        const int      duos = down ? (p.octets + 1) / 2 : p.duos, each = down ? 2 * a.chunk : 2 * (int)a.record;
        const int      next = down ? a.chunk : (int)a.record, step = down ? a.warps : a.groups;
        const unsigned from = memory + (down ? a.down_at : BEGIN + chunk * a.chunk);
        uint64_t      *full = (uint64_t *)smem + (down ? p.duos : 0);
#pragma unroll 1
        for (int i = down ? warp : group; i < duos; i += step) {
            const unsigned at = from + i * each, second = at + (down && 2 * i + 1 >= p.octets ? 0 : next);
            Weights<BITS>  u, v;
            float          s = scale;
            barrier_wait(full + (down ? 2 * i / GROUP : i), 0);
            u.load(at, lane);
            v.load(second, lane);
            if (BITS == 4)
                s *= half_at((odd ? second : at) + VALUES<BITS> + g * 2);
            const float2 y = multiplied(u, v, b);
            const int    row = (2 * i + odd) * OCTET + g;
            float        part = (odd ? y.y : y.x) * s;
            if (lane % 4 >= 2)
                continue;
            if (!down) {
                sums[row * PITCH + chunk] = part;
            } else if (row < p.octets * OCTET) {
                if (BITS == 8)
                    part *= of_down[row];
                asm volatile("red.relaxed.gpu.global.add.u64 [%0], %1;" ::"l"(a.sums + p.first * OCTET + row), "l"(fixed(part))
                             : "memory");
                if (!(fabsf(part) < LIMIT))
                    atomicAdd(a.sums + a.octets * OCTET, 1);
            }
        }
        if (down)
            break;
        consumers_meet(a);
        const float all = added_up_over(squares, (a.blocks_of_x + 7) / 8);
        if (tid == 0 && blockIdx.x == 0 && !(all < LIMIT * LIMIT))
            atomicAdd(a.sums + a.octets * OCTET, 1);
        give_act(a, p, smem, rsqrtf(all * a.per_in + a.eps) * of_row);
        barrier_wait(given_of(smem), 0); /* of all warps: nobody leaves while others still write to the block */
        f = *(const float4 *)(smem + a.act_at + lane * 16);
    }
}

/* ---- the end of the last layer -------------------------------------------------------------------- */

__global__ void finish_short(const Sum *sums, int columns, char *y)
{
    const int column = (blockIdx.x * blockDim.x + threadIdx.x) * 4;

    let_successor_start();
    wait_for_predecessor();
    if (column < columns)
        *(uint2 *)(y + column * 2) = packed_four(four_summed(sums, column, columns));
}

#else

template <int BITS, int KIND> __global__ void rows_short(const __grid_constant__ Rows a) { (void)a; }
template <int BITS> __global__ void mlp_short(const __grid_constant__ Mlp a) { (void)a; }
__global__ void finish_short(const Sum *, int, char *) {}

#endif

/* ---- the layout ------------------------------------------------------------------------------------ */

int rounded(int n, int to) { return (n + to - 1) / to * to; }

bool usual(MiQuantForm f) { return !f.zeros && !f.levels && !f.scales && ((f.bits == 4 && f.group == 128) || (f.bits == 8 && !f.group)); }

auto mlp_kernel(MiQuantForm f) { return f.bits == 4 ? mlp_short<4> : mlp_short<8>; }
auto o_kernel(MiQuantForm f) { return f.bits == 4 ? rows_short<4, MI_GEMV_RESIDUAL> : rows_short<8, MI_GEMV_RESIDUAL>; }
auto heads_kernel(MiQuantForm f) { return f.bits == 4 ? rows_short<4, MI_GEMV_QKV> : rows_short<8, MI_GEMV_QKV>; }

/* In the MLP's shared memory, behind gate's and up's records. */
struct Regions {
    int down, act, digits, sums, squares, scales, end;
};

Regions regions_of(const MiQuantLayerPlan *p)
{
    const MiQuantLayerShape s = p->shape;
    const int duos = (UNIT + p->small.blocks - 1) / p->small.blocks, octets = (s.hidden / OCTET + p->small.blocks - 1) / p->small.blocks;
    Regions   r;

    r.down = BEGIN + 2 * duos * (int)mi_quant_record(s.form, s.hidden);
    r.act = rounded(r.down + octets * mi_quant_chunk(s.form), 128);
    r.digits = r.act + COLUMNS * 4;
    r.sums = r.digits + p->small.warps * 256;
    r.squares = r.sums + duos * DUO_ROWS * PITCH * 4;
    r.scales = r.squares + MOST_CHUNKS * 4;
    r.end = r.scales + (s.form.bits == 8 ? octets * OCTET * 4 : 0);
    return r;
}

/* Of a matrix with so many columns. */
Packed packed_of(MiQuantForm f, int in, int out)
{
    Packed a = {};

    a.rows = 1;
    a.out = out;
    a.chunks = in / 8;
    a.per_in = 1.f / (float)in;
    a.record = mi_quant_record(f, in);
    a.blocks_of_x = (int)mi_quant_chunks(in);
    a.chunk = mi_quant_chunk(f);
    a.values = mi_quant_values(f);
    a.warps = a.blocks_of_x;
    return a;
}

} // namespace

/* What a block of the MLP may have: beyond that nothing was measured, and the next kernels would not fit beside it. */
enum { MOST_SMEM = 200 << 10 };

int mi_quant::plan_short(MiQuantLayerPlan *p, int sms, int most)
{
    const MiQuantLayerShape s = p->shape;
    const int units = (s.ff + COLUMNS - 1) / COLUMNS, chunks = (int)mi_quant_chunks(s.hidden);

    p->small.blocks = 0;
    if (!usual(s.form) || chunks > MOST_CHUNKS || mi_quant_chunks(s.heads_width) > MOST_CHUNKS || s.hidden % 8 || s.ff % 8)
        return cudaErrorNotSupported;
    p->small.groups = MOST_CHUNKS / chunks;
    p->small.warps = p->small.groups * chunks;
    p->small.flight = (15 << 10) / (2 * (int)mi_quant_record(s.form, s.hidden));
    p->small.flight = p->small.flight > 2 ? p->small.flight : 2;
    /* As many blocks as there are multiprocessors, if clusters of so many can be there at once. */
    for (int blocks = sms / units < 8 ? sms / units : 8; blocks >= 2; blocks--) {
        cudaLaunchConfig_t  c = {};
        cudaLaunchAttribute cluster = {};
        int                 there = 0;

        p->small.blocks = blocks;
        p->small.smem = regions_of(p).end;
        const int stages = (UNIT + blocks - 1) / blocks + (s.hidden / OCTET / blocks + 1 + GROUP - 1) / GROUP;
        if (p->small.smem > most || p->small.smem > MOST_SMEM || stages > STAGES || (UNIT + blocks - 1) / blocks * DUO_ROWS > p->small.warps * 32)
            break;
        const int e = mi_allow_smem(mlp_kernel(s.form), p->small.smem);
        if (e)
            return e;
        c.gridDim = units * blocks;
        c.blockDim = (p->small.warps + 1) * 32;
        c.dynamicSmemBytes = p->small.smem;
        c.attrs = &cluster;
        c.numAttrs = 1;
        cluster.id = cudaLaunchAttributeClusterDimension;
        cluster.val.clusterDim.x = blocks;
        cluster.val.clusterDim.y = cluster.val.clusterDim.z = 1;
        if (cudaOccupancyMaxActiveClusters(&there, mlp_kernel(s.form), &c) == cudaSuccess && there >= units)
            return cudaSuccess;
        (void)cudaGetLastError();
    }
    p->small.blocks = 0;
    return cudaErrorNotSupported;
}

/* Sums, then o's result where nobody else has a place for it. */
static size_t sums_bytes(const MiQuantLayerPlan *p) { return ((size_t)p->shape.hidden + 2) / 2 * 2 * sizeof(Sum); }

size_t mi_quant::short_bytes(const MiQuantLayerPlan *p) { return sums_bytes(p) + (size_t)p->shape.hidden * 2; }

static int start_o(void *stream, const MiQuantLayerPlan *p, const MiQuantLayerCall *c, Sum *sums, char *h)
{
    const MiQuantLayerShape s = p->shape;
    Rows                    a = {};

    static_cast<Packed &>(a) = packed_of(s.form, s.heads_width, s.hidden);
    a.w[0] = (const char *)c->o;
    a.bias[0] = c->o_bias;
    a.bias[1] = c->down_bias;
    a.x = (const char *)c->a.data;
    a.residual = (const char *)c->x.data;
    a.y = h;
    a.sums = sums;
    return mi_launch(o_kernel(s.form), dim3((s.hidden + DUO_ROWS - 1) / DUO_ROWS), dim3(a.warps * 32), 0, stream, a);
}

static int start_mlp(void *stream, const MiQuantLayerPlan *p, const MiQuantLayerCall *c, Sum *sums, const char *h)
{
    const MiQuantLayerShape s = p->shape;
    const Regions           r = regions_of(p);
    Mlp                     a = {};

    static_cast<Packed &>(a) = packed_of(s.form, s.hidden, s.ff);
    add_norm(&a, c->norm);
    a.w[0] = (const char *)c->gate;
    a.w[1] = (const char *)c->up;
    a.x = h;
    a.warps = p->small.warps;
    a.flight = p->small.flight;
    a.down = (const char *)c->down;
    a.down_record = mi_quant_record(s.form, s.ff);
    a.down_tail = (int)mi_quant_chunks(s.ff) * a.chunk;
    a.sums = sums;
    a.act = (char *)c->act;
    a.ff = s.ff;
    a.octets = s.hidden / OCTET;
    a.blocks = p->small.blocks;
    a.groups = p->small.groups;
    a.down_at = r.down;
    a.act_at = r.act;
    a.digits_at = r.digits;
    a.sums_at = r.sums;
    a.squares_at = r.squares;
    a.scales_at = r.scales;
    return mi_launch_clusters(mlp_kernel(s.form), dim3((s.ff + COLUMNS - 1) / COLUMNS * p->small.blocks), dim3((a.warps + 1) * 32),
                              (unsigned)p->small.blocks, p->small.smem, stream, a);
}

static int start_heads(void *stream, const MiQuantLayerPlan *p, const MiQuantLayerCall *c, Sum *sums)
{
    const MiQuantLayerShape s = p->shape;
    Rows                    a = {};

    static_cast<Packed &>(a) = packed_of(s.form, s.hidden, s.heads_rows);
    add_norm(&a, c->next_norm);
    add_heads(&a, &c->qkv);
    a.sums = sums;
    a.hidden = (char *)c->y.data;
    return mi_launch(heads_kernel(s.form), dim3(s.heads_rows / DUO_ROWS), dim3(a.warps * 32), 0, stream, a);
}

int mi_quant::start_short(void *stream, const MiQuantLayerPlan *p, const MiQuantLayerCall *c)
{
    Sum  *sums = (Sum *)c->exchange;
    char *h = c->h ? (char *)c->h : (char *)c->exchange + sums_bytes(p);
    int   e = start_o(stream, p, c, sums, h);

    if (!e)
        e = start_mlp(stream, p, c, sums, h);
    if (e)
        return e;
    return p->shape.heads_rows ? start_heads(stream, p, c, sums)
                               : mi_launch(finish_short, dim3((p->shape.hidden / 4 + 127) / 128), dim3(128), 0, stream,
                                           (const Sum *)sums, (int)p->shape.hidden, (char *)c->y.data);
}
