/* step_work.c - see step_work.h. */
#include "step_work.h"

#include <string.h>

MiStepWork mi_step_work(const MiAssembly *a)
{
    const MiRecording *p = ((const MiVariant *)a->variants->pdata[0])->program;
    const MiCacheSpec *c = &a->cache_spec;
    const double       scale = mi_dtype_scaled(c->dtype) ? sizeof(uint16_t) : 0; /* of a head at a position */
    MiStepWork         w = { .kv = 2.0 * c->n_layers * c->n_kv_heads * (c->head_dim * (double)mi_dtype_size(c->dtype) + scale),
                             .attend = 2.0 * c->n_layers * a->attention_spec.n_heads * c->head_dim };

    for (guint i = 0; i < a->weights->packs->len; i++) {
        const MiPack *pack = a->weights->packs->pdata[i];
        w.weights += (double)pack->bytes;
        for (int k = 0; k < pack->n && !pack->bytes; k++)
            w.weights += (double)pack->parts[k].bytes;
    }
    for (int i = 0; i < (int)p->nodes->len; i++) {
        const MiNode *n = mi_recording_node(p, i);
        if (strcmp(n->op, "linear") != 0 || !n->weight[0])
            continue;
        const bool head = mi_recording_value(p, n->out[0])->type.rows == MI_ROWS_OUTPUTS;
        *(head ? &w.head : &w.linear) += (double)n->weight[0]->shape[0] * (double)n->weight[0]->shape[1];
    }
    return w;
}
