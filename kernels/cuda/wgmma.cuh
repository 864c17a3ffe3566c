/* wgmma.cuh - matrix products of a warpgroup (sm_90a): accumulators in registers, b in
 * shared memory in 128-byte swizzle, a there too or in registers.
 *
 * A swizzled tile is rows of 128 bytes, eight of them a pattern of 1024; more columns are more such tiles.
 * An operand is K-major when its rows run along the sum (q, k), else turned (v). */
#ifndef KERNELS_CUDA_WGMMA_CUH
#define KERNELS_CUDA_WGMMA_CUH

#include <cuda/scaled.cuh>

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)

/* tile: bytes from 64 columns to the next 64, of a turned operand. */
__device__ __forceinline__ uint64_t wgmma_operand(unsigned at, unsigned tile)
{
    return (uint64_t)((at & 0x3ffff) >> 4) | (uint64_t)(tile >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}
__device__ __forceinline__ uint64_t wgmma_ahead(uint64_t operand, unsigned bytes) { return operand + (bytes >> 4); }

__device__ __forceinline__ void wgmma_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}

/* The compiler must not move what is done with registers over a wait. */
template <int N> __device__ __forceinline__ void wgmma_settle(float (&x)[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(x[i])::"memory");
}
template <int N> __device__ __forceinline__ void wgmma_settle(unsigned (&x)[N][4])
{
#pragma unroll
    for (int i = 0; i < N; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            asm volatile("" : "+r"(x[i][j])::"memory");
}

#define D8(i) \
    "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), \
        "+f"(d[i + 7])
#define D16(i) D8(i), D8(i + 8)
#define D32(i) D16(i), D16(i + 16)
#define D48(i) D32(i), D16(i + 32)
#define D40(i) D32(i), D8(i + 32)
#define D64(i) D32(i), D32(i + 32)
#define D72(i) D64(i), D8(i + 64)
#define D80(i) D64(i), D16(i + 64)
#define D128(i) D64(i), D64(i + 64)
#define R32 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31}, "
#define R48 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
    "%46, %47}, "
#define R64 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
    "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
#define R40 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39}, "
#define R72 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71}, "
#define R80 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
    "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, %68, %69, %70, %71, " \
    "%72, %73, %74, %75, %76, %77, %78, %79}, "
#define R128 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, " \
    "%24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, " \
    "%46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67, " \
    "%68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, " \
    "%90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, " \
    "%110, %111, %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "

/* d[64][N] (+)= a[64][16] b[16][N]; wgmma_a_shared: b is K-major; wgmma_a_registers: turned, and d is added to. */
template <typename T, int N> struct Wgmma;

#define WGMMA(T, NAME, N, HALF, A, B, C, A0, A1, A2, A3, BR) \
    template <> struct Wgmma<T, N> { \
        static __device__ __forceinline__ void a_shared(float (&d)[HALF], uint64_t a, uint64_t b, int add) \
        { \
            asm volatile("{ .reg .pred p; setp.ne.b32 p, %" C ", 0; " \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " " R##HALF \
                         "%" A ", %" B ", p, 1, 1, 0, 0; }" \
                         : D##HALF(0) \
                         : "l"(a), "l"(b), "r"(add)); \
        } \
        static __device__ __forceinline__ void a_registers(float (&d)[HALF], const unsigned (&a)[4], uint64_t b) \
        { \
            asm volatile("{ .reg .pred p; setp.eq.u32 p, 0, 0; " \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32." NAME "." NAME " " R##HALF \
                         "{%" A0 ", %" A1 ", %" A2 ", %" A3 "}, %" BR ", p, 1, 1, 1; }" \
                         : D##HALF(0) \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)); \
        } \
    };
#define WGMMA_BOTH(N, HALF, ...) WGMMA(bf16, "bf16", N, HALF, __VA_ARGS__) WGMMA(__half, "f16", N, HALF, __VA_ARGS__)
WGMMA_BOTH(64, 32, "32", "33", "34", "32", "33", "34", "35", "36")
WGMMA_BOTH(80, 40, "40", "41", "42", "40", "41", "42", "43", "44")
WGMMA_BOTH(96, 48, "48", "49", "50", "48", "49", "50", "51", "52")
WGMMA_BOTH(128, 64, "64", "65", "66", "64", "65", "66", "67", "68")
WGMMA_BOTH(144, 72, "72", "73", "74", "72", "73", "74", "75", "76")
WGMMA_BOTH(160, 80, "80", "81", "82", "80", "81", "82", "83", "84")
WGMMA_BOTH(256, 128, "128", "129", "130", "128", "129", "130", "131", "132")

/* d[64][256] (+)= a[64][32] b[32][256] of E4M3; the tensor cores keep fewer digits of the sums than f32 has. */
template <> struct Wgmma<F8, 256> {
    static __device__ __forceinline__ void a_shared(float (&d)[128], uint64_t a, uint64_t b, int add)
    {
        asm volatile("{ .reg .pred p; setp.ne.b32 p, %130, 0; wgmma.mma_async.sync.aligned.m64n256k32.f32.e4m3.e4m3 " R128 "%128, %129, p, 1, 1; }"
                     : D128(0)
                     : "l"(a), "l"(b), "r"(add));
    }
};

#undef WGMMA_BOTH
#undef WGMMA
#undef R128
#undef R80
#undef R72
#undef R64
#undef R48
#undef R40
#undef R32
#undef D128
#undef D80
#undef D72
#undef D64
#undef D48
#undef D40
#undef D32
#undef D16
#undef D8

#endif
#endif
