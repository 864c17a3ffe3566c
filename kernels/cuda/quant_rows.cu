/* quant_rows.cu - the products of quant_rows.h that neither quant_rows_mma.cu nor quant_rows_wgmma.cu has: 17 to 64 rows of forms with zeros, or
 * with groups of 8 bit, by wgmma.
 *
 * Two records of W are 16 rows of a warp's share of wgmma.m64nNk16, whose first operand is in registers: integers as
 * bf16, exact.  Of eight of its columns a lane has the same two pairs that the packed form gives it, so the columns of x change
 * places instead, once, in a kernel before: [chunk][unit of eight][rows of x][unit], which is how wgmma reads
 * its second operand from shared memory.  A group's sum is multiplied by its scale in f32.
 *
 * W is requested before the predecessor is done, x after that.  At the end the blocks of a cluster add up each other's sums, in
 * the order of their parts. */
#include "quant_tiles.cuh"

using namespace mi_quant_rows;

/* Warps that have a chunk together, 16 rows each; and how many times that many take chunks in turns, where registers suffice. */
constexpr int WARPS = 8, THREADS = WARPS * 32, PITCH = TILE + 4;
template <int N> constexpr int TURNS = N == 64 ? 1 : 2;

/* ---- x ---------------------------------------------------------------------------------------- */

/* A warp has a chunk of eight rows, or of rows that are not there: zeros. */
static __global__ void __launch_bounds__(128) arrange(const bf16 *x, int64_t stride, int rows, int in, char *to,
                                                      float *sums, int n, int group)
{
    const int warp = blockIdx.x * 4 + threadIdx.x / 32, eights = n / 8, chunk = warp / eights, eight = warp % eights;
    const int lane = threadIdx.x % 32, t = lane % 4, m = eight * 8 + lane / 4;
    uint4     v[4] = {};
    float     sum = 0;

    let_successor_start();
    wait_for_predecessor();
    if (chunk * COLUMNS >= in)
        return;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int k = chunk * COLUMNS + j * 32 + t * 8;
        if (m < rows && k < in)
            v[j] = __ldcg((const uint4 *)(x + m * stride + k));
    }
    unsigned *at = (unsigned *)(to + (int64_t)chunk * n * COLUMNS * 2) + eight * 32 + lane;
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const unsigned *w = (const unsigned *)&v[j];
#pragma unroll
        for (int i = 0; i < 4; i++) { /* step 2 j + i / 2, unit i % 2 of it */
            const float2 p = unpack(w[i], bf16());
            at[(j * 4 + i) * n * 4] = w[i];
            sum += p.x + p.y;
        }
        if (sums && (j + 1) * 32 % group == 0) {
            sum += __shfl_xor_sync(~0u, sum, 1);
            sum += __shfl_xor_sync(~0u, sum, 2);
            if (t == 0)
                sums[(chunk * (COLUMNS / group) + j * 32 / group) * n + m] = sum;
            sum = 0;
        }
    }
}

/* ---- the product -------------------------------------------------------------------------------- */

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* Without swizzle: units of eight rows, 128 bytes, and N of them to the next eight columns. */
template <int N> __device__ __forceinline__ uint64_t operand_at(unsigned at)
{
    return (uint64_t)((at & 0x3ffff) >> 4) | (uint64_t)N << 16 | (uint64_t)(128 >> 4) << 32;
}

/* What a lane has of a chunk of two records, from step `from` on: [step][operand]. */
template <int BITS, int STEPS> __device__ __forceinline__ void load_duo(unsigned p, unsigned q, int from, unsigned (&a)[STEPS][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        uint4 v[BITS / 4];
#pragma unroll
        for (int i = 0; i < BITS / 4; i++) {
            v[i] = load_shared((r ? q : p) + i * 512);
        }
#pragma unroll
        for (int i = 0; i < STEPS; i++)
            widen<BITS>(v, from + i, a[i][r], a[i][2 + r]);
    }
}

