/* quant_rows_wgmma.cu - the products of quant_rows.h for 17 to 64 rows and 4 bit without zeros, by wgmma.
 *
 * Two records of W are 16 rows of a warp's share of wgmma.m64nNk16, whose first operand is in registers: integers as bf16, exact.
 * x is the second as it lies in shared memory, boxes of 64 columns that a tensor map swizzles, so there is no kernel before this one.
 * Of 16 columns a lane then has two of each eight, and not the eight that the packed form gives it: it reads what all four lanes of
 * its row have, and takes two of the eight codes of each word.
 *
 * Two groups of warps take chunks in turns, so that one unpacks while the other multiplies.  W and x have rings of their own, each
 * with a thread that requests: whatever is read waits behind what the memory has been asked for. */
#include "quant_shares.cuh"
#include "wgmma.cuh"

using namespace mi_quant_rows;

constexpr int WARPS = TILE / 16, THREADS = WARPS * 32, TURNS = 2, REQUESTERS = 128; /* warps and threads of a turn */
template <int N> constexpr int X_BYTES = N *COLUMNS * 2;                              /* of a chunk */

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

constexpr int X_FULL = 2 * RING * 8, X_FREED = 3 * RING * 8; /* barriers in shared memory */

/* A place in a ring, and how often it has gone round. */
struct Turn {
    int slot = 0, phase = 0;
    __device__ __forceinline__ void on(int by, int stages)
    {
        slot += by;
        if (slot >= stages)
            slot -= stages, phase ^= 1;
    }
};

/* As much as the ring holds before the predecessor is done. */
__device__ __forceinline__ void request_w(const Product &a, char *smem, int first, int n)
{
    const int      octet = (int)(blockIdx.x / a.parts) * RECORDS;
    const uint64_t policy = evict_first_policy();
    Turn           at;

    for (int c = 0, i = 0; c < n; c += a.slice, i++) {
        uint64_t *full = (uint64_t *)(smem + FULL) + at.slot;
        if (i >= a.stages)
            barrier_wait((uint64_t *)(smem + FREED) + at.slot, at.phase ^ 1);
        barrier_expect(full, RECORDS * a.slice * a.chunk); /* what is outside of the matrix comes as zeros */
        load_box(smem + START + at.slot * a.stage_bytes, &a.map, (first + c) * (a.chunk / ELEMENT), octet, full, policy);
        at.on(1, a.stages);
    }
}

template <int N> __device__ __forceinline__ void request_x(const Product &a, char *smem, int first, int n)
{
    Turn at;

    fetch_map(&a.map_x);
    wait_for_predecessor();
    for (int c = 0; c < n; c++) {
        uint64_t *full = (uint64_t *)(smem + X_FULL) + at.slot;
        char     *to = smem + a.x_at + at.slot * X_BYTES<N>;
        const int box = (first + c) * 2;
        if (c >= a.x_stages)
            barrier_wait((uint64_t *)(smem + X_FREED) + at.slot, at.phase ^ 1);
        barrier_expect(full, X_BYTES<N>);
        for (int i = 0; i < 2; i += a.boxes)
            load_boxes(to + i * (X_BYTES<N> / 2), &a.map_x, a.boxes > 1 ? 0 : (box + i) * BOX_COLUMNS, a.boxes > 1 ? box + i : 0, full);
        at.on(1, a.x_stages);
    }
}

/* Of a word of eight columns each of two units, columns 2 t and 2 t + 1 of the first and of the second.  pick: which bytes; high: which
 * halves of them. */
__device__ __forceinline__ void widen_two(unsigned one, unsigned other, unsigned pick, int high, unsigned &first, unsigned &second)
{
    const unsigned n = (__byte_perm(one, other, pick) >> high & 0x0f0f0f0f) ^ 0x08080808;

    first = nibbles_at(n, 0);
    second = nibbles_at(n, 2);
}

