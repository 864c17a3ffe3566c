/* gpu_quick.h - how few cases a test of kernels is to take. */
#ifndef TESTS_GPU_QUICK_H
#define TESTS_GPU_QUICK_H

#include <stdlib.h>

/* MI_QUICK=1: a few cases of each kind, for compute-sanitizer's memcheck; 2: fewer still where there are many, for its racecheck. */
static inline int gpu_quick(void)
{
    const char *text = getenv("MI_QUICK");
    return !text ? 0 : atoi(text) > 1 ? 2 : 1;
}

#endif
