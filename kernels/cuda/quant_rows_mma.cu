/* quant_rows_mma.cu - the products of quant_rows.h for 16 rows, and of 8 bit with a scale a row for all 64, by mma.m16n8k16.
 *
 * x is read as it is: of a chunk's 32 columns a lane has the eight that the packed form gives it, one load from shared memory,
 * and which of them are a step's is the same for W and x.  So there is no kernel before this one.  Boxes of x are
 * 64 columns, swizzled over 128 bytes; a column of the operand is the row of x that makes loads free of bank conflicts.
 * Warps take chunks in turns, each with 32 rows of W, so that x is read four times from shared memory and not eight.
 * Sums of x, where there are zeros, are what a matrix of ones gives. */
#include "quant_shares.cuh"

using namespace mi_quant_rows;

constexpr int ROWS = 32, DUOS = ROWS / 16, GROUPS = TILE / ROWS, THREADS = GROUPS * 32; /* of a warp; of a turn */
/* Turns as registers suffice for.  Behind their warps are two that request W and x, with two more where they give up registers, which
 * only four warps together do. */
template <bool ANY, int N> constexpr int TURNS = N == 64 ? 2 : N == 32 || ANY ? 3 : 4;
template <int N> constexpr int REQUESTERS = N == 64 ? 128 : 64;
template <int N> constexpr int BOX_BYTES = N *BOX_COLUMNS * 2;

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* A thread for each: boxes of W, as many as the ring holds before the predecessor is done; of x. */
__device__ __forceinline__ void request_w(const Product &a, char *smem, int first, int n)
{
    const int      octet = (int)(blockIdx.x / a.parts) * RECORDS, stages = (n + a.slice - 1) / a.slice;
    const uint64_t policy = evict_first_policy();

    for (int s = 0; s < stages; s++) {
        const int slot = s % a.stages;
        uint64_t *full = (uint64_t *)(smem + FULL) + slot;
        if (s >= a.stages)
            barrier_wait((uint64_t *)(smem + FREED) + slot, (s / a.stages - 1) & 1);
        /* Whole boxes: what is outside of the matrix comes as zeros. */
        barrier_expect(full, RECORDS * a.slice * a.chunk);
        load_box(smem + START + slot * a.stage_bytes, &a.map, (first + s * a.slice) * (a.chunk / ELEMENT), octet, full, policy);
    }
}

template <int N> __device__ __forceinline__ void request_x(const Product &a, char *smem, int first, int n)
{
    const int stages = (n + a.slice - 1) / a.slice, boxes = 2 * a.slice;

    fetch_map(&a.map_x);
    wait_for_predecessor();
    for (int s = 0; s < stages; s++) {
        const int slot = s % a.stages, box = (first + s * a.slice) * (COLUMNS / BOX_COLUMNS);
        uint64_t *full = (uint64_t *)(smem + FULL) + slot;
        char     *to = smem + START + slot * a.stage_bytes + a.x_at;
        if (s >= a.stages)
            barrier_wait((uint64_t *)(smem + FREED) + slot, (s / a.stages - 1) & 1);
        barrier_expect(full, boxes * BOX_BYTES<N>);
        for (int i = 0; i < boxes; i += a.boxes)
            load_boxes(to + i * BOX_BYTES<N>, &a.map_x, a.boxes > 1 ? 0 : (box + i) * BOX_COLUMNS, a.boxes > 1 ? box + i : 0, full);
    }
}

/* Of a group of columns; x: of x alone, where there are zeros. */
template <int N> struct Sums {
    float of[DUOS][N / 8][4], x[N / 8][4];
};

