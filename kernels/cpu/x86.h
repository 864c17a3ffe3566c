/* x86.h - what this processor and its system offer; for the files of one instruction set. */
#ifndef MI_KERNELS_CPU_X86_H
#define MI_KERNELS_CPU_X86_H

#include <cpuid.h>
#include <stdbool.h>

/* Clang 14's __builtin_cpu_supports knows neither F16C (leaf 1, ECX bit 29) nor AVX-VNNI (leaf 7.1, EAX bit 4);
 * that the system saves the registers is what it checks for AVX2. */
static inline bool mi_x86_avx2(void)
{
    unsigned a, b, c = 0, d;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __get_cpuid(1, &a, &b, &c, &d) &&
           (c >> 29 & 1);
}

static inline bool mi_x86_avxvnni(void)
{
    unsigned a = 0, b, c, d;
    return mi_x86_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1);
}

static inline bool mi_x86_avx512_vnni(void)
{
    return mi_x86_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
           __builtin_cpu_supports("avx512vnni");
}

#endif
