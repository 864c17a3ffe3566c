/* constants.h - what programs bring along, such as a rope's angles, on a device with memory of its own. */
#ifndef MI_CORE_CONSTANTS_H
#define MI_CORE_CONSTANTS_H

#include "program.h"

#include <miniinfer/context.h>

typedef struct MiConstants MiConstants;

MiConstants *mi_constants_new(void);
/* Those of a program to the device; what another program brought already is there. */
bool mi_constants_place(MiConstants *, MiContext *, MiRecording *, GError **error);
void mi_constants_free(MiConstants *, MiContext *);

#endif
