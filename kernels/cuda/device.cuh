/* device.cuh - what the kernels share: dtypes, reductions, launches that overlap
 * the kernel before them (programmatic dependent launch), bulk copies.
 *
 * Every launcher returns 0 or the cudaError_t.  A kernel that is launched by
 * mi_launch() may start while its predecessor still runs: each of its threads
 * calls wait_for_predecessor() before it reads what any earlier kernel wrote, or
 * writes what an earlier one reads.  Weights and the step's metadata, which no
 * kernel writes, may be read before. */
#ifndef KERNELS_CUDA_DEVICE_CUH
#define KERNELS_CUDA_DEVICE_CUH

#include <cstdint>
#include <cstdlib>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#include <miniinfer/types.h>

/* ---- launching ----------------------------------------------------------------- */

/* MI_CUDA_PDL=0: every kernel waits for the one before it, to find races between them. */
static inline bool mi_overlaps()
{
    static const bool on = [] {
        const char *e = getenv("MI_CUDA_PDL");
        return !e || *e != '0';
    }();
    return on;
}

/* kernel<<<grid, block, smem, stream>>>(args...), overlapping its predecessor, in clusters of so many blocks
 * (sm_90; 1 anywhere).  smem above 48 KB is allowed for the kernel once, by mi_allow_smem(). */
template <typename... P, typename... A>
static inline int mi_launch_clusters(void (*kernel)(P...), dim3 grid, dim3 block, unsigned cluster, size_t smem,
                                     void *stream, A... args)
{
    cudaLaunchConfig_t  c = {};
    cudaLaunchAttribute attrs[2] = {};

    c.gridDim = grid;
    c.blockDim = block;
    c.dynamicSmemBytes = smem;
    c.stream = (cudaStream_t)stream;
    c.attrs = attrs;
    if (mi_overlaps()) {
        attrs[c.numAttrs].id = cudaLaunchAttributeProgrammaticStreamSerialization;
        attrs[c.numAttrs++].val.programmaticStreamSerializationAllowed = 1;
    }
    if (cluster > 1) {
        attrs[c.numAttrs].id = cudaLaunchAttributeClusterDimension;
        attrs[c.numAttrs].val.clusterDim.x = cluster;
        attrs[c.numAttrs].val.clusterDim.y = attrs[c.numAttrs].val.clusterDim.z = 1;
        c.numAttrs++;
    }
    const cudaError_t error = cudaLaunchKernelEx(&c, kernel, P(args)...);
    if (error)
        (void)cudaGetLastError(); /* else who asks next is told of it */
    return error;
}

template <typename... P, typename... A>
static inline int mi_launch(void (*kernel)(P...), dim3 grid, dim3 block, size_t smem, void *stream, A... args)
{
    return mi_launch_clusters(kernel, grid, block, 1, smem, stream, args...);
}

/* LOAD side: the kernel's dynamic shared memory may be up to this.  Never lowered: plans of several sizes launch one kernel. */
template <typename... P> static inline int mi_allow_smem(void (*kernel)(P...), size_t bytes)
{
    cudaFuncAttributes now;
    const cudaError_t  error = cudaFuncGetAttributes(&now, kernel);

    if (error || now.maxDynamicSharedSizeBytes >= (int)bytes)
        return error;
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)bytes);
}

#ifdef __CUDACC__

__device__ __forceinline__ void let_successor_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

__device__ __forceinline__ void wait_for_predecessor()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* ---- numbers ------------------------------------------------------------------- */

using bf16 = __nv_bfloat16;

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }
template <typename T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ __half from_float<__half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }

/* Two as one word. */
template <typename T> __device__ __forceinline__ unsigned pack(float low, float high);
template <> __device__ __forceinline__ unsigned           pack<bf16>(float low, float high)
{
    unsigned u;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
    return u;
}
template <> __device__ __forceinline__ unsigned pack<__half>(float low, float high)
{
    unsigned u;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(u) : "f"(high), "f"(low));
    return u;
}

/* Eight elements with one or two 16-byte accesses. */
template <typename T> struct alignas(sizeof(T) * 8 < 16 ? sizeof(T) * 8 : 16) Eight {
    T at[8];
};