/* The thread that fills the ring. */
template <int N> __device__ __forceinline__ void produce(const Product &a, char *smem, int first, int n)
{
    const int      octet = (int)(blockIdx.x / a.parts) * RECORDS, stages = (n + a.slice - 1) / a.slice;
    const uint64_t policy = evict_first_policy();
    auto           request = [&](int s, bool of_w, bool of_x) {
        const int slot = s % a.stages, from = first + s * a.slice, chunks = min(a.slice, n - s * a.slice);
        uint64_t *full = (uint64_t *)(smem + FULL) + slot;
        char     *to = smem + START + slot * a.stage_bytes;
        if (of_w) { /* whole boxes: what is outside of the matrix comes as zeros */
            barrier_expect(full, RECORDS * a.slice * a.chunk + chunks * (N * COLUMNS * 2 + a.sums_bytes));
            load_box(to, &a.map, from * (a.chunk / ELEMENT), octet, full, policy);
        }
        if (of_x) {
            bulk_load(to + a.x_at, a.x + (int64_t)from * N * COLUMNS * 2, chunks * N * COLUMNS * 2, full);
            if (a.sums_bytes)
                bulk_load(to + a.sums_at, (const char *)a.sums + (int64_t)from * a.sums_bytes, chunks * a.sums_bytes,
                                    full);
        }
    };

    /* A burst of all that the ring holds would queue in front of what the predecessor still reads. */
    const int early = min(a.flight, min(a.stages, stages));
    for (int s = 0; s < early; s++)
        request(s, true, false);
    wait_for_predecessor();
    for (int s = 0; s < min(a.stages, stages); s++)
        request(s, s >= early, true);
    for (int s = a.stages; s < stages; s++) {
        barrier_wait((uint64_t *)(smem + FREED) + s % a.stages, (s / a.stages - 1) & 1);
        request(s, true, true);
    }
}

/* Steps `from` to `end` of those that a has, whose first is at x, into d; waits until all are there. */
template <int N, int STEPS>
__device__ __forceinline__ void multiply(float (&d)[N / 2], const unsigned (&a)[STEPS][4], uint64_t x, int from, int end, bool add)
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int s = 0; s < STEPS; s++) {
        if (s >= from && s < end)
            Mma<N>::run(d, a[s], x + (uint64_t)(s * 2 * N), add || s > from);
    }
    asm volatile("wgmma.commit_group.sync.aligned;\nwgmma.wait_group.sync.aligned 0;" ::: "memory");
#pragma unroll
    for (int i = 0; i < N / 2; i++)
        asm volatile("" : "+f"(d[i])::"memory");
}

/* Every thread: sums of the warps that have turn 0 get those of the other turns added, through the ring's memory, then go to the
 * blocks whose share of y they are; each block adds up its share, in the order of parts, and writes it.
 * place(k): row of x and of the tile that value k is of.  K: values of a thread; THREADS: of a turn. */
template <int N, int K, int TURNS, int THREADS, int PITCH, typename P>
__device__ __forceinline__ void finish(const Product &a, char *smem, float (&y)[K], P place)
{
    const int tid = threadIdx.x, turn = tid / THREADS, part = blockIdx.x % a.parts, tile = blockIdx.x / a.parts;
    const int share = N / a.parts, shift = 31 - __clz(share); /* rows of x */

    wait_for_predecessor();
    if (TURNS > 1) {
        float *others = (float *)(smem + START) + tid % THREADS;
        __syncthreads(); /* all of the ring is read */
        if (turn >= 1 && turn < TURNS) {
#pragma unroll
            for (int k = 0; k < K; k++)
                others[((turn - 1) * K + k) * THREADS] = y[k];
        }
        __syncthreads();
        if (turn == 0) {
#pragma unroll
            for (int i = 0; i < (TURNS - 1) * K; i++)
                y[i % K] += others[i * THREADS];
        }
    }
    cluster_wait(); /* all are there */
    if (turn == 0) {
        const unsigned own = shared_address(smem) + a.shares + part * share * PITCH * (int)sizeof(float);
#pragma unroll
        for (int k = 0; k < K; k++) {
            const int2     at = place(k);
            const unsigned there = in_block(own + ((at.x & (share - 1)) * PITCH + at.y) * (int)sizeof(float), at.x >> shift);
            asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(there), "f"(y[k]) : "memory");
        }
    }
    cluster_arrive();
    cluster_wait();
    const float *sums = (const float *)(smem + a.shares);