/* Quarter j of a chunk's columns, two steps. */
template <int BITS, bool ANY, int N>
__device__ __forceinline__ void multiply_quarter(Sums<N> &d, const uint4 (&w)[2 * DUOS][BITS / 4], unsigned x, int j, bool sums)
{
    unsigned v[2][DUOS][4];

#pragma unroll
    for (int h = 0; h < 2; h++) {
#pragma unroll
        for (int i = 0; i < DUOS; i++) {
            widen<BITS>(w[2 * i], 2 * j + h, v[h][i][0], v[h][i][2]);
            widen<BITS>(w[2 * i + 1], 2 * j + h, v[h][i][1], v[h][i][3]);
        }
    }
#pragma unroll
    for (int e = 0; e < N / 8; e++) {
        const uint4     u = load_shared((j % 2 ? x ^ 64 : x) + j / 2 * BOX_BYTES<N> + e * 8 * 128);
        const unsigned *of = (const unsigned *)&u;
#pragma unroll
        for (int h = 0; h < 2; h++) {
#pragma unroll
            for (int i = 0; i < DUOS; i++)
                mma<bf16>(d.of[i][e], v[h][i][0], v[h][i][1], v[h][i][2], v[h][i][3], of[2 * h], of[2 * h + 1]);
            if (ANY && sums) {
                constexpr unsigned ONES = 0x3f803f80;
                mma<bf16>(d.x[e], ONES, ONES, ONES, ONES, of[2 * h], of[2 * h + 1]);
            }
        }
    }
}

/* What a group of columns gives, to y[duo][eight rows of x][as mma has them]: scales at `scales` of the first record, `apart`
 * bytes to the next. */
template <bool PER_ROW, bool ANY, int N>
__device__ __forceinline__ void add_group(const Product &a, Sums<N> &d, unsigned scales, unsigned apart, int group,
                                          const float *row_zero, float *y)
{
#pragma unroll
    for (int r = 0; r < 2 * DUOS; r++) {
        float scale = 1, zero = PER_ROW ? row_zero[r] : 0;
        if (!PER_ROW || (ANY && !a.per_row)) {
            scale = half_at(scales + r * apart + group * OCTET * 2);
            if (ANY && a.zeros) {
                const float z = half_at(scales + r * apart + (a.groups + group) * OCTET * 2);
                zero = a.minima ? fmaf(8, scale, z) : scale * z;
            }
        }
#pragma unroll
        for (int e = 0; e < N / 8; e++) {
#pragma unroll
            for (int k = 0; k < 2; k++) {
                float *to = y + (r / 2 * (N / 8) + e) * 4 + r % 2 * 2 + k;
                *to = fmaf(scale, d.of[r / 2][e][r % 2 * 2 + k], *to);
                if (ANY && a.zeros)
                    *to = fmaf(zero, d.x[e][k], *to);
            }
        }
    }
    d = {};
}