/* ---- reductions: fixed order, so that a result is the same in every run ---------- */

__device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v += __shfl_xor_sync(~0u, v, o);
    return v;
}

__device__ __forceinline__ float warp_max(float v)
{
#pragma unroll
    for (int o = 16; o; o >>= 1)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, o));
    return v;
}

/* Of all threads of the block, for all of them; shared: [32].  Two barriers. */
__device__ __forceinline__ float block_sum(float v, float *shared)
{
    const int warps = (blockDim.x + 31) / 32;

    v = warp_sum(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
    for (int i = 0; i < warps; i++)
        v += shared[i];
    return v;
}

__device__ __forceinline__ float block_max(float v, float *shared)
{
    const int warps = (blockDim.x + 31) / 32;

    v = warp_max(v);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        shared[threadIdx.x / 32] = v;
    __syncthreads();
    v = shared[0];
    for (int i = 1; i < warps; i++)
        v = fmaxf(v, shared[i]);
    return v;
}

/* The larger value, of equal ones the lower index. */
__device__ __forceinline__ bool beats(float v, int i, float than_v, int than_i)
{
    return v > than_v || (v == than_v && i < than_i);
}

/* ---- shared memory, barriers and bulk copies (sm_90) ------------------------------- */

__device__ __forceinline__ unsigned shared_address(const void *p) { return (unsigned)__cvta_generic_to_shared(p); }

/* Of shared memory: an f16, two f32. */
__device__ __forceinline__ float half_at(unsigned at)
{
    unsigned short h;
    asm volatile("ld.shared.u16 %0, [%1];" : "=h"(h) : "r"(at));
    return __half2float(__ushort_as_half(h));
}

__device__ __forceinline__ float2 pair_at(unsigned at)
{
    float2 f;
    asm volatile("ld.shared.v2.f32 {%0,%1}, [%2];" : "=f"(f.x), "=f"(f.y) : "r"(at));
    return f;
}

#if __CUDA_ARCH__ >= 900
__device__ __forceinline__ void barrier_init(uint64_t *b, int arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
/* After barrier_init(), before anybody else uses the barriers. */
__device__ __forceinline__ void barrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void barrier_arrive(uint64_t *b)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
__device__ __forceinline__ void barrier_expect(uint64_t *b, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes) : "memory");
}
__device__ __forceinline__ bool barrier_done(uint64_t *b, unsigned parity)
{
    unsigned done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done)
                 : "r"(shared_address(b)), "r"(parity)
                 : "memory");
    return done;
}
__device__ __forceinline__ void barrier_wait(uint64_t *b, unsigned parity)
{
    while (!barrier_done(b, parity)) {
    }
}
/* The barrier of a cluster's blocks, whose warps come there whole; wait() follows one of the two. */
__device__ __forceinline__ void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
/* Nothing written before is to be seen by who waits: that this block is there, or done with its memory. */
__device__ __forceinline__ void cluster_here() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
__device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
/* The same place of another block's shared memory. */
__device__ __forceinline__ unsigned in_block(unsigned address, unsigned rank)
{
    unsigned there;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
    return there;
}
/* At a barrier there. */
__device__ __forceinline__ void arrive_there(unsigned barrier)
{
    asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
/* bytes: a multiple of 16; both sides 16-byte aligned (128 is faster). */
__device__ __forceinline__ void bulk_load(void *dst, const void *src, unsigned bytes, uint64_t *bar)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
                     shared_address(dst)),
                 "l"(src), "r"(bytes), "r"(shared_address(bar))
                 : "memory");
}
__device__ __forceinline__ uint64_t evict_first_policy()
{
    uint64_t p;
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(p));
    return p;
}
__device__ __forceinline__ void bulk_load_once(void *dst, const void *src, unsigned bytes, uint64_t *bar, uint64_t policy)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;" ::"r"(
                     shared_address(dst)),
                 "l"(src), "r"(bytes), "r"(shared_address(bar)), "l"(policy)
                 : "memory");
}
#endif

#endif
#endif