__device__ __forceinline__ uint2 load_shared_two(unsigned at)
{
    uint2 v;
    asm volatile("ld.shared.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(at));
    return v;
}

/* Half of a chunk's steps of 16 columns, of rows at p and q.  Of groups: its half of the columns; else every second step. */
template <int GROUPS> __device__ __forceinline__ void load_half(unsigned p, unsigned q, int half, unsigned pick, int high, unsigned (&a)[4][4])
{
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const unsigned at = r ? q : p;
        if constexpr (GROUPS == 1) {
            const uint4     v[2] = {load_shared(at + half * 32), load_shared(at + half * 32 + 16)};
            const unsigned *one = (const unsigned *)&v[0], *other = (const unsigned *)&v[1];
#pragma unroll
            for (int s = 0; s < 4; s++) {
                widen_two(one[s], other[s], pick, high, a[s][r], a[s][2 + r]);
            }
        } else {
            uint2 v[4];
#pragma unroll
            for (int t = 0; t < 4; t++) {
                v[t] = load_shared_two(at + t * 16 + half * 8);
            }
#pragma unroll
            for (int s = 0; s < 4; s++) {
                const uint2 one = v[s % 2 * 2], other = v[s % 2 * 2 + 1];
                widen_two(s / 2 ? one.y : one.x, s / 2 ? other.y : other.x, pick, high, a[s][r], a[s][2 + r]);
            }
        }
    }
}

/* GROUPS: of columns with a scale each, of a chunk. */
template <int GROUPS, int N>
__global__ void __launch_bounds__(TURNS *THREADS + REQUESTERS, 1) products_by_wgmma(const __grid_constant__ Product a)
{
    extern __shared__ __align__(1024) char smem[];
    constexpr int VALUES = 4 * OCTET * COLUMNS / 8, PIECES = GROUPS == 1 ? 2 : GROUPS, STEPS = 8 / PIECES;
    const int     tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4;
    const int     part = blockIdx.x % a.parts, first = a.chunks * part / a.parts, n = a.chunks * (part + 1) / a.parts - first;

    let_successor_start();
    if (tid < 4 * 32) { /* a warp for each list */
        if (lane < (tid < 64 ? a.stages : a.x_stages))
            barrier_init((uint64_t *)smem + tid / 32 * RING + lane, tid / 32 % 2 == 0 ? 1 : tid < 64 ? a.slice * WARPS : WARPS);
        if (tid == 0) {
            barrier_init((uint64_t *)(smem + DONE), 1);
            barrier_expect((uint64_t *)(smem + DONE), TURNS * N * THREADS * 2);
        }
        barrier_init_done();
    }
    __syncthreads();
    cluster_here();
    /* What a block's 640 threads are launched with, 96 registers each, is all there is: 512 x 112 + 128 x 32. */
    if (tid >= TURNS * THREADS) {
        asm volatile("setmaxnreg.dec.sync.aligned.u32 32;");
        if (tid == TURNS * THREADS)
            request_w(a, smem, first, n);
        else if (tid == TURNS * THREADS + 32)
            request_x<N>(a, smem, first, n);
        __syncwarp();
        cluster_wait();
    } else {
        asm volatile("setmaxnreg.inc.sync.aligned.u32 112;");
        const int      warp = __shfl_sync(~0u, tid / 32 % WARPS, 0), turn = __shfl_sync(~0u, tid / THREADS, 0), high = t / 2 * 4;
        const unsigned pick = t % 2 ? 0x7632 : 0x5410, smem_at = shared_address(smem);
        float          y[N / 2] = {}, d[N / 2];
        Turn           of_w, of_x;

        const bool     both = a.slice == TURNS; /* a stage of W has a chunk for each turn, else one */
        of_x.on(turn, a.x_stages);
        of_w.on(both ? 0 : turn, a.stages);
#pragma unroll 1
        for (int c = turn; c < n; c += TURNS) {
            const unsigned p = smem_at + START + of_w.slot * a.stage_bytes + (2 * warp * a.slice + (both ? turn : 0)) * a.chunk;
            const unsigned q = p + a.slice * a.chunk;
            const uint64_t x = wgmma_operand(smem_at + a.x_at + of_x.slot * X_BYTES<N>, 0);
            unsigned       of[2][4][4];
            float          scale[GROUPS][2];

            barrier_wait((uint64_t *)(smem + FULL) + of_w.slot, of_w.phase);
            load_half<GROUPS>(p + g * 64, q + g * 64, 0, pick, high, of[0]);
#pragma unroll
            for (int i = 0; i < GROUPS; i++) {
                scale[i][0] = half_at(p + VALUES + (i * OCTET + g) * 2);
                scale[i][1] = half_at(q + VALUES + (i * OCTET + g) * 2);
            }
            barrier_wait((uint64_t *)(smem + X_FULL) + of_x.slot, of_x.phase);
#pragma unroll
            for (int k = 0; k < PIECES; k++) {
                wgmma_begin();
#pragma unroll
                for (int s = 0; s < STEPS; s++) {
                    const int half = k * 2 / PIECES, i = k * STEPS % 4 + s, step = GROUPS == 1 ? 2 * i + half : half * 4 + i;
                    Mma<N>::run(d, of[half][i], wgmma_ahead(x, step / 4 * (X_BYTES<N> / 2) + step % 4 * 32), s || (GROUPS == 1 && k));
                }
                wgmma_commit();
                if (k == 0) {
                    load_half<GROUPS>(p + g * 64, q + g * 64, 1, pick, high, of[1]);
                    __syncwarp();
                    if (lane == 0)
                        barrier_arrive((uint64_t *)(smem + FREED) + of_w.slot);
                }
                if (GROUPS > 1 || k == PIECES - 1) {
                    wgmma_wait<0>();
                    wgmma_settle(d);
#pragma unroll
                    for (int i = 0; i < N / 2; i++)
                        y[i] = fmaf(scale[GROUPS == 1 ? 0 : k][i / 2 % 2], d[i], y[i]);
                }
            }
            if (lane == 0)
                barrier_arrive((uint64_t *)(smem + X_FREED) + of_x.slot);
            of_x.on(TURNS, a.x_stages);
            of_w.on(both ? 1 : TURNS, a.stages);
        }
        cluster_wait(); /* all are there */
        give<TURNS, N, 1, THREADS>(a, smem, y);
        finish<TURNS, N, 1, THREADS>(a, smem);
    }
}

