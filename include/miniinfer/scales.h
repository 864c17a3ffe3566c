/* scales.h - caches whose keys and values are numbers of 8 bits with scales.  Like types.h: nvcc reads it too.
 *
 * MiKvView.scales says where the scales lie; before them lies what keys are less by than they were: f32
 * [n_kv_heads][head_dim], zeros where attention has a soft cap.  Softmax does not see what all keys of a head have in
 * common: only who writes keys has to know of it. */
#ifndef MINIINFER_SCALES_H
#define MINIINFER_SCALES_H

#include <miniinfer/types.h>

MI_INLINE const float *mi_kv_shift(const MiKvView *kv)
{
    return (const float *)kv->scales - (int64_t)kv->n_kv_heads * kv->head_dim;
}

#endif
