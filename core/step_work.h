/* step_work.h - what a step reads and computes, by what a model is loaded as: the limit of any measurement. */
#ifndef MI_CORE_STEP_WORK_H
#define MI_CORE_STEP_WORK_H

#include "parts.h"

typedef struct {
    double weights, kv;          /* bytes a step reads; of keys and values a position has, with their scales */
    double linear, head, attend; /* multiply-adds of a token; of the logits; of a token for each one before it */
} MiStepWork;

MiStepWork mi_step_work(const MiAssembly *);

#endif
