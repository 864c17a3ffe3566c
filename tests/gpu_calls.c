/* gpu_calls.c - preloaded by gpu_steady.sh: counts what a program asks of the CUDA runtime, and of malloc on the
 * thread that launches graphs, between two of its launches.
 *
 *   MI_CALLS_FROM, MI_CALLS_N   from which launch on, and for how many
 *
 * Says it on standard error once they are over: "calls NAME COUNT" for each function. */
#define _GNU_SOURCE
#include <cuda_runtime_api.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static _Atomic long counts[64];
static long         launches, from = -1, wanted;
static _Atomic int  counting;
static __thread int launcher, inside; /* a thread that launches; within the runtime */

enum { MALLOC, LAUNCH, OTHERS };
static const char *names[64] = { [MALLOC] = "malloc", [LAUNCH] = "cudaGraphLaunch" };
static int         n_names = OTHERS;

static void *next_of(const char *name)
{
    void *f = dlsym(RTLD_NEXT, name);
    if (!f)
        f = dlsym(dlopen(CUDART_VERSION >= 13000 ? "libcudart.so.13" : "libcudart.so.12", RTLD_NOW | RTLD_GLOBAL), name);
    if (!f)
        abort();
    return f;
}

static void say(void)
{
    for (int i = 0; i < n_names; i++)
        fprintf(stderr, "calls %s %ld\n", names[i], counts[i]);
}

static void note(int i)
{
    if (counting && !inside)
        counts[i]++;
}

#define COUNT(name, params, ...) \
    static int index_##name; \
    __attribute__((constructor)) static void add_##name(void) { names[index_##name = n_names++] = #name; } \
    cudaError_t name params \
    { \
        static cudaError_t (*real) params; \
        if (!real) \
            *(void **)&real = next_of(#name); \
        note(index_##name); \
        inside++; \
        const cudaError_t status = real(__VA_ARGS__); \
        inside--; \
        return status; \
    }

COUNT(cudaMalloc, (void **p, size_t n), p, n)
COUNT(cudaFree, (void *p), p)
COUNT(cudaMallocAsync, (void **p, size_t n, cudaStream_t s), p, n, s)
COUNT(cudaFreeAsync, (void *p, cudaStream_t s), p, s)
COUNT(cudaMallocHost, (void **p, size_t n), p, n)
COUNT(cudaHostAlloc, (void **p, size_t n, unsigned flags), p, n, flags)
COUNT(cudaFreeHost, (void *p), p)
COUNT(cudaHostRegister, (void *p, size_t n, unsigned flags), p, n, flags)
COUNT(cudaDeviceSynchronize, (void), )
COUNT(cudaStreamSynchronize, (cudaStream_t s), s)
COUNT(cudaStreamQuery, (cudaStream_t s), s)
COUNT(cudaEventQuery, (cudaEvent_t e), e)
COUNT(cudaEventSynchronize, (cudaEvent_t e), e)
COUNT(cudaEventRecord, (cudaEvent_t e, cudaStream_t s), e, s)
COUNT(cudaEventCreateWithFlags, (cudaEvent_t *e, unsigned flags), e, flags)
COUNT(cudaMemcpy, (void *to, const void *p, size_t n, enum cudaMemcpyKind k), to, p, n, k)
COUNT(cudaMemcpyAsync, (void *to, const void *p, size_t n, enum cudaMemcpyKind k, cudaStream_t s), to, p, n, k, s)
COUNT(cudaMemset, (void *p, int v, size_t n), p, v, n)
COUNT(cudaMemsetAsync, (void *p, int v, size_t n, cudaStream_t s), p, v, n, s)
COUNT(cudaLaunchKernel, (const void *f, dim3 g, dim3 b, void **a, size_t m, cudaStream_t s), f, g, b, a, m, s)
COUNT(cudaLaunchKernelExC, (const cudaLaunchConfig_t *c, const void *f, void **a), c, f, a)
COUNT(cudaStreamBeginCapture, (cudaStream_t s, enum cudaStreamCaptureMode m), s, m)
COUNT(cudaGraphInstantiate, (cudaGraphExec_t *x, cudaGraph_t g, unsigned long long flags), x, g, flags)

cudaError_t cudaGraphLaunch(cudaGraphExec_t g, cudaStream_t s)
{
    static cudaError_t (*real)(cudaGraphExec_t, cudaStream_t);

    if (!real) {
        *(void **)&real = next_of("cudaGraphLaunch");
        from = getenv("MI_CALLS_FROM") ? atol(getenv("MI_CALLS_FROM")) : 1;
        wanted = getenv("MI_CALLS_N") ? atol(getenv("MI_CALLS_N")) : 1;
    }
    launcher = 1;
    if (++launches == from + wanted) {
        counting = 0;
        say();
    }
    counting = counting || launches == from;
    note(LAUNCH);
    inside++;
    const cudaError_t e = real(g, s);
    inside--;
    return e;
}

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
static void note_malloc(void)
{
    if (launcher)
        note(MALLOC);
}
void *malloc(size_t n) { return note_malloc(), __libc_malloc(n); }
void *calloc(size_t n, size_t size) { return note_malloc(), __libc_calloc(n, size); }
void *realloc(void *p, size_t n) { return note_malloc(), __libc_realloc(p, n); }