#pragma unroll 1
    for (int i = tid; i < share * (TILE / 4); i += blockDim.x) {
        const int m = i / (TILE / 4), in_tile = i % (TILE / 4) * 4, row = tile * TILE + in_tile;
        float     sum[4] = {};
        if (part * share + m >= a.rows || row >= a.out)
            continue;
#pragma unroll
        for (int p = 0; p < MOST_PARTS; p++)
            if (p < a.parts) {
                const float4 v = *(const float4 *)(sums + (p * share + m) * PITCH + in_tile);
                sum[0] += v.x, sum[1] += v.y, sum[2] += v.z, sum[3] += v.w;
            }
#pragma unroll
        for (int k = 0; k < 4; k++)
            if (a.bias && row + k < a.out)
                sum[k] += a.bias[row + k];
        char *y_at = a.y + ((part * share + m) * a.y_stride + row) * (a.y_f32 ? 4 : 2);
        if (a.fours && row + 4 <= a.out) {
            if (a.y_f32)
                *(float4 *)y_at = {sum[0], sum[1], sum[2], sum[3]};
            else
                *(uint2 *)y_at = {pack({sum[0], sum[1]}, bf16()), pack({sum[2], sum[3]}, bf16())};
            continue;
        }
#pragma unroll
        for (int k = 0; k < 4; k++) {
            if (row + k >= a.out)
                continue;
            if (a.y_f32)
                ((float *)y_at)[k] = sum[k];
            else
                ((bf16 *)y_at)[k] = from_float<bf16>(sum[k]);
        }
    }
}