#else

template <int GROUPS, int N> __global__ void products_by_wgmma(const __grid_constant__ Product a) { (void)a; }

#endif

/* ---- launching -------------------------------------------------------------------------------------- */

template <int N> static Kernel kernel_of(MiQuantForm f)
{
    return f.group == COLUMNS       ? products_by_wgmma<1, N>
           : f.group == COLUMNS / 2 ? products_by_wgmma<2, N>
                                    : products_by_wgmma<4, N>;
}

static Kernel kernel_for(MiQuantForm f, int n) { return n == 32 ? kernel_of<32>(f) : kernel_of<64>(f); }

/* Three stages of W, with two chunks of a record each where there are so many: more are slower, since x waits behind them.  The rest of
 * the memory is x's. */
static int lay_out(Product *a, MiQuantForm f, int n, int64_t in, int64_t out)
{
    const mi_boxes::Card &c = mi_boxes::card();
    const int             shares = TURNS * n * THREADS * 2, of_x = n * COLUMNS * 2;

    set_shape(a, f, in, out, c.sms);
    const int share = (a->chunks + a->parts - 1) / a->parts, least = share < TURNS ? share : TURNS;
    a->slice = least;
    a->stage_bytes = RECORDS * a->slice * a->chunk;
    const int needed = (share + a->slice - 1) / a->slice;
    a->stages = needed < 3 ? needed : 3;
    a->x_at = (START + a->stages * a->stage_bytes + 1023) / 1024 * 1024;
    a->x_stages = (c.smem - a->x_at - shares) / of_x;
    a->x_stages = a->x_stages < RING ? a->x_stages : RING;
    a->x_stages = a->x_stages < share ? a->x_stages : share;
    a->boxes = in % BOX_COLUMNS ? 1 : 2;
    a->shares = a->x_at + a->x_stages * of_x;
    return a->x_stages < least ? 0 : a->shares + shares;
}

bool mi_quant_rows::is_for_wgmma(MiQuantForm f, int64_t rows)
{
    return f.bits == 4 && !f.zeros && f.group >= 32 && f.group <= COLUMNS && rows > 16;
}

int mi_quant_rows::wgmma_takes(MiQuantForm f, int64_t rows, int64_t in, int64_t out)
{
    Product   a = {};
    const int n = width_of(rows), bytes = lay_out(&a, f, n, in, out);

    return bytes ? mi_allow_smem(kernel_for(f, n), (size_t)bytes) : (int)cudaErrorNotSupported;
}

int mi_quant_rows::multiply_by_wgmma(void *stream, MiQuantForm f, MiTensor x, const void *w, const float *bias, MiTensor y)
{
    Product   a = {};
    const int n = width_of(x.shape[0]), bytes = lay_out(&a, f, n, x.shape[1], y.shape[1]);

    return start(stream, {kernel_for(f, n), n, TURNS * THREADS + REQUESTERS, bytes}, &a, f, x, w, bias, y);
}
