/* shift.h - what is subtracted from keys before a cache with scales keeps them. */
#ifndef MI_CORE_SHIFT_H
#define MI_CORE_SHIFT_H

#include "parts.h"

/* For the layers whose keys have a bias.  LOAD, while weights are loaded. */
bool mi_shift_keys(MiAssembly *, const MiKvView *views, GError **error);

#endif