template <int BITS, int N> __global__ void __launch_bounds__(TURNS<N> *THREADS + 32, 1) products(const __grid_constant__ Product a)
{
    extern __shared__ __align__(128) char smem[];
    constexpr int VALUES = BITS * OCTET * COLUMNS / 8, BOTH = TURNS<N>;
    const int     tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4, warp = tid / 32 % WARPS, turn = tid / THREADS;
    const int     part = blockIdx.x % a.parts, tile = blockIdx.x / a.parts;
    const int     first = a.chunks * part / a.parts, n = a.chunks * (part + 1) / a.parts - first;
    const bool    per_row = BITS == 8 && a.per_row;

    let_successor_start();
    if (tid < a.stages) {
        barrier_init((uint64_t *)(smem + FULL) + tid, 1);
        barrier_init((uint64_t *)(smem + FREED) + tid, BOTH * WARPS);
        barrier_init_done();
    }
    __syncthreads();
    cluster_here();
    float y[N / 2] = {}, row_scale[2] = {}, row_zero[2] = {}; /* rows g, 8 + g */
    if (turn == BOTH) {
        if (lane == 0)
            produce<N>(a, smem, first, n);
        __syncwarp();
    } else {
        if (per_row) {
#pragma unroll
            for (int r = 0; r < 2; r++) {
                const int octet = tile * TILE / OCTET + 2 * warp + r;
                if (octet * OCTET < a.out) {
                    const float *end = (const float *)(a.w + octet * a.record + (int64_t)a.chunks * a.chunk);
                    row_scale[r] = end[g];
                    row_zero[r] = a.zeros ? end[OCTET + g] : 0;
                }
            }
        }
        wait_for_predecessor();
        const unsigned ring = shared_address(smem) + START;
#pragma unroll 1
        for (int s = 0, slot = 0, phase = 0; s * a.slice < n; s++) {
            const unsigned at = ring + slot * a.stage_bytes;
            const int      chunks = min(a.slice, n - s * a.slice);
            barrier_wait((uint64_t *)(smem + FULL) + slot, phase);
#pragma unroll 1
            for (int c = (turn + s * a.slice) % BOTH; c < chunks; c += BOTH) {
                const uint64_t x = operand_at<N>(at + a.x_at + c * N * COLUMNS * 2);
                const unsigned p = at + (2 * warp * a.slice + c) * a.chunk, q = p + a.slice * a.chunk;
                const unsigned scales[2] = {p + VALUES + g * 2, q + VALUES + g * 2};
                float          d[N / 2];
                unsigned sums = at + a.sums_at + c * a.sums_bytes + t * 8;
                unsigned operand[8][4];
                load_duo<BITS>(p + lane * 16, q + lane * 16, 0, operand);
#pragma unroll 1
                for (int group = 0; group < a.groups; group++) {
                    float scale[2] = {1, 1}, zero[2] = {row_zero[0], row_zero[1]};
                    if (a.groups == 1)
                        multiply<N>(d, operand, x, 0, 8, false);
                    else if (a.groups == 2 && group == 0)
                        multiply<N>(d, operand, x, 0, 4, false);
                    else if (a.groups == 2)
                        multiply<N>(d, operand, x, 4, 8, false);
                    else if (group == 0)
                        multiply<N>(d, operand, x, 0, 2, false);
                    else if (group == 1)
                        multiply<N>(d, operand, x, 2, 4, false);
                    else if (group == 2)
                        multiply<N>(d, operand, x, 4, 6, false);
                    else
                        multiply<N>(d, operand, x, 6, 8, false);
                    if (!per_row) {
#pragma unroll
                        for (int r = 0; r < 2; r++) {
                            scale[r] = half_at(scales[r] + group * OCTET * 2);
                            if (a.zeros) {
                                const float z = half_at(scales[r] + (a.groups + group) * OCTET * 2);
                                zero[r] = a.minima ? fmaf(8, scale[r], z) : scale[r] * z;
                            }
                        }
                    }
#pragma unroll
                    for (int k = 0; k < N / 2; k++)
                        y[k] = fmaf(scale[k / 2 % 2], d[k], y[k]);
                    if (a.zeros) {
#pragma unroll
                        for (int k = 0; k < N / 8; k++) {
                            const float2 sum = pair_at(sums + k * 32);
#pragma unroll
                            for (int r = 0; r < 2; r++) {
                                y[4 * k + 2 * r] = fmaf(zero[r], sum.x, y[4 * k + 2 * r]);
                                y[4 * k + 2 * r + 1] = fmaf(zero[r], sum.y, y[4 * k + 2 * r + 1]);
                            }
                        }
                        sums += N * 4;
                    }
                }
            }
            __syncwarp();
            if (lane == 0)
                barrier_arrive((uint64_t *)(smem + FREED) + slot);
            if (++slot == a.stages) {
                slot = 0;
                phase ^= 1;
            }
        }
    }
    if (per_row) {
#pragma unroll
        for (int k = 0; k < N / 2; k++)
            y[k] *= row_scale[k / 2 % 2];
    }
    finish<N, N / 2, BOTH, THREADS, PITCH>(a, smem, y, [&](int k) {
        return int2{k / 4 * 8 + t * 2 + k % 2, (2 * warp + k / 2 % 2) * OCTET + g};
    });
}

#else

template <int BITS, int N> __global__ void products(const __grid_constant__ Product a) { (void)a; }

#endif

/* ---- launching -------------------------------------------------------------------------------------- */

static int groups_of(MiQuantForm f) { return f.group ? mi_quant_groups(f) : 1; }

/* Whether x stays as it is. */
static bool is_plain(MiQuantForm f, int64_t rows) { return is_for_mma(f, rows) || is_for_wgmma(f, rows); }

extern "C" size_t mi_cuda_quant_split_bytes(MiQuantForm f, int64_t rows, int64_t in)
{
    if (is_plain(f, rows))
        return 0;
    return (size_t)(mi_quant_chunks(in) * width_of(rows)) * (COLUMNS * 2 + (f.zeros ? 4 * (size_t)groups_of(f) : 0));
}

extern "C" int mi_cuda_quant_split(void *stream, MiQuantForm f, MiTensor x, void *to)
{
    const int64_t rows = x.shape[0], in = x.shape[1], chunks = mi_quant_chunks(in);
    const int     n = width_of(rows);
    float        *sums = f.zeros ? (float *)((char *)to + chunks * n * COLUMNS * 2) : NULL;

    if (x.ndim != 2)
        return cudaErrorInvalidValue;
    if (is_plain(f, rows))
        return 0;
    return mi_launch(arrange, dim3((unsigned)((chunks * n / 8 + 3) / 4)), dim3(128), 0, stream, (const bf16 *)x.data,
                     x.stride[0], (int)rows, (int)in, (char *)to, sums, n, f.group ? f.group : COLUMNS);
}

