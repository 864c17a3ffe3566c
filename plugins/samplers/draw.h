/* draw.h - where the last link of the chain puts the token it drew. */
#ifndef SAMPLERS_DRAW_H
#define SAMPLERS_DRAW_H

#include "softmax.h"

static inline void drawn(const MiCall *call, int i, int token)
{
    const MiTensor *out = &call->at->out[0];

    ((int32_t *)out->data)[i * out->stride[0]] = token;
    call->batch->drawn[call->batch->out_slot[i]] = token;
}

#endif
