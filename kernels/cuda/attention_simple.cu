/* attention_simple.cu - attention as written in the paper: a block for each row and
 * head, keys in chunks of one a thread, a running softmax in f32.
 *
 * Every layout goes through mi_kv_offset(); the fast kernels are tested against it. */
#include <cuda/attention.h>
#include <cuda/device.cuh>
#include <cuda/scaled.cuh>

namespace {

constexpr int THREADS = 128;

/* The sequence that owns a row; -1: none, the row is padding. */
__device__ int sequence_of(const MiBatch &b, int row)
{
    for (int s = 0; s < b.shape.n_seqs; s++)
        if (row < b.seq_start[s + 1])
            return row >= b.seq_start[s] ? s : -1;
    return -1;
}

/* The physical positions that a row sees. */
__device__ void keys_of(const MiCudaAttention &a, int seq, int row, int *first, int *end)
{
    const int start = a.kv.kv_start ? a.kv.kv_start[seq] : 0, len = a.kv.kv_len[seq];
    const int seen = start + a.batch.positions[row] + 1;

    *first = a.window ? max(start, seen - a.window) : start;
    *end = a.bidirectional ? len : min(seen, len);
}

/* Of a head that begins at an offset, and what its elements are to be multiplied with. */
template <typename K> __device__ __forceinline__ float element(const K *x)
{
    if constexpr (SCALED<K>)
        return number(*x);
    else
        return to_float(*x);
}
template <typename K> __device__ __forceinline__ float scale_at(const MiKvView &kv, int side, int64_t at)
{
    if constexpr (SCALED<K>)
        return __uint_as_float((unsigned)((const unsigned short *)kv.scales)[at / kv.head_dim * 2 + side] << 16);
    return 1;
}

template <typename Q, typename K>
__global__ void __launch_bounds__(THREADS) attend(const __grid_constant__ MiCudaAttention a)
{
    __shared__ float q[MI_CUDA_ATTENTION_MAX_DIM], weight[THREADS], shared[32];
    const int        row = blockIdx.x, head = blockIdx.y, dim = a.kv.head_dim, tid = threadIdx.x;
    const int        kv_head = head / ((int)a.q.shape[1] / a.kv.n_kv_heads), seq = sequence_of(a.batch, row);
    int              first = 0, end = 0;
    float            max = -INFINITY, sum = 0, out[MI_CUDA_ATTENTION_MAX_DIM / THREADS] = {};

    let_successor_start();
    if (seq >= 0)
        keys_of(a, seq, row, &first, &end);
    wait_for_predecessor();
    for (int d = tid; d < dim; d += THREADS)
        q[d] = to_float(((const Q *)a.q.data)[row * a.q.stride[0] + head * a.q.stride[1] + d]);
    __syncthreads();
    for (int t0 = first; t0 < end; t0 += THREADS) {
        const int t = t0 + tid, n = min(THREADS, end - t0);
        float     score = -INFINITY;
        if (t < end) {
            const int64_t at = mi_kv_offset(&a.kv, seq, t, kv_head);
            const K      *k = (const K *)a.kv.k + at;
            score = 0;
            for (int d = 0; d < dim; d++)
                score = fmaf(q[d], element(k + d), score);
            score *= a.scale * scale_at<K>(a.kv, 0, at);
            if (a.softcap > 0)
                score = a.softcap * tanhf(score / a.softcap);
        }
        const float top = fmaxf(max, block_max(score, shared)), keep = expf(max - top),
                    w = t < end ? expf(score - top) : 0;
        sum = sum * keep + block_sum(w, shared);
        max = top;
        weight[tid] = w;
        __syncthreads();
        for (int i = 0, d = tid; d < dim; i++, d += THREADS) {
            out[i] *= keep;
            for (int j = 0; j < n; j++) {
                const int64_t at = mi_kv_offset(&a.kv, seq, t0 + j, kv_head);
                out[i] = fmaf(weight[j] * scale_at<K>(a.kv, 1, at), element((const K *)a.kv.v + at + d), out[i]);
            }
        }
        __syncthreads();
    }
    for (int i = 0, d = tid; d < dim; i++, d += THREADS) /* no keys: zeros */
        ((Q *)a.out.data)[row * a.out.stride[0] + head * a.out.stride[1] + d] =
            from_float<Q>(sum > 0 ? out[i] / sum : 0);
}

template <typename Q, typename K> int launch(void *stream, const MiCudaAttention *a)
{
    return mi_launch(attend<Q, K>, dim3((unsigned)a->batch.shape.n_tokens, (unsigned)a->q.shape[1]), THREADS, 0, stream,
                     *a);
}

template <typename Q> int launch(void *stream, const MiCudaAttention *a)
{
    switch (a->kv.dtype) {
    case MI_F32:
        return launch<Q, float>(stream, a);
    case MI_F16:
        return launch<Q, __half>(stream, a);
    case MI_BF16:
        return launch<Q, bf16>(stream, a);
    case MI_F8:
        return launch<Q, F8>(stream, a);
    case MI_I8:
        return launch<Q, I8>(stream, a);
    default:
        return cudaErrorNotSupported;
    }
}

} // namespace

extern "C" int mi_cuda_attention_simple(void *stream, const MiCudaAttention *a)
{
    if (a->kv.head_dim > MI_CUDA_ATTENTION_MAX_DIM || a->q.dtype != a->out.dtype)
        return cudaErrorNotSupported;
    switch (a->q.dtype) {
    case MI_F32:
        return launch<float>(stream, a);
    case MI_F16:
        return launch<__half>(stream, a);
    case MI_BF16:
        return launch<bf16>(stream, a);
    default:
        return cudaErrorNotSupported;
    }
}
