/* boxes.cuh - matrices as the tensor copies of compute capability 9.0 see them, and what a launcher must know of the card. */
#ifndef KERNELS_CUDA_BOXES_CUH
#define KERNELS_CUDA_BOXES_CUH

#include "device.cuh"
#include <cuda.h>

namespace mi_boxes
{

using Encode = CUresult (*)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,
                            const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,
                            CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

struct Card {
    int    sms = 0, smem = 0; /* of a block */
    Encode encode = nullptr;
};

/* encode NULL: not such a card. */
static inline const Card &card()
{
    static const Card c = [] {
        Card                            x;
        int                             device = 0, major = 0;
        void                           *f = nullptr;
        cudaDriverEntryPointQueryResult found;
        if (!cudaGetDevice(&device) && !cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) &&
            major == 9 && !cudaDeviceGetAttribute(&x.smem, cudaDevAttrMaxSharedMemoryPerBlockOptin, device) &&
            !cudaDeviceGetAttribute(&x.sms, cudaDevAttrMultiProcessorCount, device) &&
            !cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &f, 12000, cudaEnableDefault, &found) &&
            found == cudaDriverEntryPointSuccess)
            x.encode = (Encode)f;
        (void)cudaGetLastError();
        return x;
    }();
    return c;
}

/* A matrix as the copies see it: boxes of 64 columns of bf16 and so many rows, what is beyond the edges 0. */
static inline bool describe(CUtensorMap *map, const void *at, int64_t rows, int64_t columns, int64_t stride, int box_rows)
{
    const cuuint64_t shape[2] = {(cuuint64_t)columns, (cuuint64_t)rows}, far[1] = {(cuuint64_t)stride * 2};
    const cuuint32_t box[2] = {64, (cuuint32_t)box_rows}, each[2] = {1, 1};
    return card().encode(map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)at, shape, far, box, each,
                         CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                         CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) == CUDA_SUCCESS;
}

#if __CUDA_ARCH__ >= 900

/* Addresses in shared memory. */
__device__ __forceinline__ void load_box(unsigned to, const CUtensorMap *map, int column, int row, unsigned bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(map), "r"(column), "r"(row), "r"(bar)
                 : "memory");
}
__device__ __forceinline__ void load_box(unsigned to, const CUtensorMap *map, int column, int row, unsigned bar, uint64_t policy)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, "
                 "%3}], [%4], %5;" ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(bar), "l"(policy)
                 : "memory");
}
/* To the same place in those blocks of the cluster, a bit each, and to their barriers there. */
__device__ __forceinline__ void load_box_for(unsigned short blocks, unsigned to, const CUtensorMap *map, int column, int row,
                                             unsigned bar)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], [%1, {%2, "
                 "%3}], [%4], %5;" ::"r"(to), "l"(map), "r"(column), "r"(row), "r"(bar), "h"(blocks)
                 : "memory");
}
__device__ __forceinline__ void store_box(const CUtensorMap *map, unsigned from, int column, int row)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];" ::"l"(map), "r"(column), "r"(row),
                 "r"(from)
                 : "memory");
}
__device__ __forceinline__ void fetch_map(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

#endif

} // namespace mi_boxes
#endif
