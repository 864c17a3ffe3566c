/* usage.h - what an engine's cache spared and cost between two looks at its statistics. */
#ifndef MI_CORE_USAGE_H
#define MI_CORE_USAGE_H

#include "json_out.h"

#include <miniinfer/frontend.h>
#include <stdio.h>

/* Two lines. */
void mi_usage_print(FILE *, const MiStats *before, const MiStats *after);
/* Members of the object at hand: prompt_tokens, found_tokens, hit_rate, preemptions, kv_most, kv_positions. */
void mi_usage_json(MiJson *, const MiStats *before, const MiStats *after);

#endif
