/* floats.c - which of the compiled instruction sets this machine has. */
#include <cpu/floats.h>

extern const MiFloats mi_floats_plain;
#ifdef __x86_64__
extern const MiFloats mi_floats_avx2, mi_floats_avx512;
#endif

const MiFloats *mi_floats_at(int i)
{
    const MiFloats *all[3] = { &mi_floats_plain };
    int             n = 1;

#ifdef __x86_64__
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"))
        all[n++] = &mi_floats_avx2;
    if (n == 2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq"))
        all[n++] = &mi_floats_avx512;
#endif
    return i >= 0 && i < n ? all[i] : NULL;
}

const MiFloats *mi_floats(void)
{
    const MiFloats *best = mi_floats_at(0), *next;
    for (int i = 1; (next = mi_floats_at(i)); i++)
        best = next;
    return best;
}
