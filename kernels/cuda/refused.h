/* refused.h - a launch that was refused and a device that failed are not the same. */
#ifndef KERNELS_CUDA_REFUSED_H
#define KERNELS_CUDA_REFUSED_H

/* Of a launcher's result, a cudaError_t: nothing ran and the device is well, so the engine goes on without this step:
 * invalid value, invalid configuration, invalid device function, no kernel image, out of resources, not supported. */
static inline int mi_cuda_refused(int error)
{
    return error == 1 || error == 9 || error == 98 || error == 209 || error == 701 || error == 801;
}

#endif