/* ANY: groups, zeros; else a scale for the chunk (4 bit) or the row (8 bit). */
template <int BITS, bool ANY, int N>
__global__ void __launch_bounds__(TURNS<ANY, N> *THREADS + REQUESTERS<N>, 1) products_by_mma(const __grid_constant__ Product a)
{
    extern __shared__ __align__(1024) char smem[];
    constexpr int VALUES = BITS * OCTET * COLUMNS / 8, MINE = TURNS<ANY, N>, WARPS = MINE * GROUPS, OF_LANE = DUOS * N / 2;
    const int     tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4, warp = tid / 32;
    const int     group = warp % GROUPS, turn = warp / GROUPS, part = blockIdx.x % a.parts, tile = blockIdx.x / a.parts;
    const int     first = a.chunks * part / a.parts, n = a.chunks * (part + 1) / a.parts - first;
    const bool    per_row = BITS == 8 && (!ANY || a.per_row);

    let_successor_start();
    if (tid < a.stages) {
        barrier_init((uint64_t *)(smem + FULL) + tid, 2);
        barrier_init((uint64_t *)(smem + FREED) + tid, WARPS);
        if (tid == 0) {
            barrier_init((uint64_t *)(smem + DONE), 1);
            barrier_expect((uint64_t *)(smem + DONE), MINE * N * THREADS * DUOS * 2);
        }
        barrier_init_done();
    }
    __syncthreads();
    cluster_here();
    if (warp >= WARPS) {
        if (N == 64)
            asm volatile("setmaxnreg.dec.sync.aligned.u32 40;");
        if (lane == 0 && warp == WARPS)
            request_w(a, smem, first, n);
        else if (lane == 0 && warp == WARPS + 1)
            request_x<N>(a, smem, first, n);
        __syncwarp();
        cluster_wait();
    } else {
        if (N == 64)
            asm volatile("setmaxnreg.inc.sync.aligned.u32 232;");
        float y[OF_LANE] = {}, row_scale[2 * DUOS] = {}, row_zero[2 * DUOS] = {};
        if (per_row) {
#pragma unroll
            for (int r = 0; r < 2 * DUOS; r++) {
                const int octet = (tile * TILE + group * ROWS) / OCTET + r;
                if (octet * OCTET < a.out) {
                    const float *end = (const float *)(a.w + octet * a.record + (int64_t)a.chunks * a.chunk);
                    row_scale[r] = end[g];
                    row_zero[r] = ANY && a.zeros ? end[OCTET + g] : 0;
                }
            }
        }
        /* Column g of the operand is row g / 2 of x, or that and four: rows of one load lie in both halves of their 128 bytes. */
        const int      row = g / 2 + g % 2 * 4;
        const unsigned of_x = a.x_at + row * 128 + (t ^ row) * 16;
        const unsigned of_w = group * (ROWS / OCTET) * a.slice * a.chunk + lane * 16, apart = a.slice * a.chunk;
        Sums<N>        over = {}; /* of more than a chunk, where scales are of rows */
        int            next = turn; /* chunk of mine */
#pragma unroll 1
        for (int s = 0, slot = 0, phase = 0; s * a.slice < n; s++) {
            const unsigned at = shared_address(smem) + START + slot * a.stage_bytes;
            const int      end = min((s + 1) * a.slice, n);
            barrier_wait((uint64_t *)(smem + FULL) + slot, phase);
#pragma unroll 1
            for (; next < end; next += MINE) {
                const int      c = next - s * a.slice;
                const unsigned p = at + of_w + c * a.chunk, x = at + of_x + c * 2 * BOX_BYTES<N>;
                const unsigned scales = p - lane * 16 + VALUES + g * 2;
                Sums<N>        alone = {}, &d = BITS == 8 && !ANY ? over : alone;
                uint4          w[2 * DUOS][BITS / 4];
#pragma unroll
                for (int r = 0; r < 2 * DUOS; r++) {
#pragma unroll
                    for (int i = 0; i < BITS / 4; i++)
                        w[r][i] = load_shared(p + r * apart + i * 512);
                }
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    multiply_quarter<BITS, ANY, N>(d, w, x, j, ANY && a.zeros);
                    if (ANY && (j + 1) * a.groups % 4 == 0)
                        add_group<BITS == 8, ANY, N>(a, d, scales, apart, (j + 1) * a.groups / 4 - 1, row_zero, y);
                }
                if (!ANY && BITS == 4)
                    add_group<false, false, N>(a, d, scales, apart, 0, row_zero, y);
            }
            __syncwarp();
            if (lane == 0)
                barrier_arrive((uint64_t *)(smem + FREED) + slot);
            if (++slot == a.stages) {
                slot = 0;
                phase ^= 1;
            }
        }
        if (!ANY && BITS == 8)
            add_group<true, false, N>(a, over, 0, 0, 0, row_zero, y);
        if (per_row) {
#pragma unroll
            for (int k = 0; k < OF_LANE; k++)
                y[k] *= row_scale[k / (N / 2) * 2 + k / 2 % 2];
        }
        cluster_wait(); /* all are there */
        give<MINE, N, DUOS, THREADS>(a, smem, y);
        finish<MINE, N, DUOS, THREADS>(a, smem);
    }
}

#else

template <int BITS, bool ANY, int N> __global__ void products_by_mma(const __grid_constant__ Product a) { (void)a; }

#endif

/* ---- launching -------------------------------------------------------------------------------------- */

static int narrow_of(int64_t rows) { return rows <= 16 ? 16 : width_of(rows); }

static int turns_of(MiQuantForm f, int n)
{
    return n == 64 ? TURNS<false, 64> : n == 32 ? TURNS<false, 32> : is_usual(f) ? TURNS<false, 16> : TURNS<true, 16>;
}

template <int BITS> static Kernel kernel_of_16(MiQuantForm f)
{
    return is_usual(f) ? products_by_mma<BITS, false, 16> : products_by_mma<BITS, true, 16>;
}

