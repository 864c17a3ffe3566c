/* hf_quant.h - what a checkpoint of Hugging Face stores quantised, as MiQuant. */
#ifndef MI_FORMATS_HF_QUANT_H
#define MI_FORMATS_HF_QUANT_H

#include "tables.h"

typedef struct {
    MiQuant *at; /* [n]; group_of is owned */
    size_t   n;
} MiQuants;

/* Finds by quantization_config and by names what stands for a matrix, checks it with its companions,
 * renames it x.weight, and sorts *weights, which are sorted already, anew. */
bool mi_quants_read(MiQuants *, MiWeights *weights, const MiMeta *, const char *path, GError **error);
void mi_quants_free(MiQuants *);

#endif