static int turns_of(int n) { return n == 32 ? TURNS<32> : TURNS<64>; }

template <int BITS> static Kernel kernel_of(int n) { return n == 32 ? products<BITS, 32> : products<BITS, 64>; }

static Kernel kernel_for(MiQuantForm f, int n) { return f.bits == 4 ? kernel_of<4>(n) : kernel_of<8>(n); }

static void lay_out_stage(Product *a, int slice, int n)
{
    a->slice = slice;
    a->x_at = (RECORDS * slice * a->chunk + 127) / 128 * 128;
    a->sums_at = a->x_at + slice * n * COLUMNS * 2;
    a->stage_bytes = (a->sums_at + slice * a->sums_bytes + 127) / 128 * 128;
}

/* Fills what the layout decides; the shared memory, or 0: it does not fit. */
static int lay_out(Product *a, MiQuantForm f, int n, int64_t in, int64_t out)
{
    const mi_boxes::Card &c = mi_boxes::card();

    set_shape(a, f, in, out, c.sms);
    a->sums_bytes = f.zeros ? a->groups * n * (int)sizeof(float) : 0;
    /* A part of the columns has so many chunks at most; a stage is 40 KB or so, and one box. */
    const int share = (a->chunks + a->parts - 1) / a->parts, box = BOX * ELEMENT / a->chunk;
    lay_out_stage(a, 1, n);
    int slice = (40 << 10) / a->stage_bytes;
    slice = slice < box ? slice : box;
    slice = slice < share ? slice : share;
    lay_out_stage(a, slice > 1 ? slice : 1, n);
    a->flight = (56 << 10) / a->stage_bytes;
    a->flight = a->flight > 1 ? a->flight : 1;
    return set_ring(a, n * PITCH * (int)sizeof(float), (turns_of(n) - 1) * n / 2 * THREADS * (int)sizeof(float), c.smem);
}

extern "C" int mi_cuda_quant_rows_takes(MiQuantForm f, int64_t rows, int64_t in, int64_t out)
{
    Product a = {};

    if (!mi_boxes::card().encode || (f.bits != 4 && f.bits != 8) || f.levels || f.scales || rows < 1 || rows > MI_QUANT_MOST ||
        in < 8 || in % 8 || out < 1 || in > 1 << 20 || out > 1 << 24)
        return cudaErrorNotSupported;
    if (is_for_wgmma(f, rows))
        return wgmma_takes(f, rows, in, out);
    if (is_for_mma(f, rows))
        return mma_takes(f, rows, in, out);
    const int n = width_of(rows), bytes = lay_out(&a, f, n, in, out);
    return bytes ? mi_allow_smem(kernel_for(f, n), (size_t)bytes) : (int)cudaErrorNotSupported;
}

extern "C" int mi_cuda_quant_rows(void *stream, MiQuantForm f, MiTensor x, const void *split, const void *w, const float *bias,
                                  MiTensor y)
{
    const int64_t rows = y.shape[0], in = x.shape[1], out = y.shape[1];
    const int     n = width_of(rows);
    Product       a = {};

    if (!mi_boxes::card().encode)
        return cudaErrorNotSupported;
    if (x.ndim != 2)
        return cudaErrorInvalidValue;
    if (is_for_wgmma(f, rows))
        return multiply_by_wgmma(stream, f, x, w, bias, y);
    if (is_for_mma(f, rows))
        return multiply_by_mma(stream, f, x, w, bias, y);
    const int bytes = lay_out(&a, f, n, in, out);
    if (!bytes)
        return cudaErrorNotSupported;
    a.x = (const char *)split;
    a.sums = (const float *)(a.x + (int64_t)a.chunks * n * COLUMNS * 2);
    const int error = set_operands(&a, f, in, w, bias, y);
    if (error)
        return error;
    return mi_launch_clusters(kernel_for(f, n), dim3((unsigned)((out + TILE - 1) / TILE * a.parts)),
                              dim3((unsigned)(turns_of(n) * THREADS + 32)), (unsigned)a.parts, (size_t)bytes, stream, a);
}