static Kernel kernel_for(MiQuantForm f, int n)
{
    return n == 64       ? products_by_mma<8, false, 64>
           : n == 32     ? products_by_mma<8, false, 32>
           : f.bits == 4 ? kernel_of_16<4>(f)
                         : kernel_of_16<8>(f);
}

/* A stage is so much, since short pieces of W's records are slow, and one box of W. */
static int lay_out(Product *a, MiQuantForm f, int n, int64_t in, int64_t out)
{
    const mi_boxes::Card &c = mi_boxes::card();
    auto                  stage = [&](int slice) {
        a->slice = slice;
        a->x_at = (RECORDS * slice * a->chunk + 1023) / 1024 * 1024;
        a->stage_bytes = a->x_at + slice * 2 * n * BOX_COLUMNS * 2;
    };

    set_shape(a, f, in, out, c.sms);
    stage(1);
    const int share = (a->chunks + a->parts - 1) / a->parts, box = BOX * ELEMENT / a->chunk;
    int       slice = ((f.bits == 4 ? 56 : 40) << 10) / a->stage_bytes;
    slice = slice < box ? slice : box;
    slice = slice < share ? slice : share;
    stage(slice > 1 ? slice : 1);
    a->boxes = in % BOX_COLUMNS ? 1 : 2 * a->slice;
    return set_ring(a, turns_of(f, n) * n * THREADS * DUOS * 2, 0, c.smem);
}

bool mi_quant_rows::is_for_mma(MiQuantForm f, int64_t rows) { return rows <= (f.bits == 8 && is_usual(f) ? MI_QUANT_MOST : 16); }

int mi_quant_rows::mma_takes(MiQuantForm f, int64_t rows, int64_t in, int64_t out)
{
    Product   a = {};
    const int n = narrow_of(rows), bytes = lay_out(&a, f, n, in, out);

    return bytes ? mi_allow_smem(kernel_for(f, n), (size_t)bytes) : (int)cudaErrorNotSupported;
}

/* Boxes of 64 columns of x and n rows, several in one request where rows are whole boxes: what is beyond the edges is 0. */
static int describe_x(Product *a, MiTensor x, int n)
{
    const bool       whole = a->boxes > 1;
    const cuuint64_t far = (cuuint64_t)x.stride[0] * 2, columns = (cuuint64_t)x.shape[1];
    const cuuint64_t shape[3] = {whole ? BOX_COLUMNS : columns, (cuuint64_t)x.shape[0], whole ? columns / BOX_COLUMNS : 1};
    const cuuint64_t stride[2] = {far, BOX_COLUMNS * 2};
    const cuuint32_t box[3] = {BOX_COLUMNS, (cuuint32_t)n, (cuuint32_t)a->boxes}, each[3] = {1, 1, 1};

    return mi_boxes::card().encode(&a->map_x, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, x.data, shape, stride, box, each,
                                   CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
               ? cudaErrorInvalidValue
               : 0;
}

int mi_quant_rows::start(void *stream, Launch l, Product *a, MiQuantForm f, MiTensor x, const void *w, const float *bias, MiTensor y)
{
    if (!l.bytes)
        return cudaErrorNotSupported;
    int error = set_operands(a, f, x.shape[1], w, bias, y);
    error = error ? error : describe_x(a, x, l.n);
    if (error)
        return error;
    return mi_launch_clusters(l.kernel, dim3((unsigned)((y.shape[1] + TILE - 1) / TILE * a->parts)), dim3((unsigned)l.threads),
                              (unsigned)a->parts, (size_t)l.bytes, stream, *a);
}

int mi_quant_rows::multiply_by_mma(void *stream, MiQuantForm f, MiTensor x, const void *w, const float *bias, MiTensor y)
{
    Product   a = {};
    const int n = narrow_of(x.shape[0]), bytes = lay_out(&a, f, n, x.shape[1], y.shape[1]);

    const int threads = turns_of(f, n) * THREADS + (n == 64 ? REQUESTERS<64> : REQUESTERS<32>);
    return start(stream, {kernel_for(f, n), n, threads, bytes}, &a, f, x, w, bias, y);
}
