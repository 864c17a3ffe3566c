#include "usage.h"

typedef struct { uint64_t prompt, found, preemptions; double rate; int64_t most, positions; } Usage;

static Usage usage_of(const MiStats *before, const MiStats *after)
{
    Usage u = { after->prompt_tokens - before->prompt_tokens, after->found_tokens - before->found_tokens,
                after->preemptions - before->preemptions, 0, after->kv_most, after->kv_used + after->kv_room };

    u.rate = u.prompt ? (double)u.found / (double)u.prompt : 0;
    return u;
}

void mi_usage_print(FILE *out, const MiStats *before, const MiStats *after)
{
    const Usage u = usage_of(before, after);

    fprintf(out, "of %" G_GUINT64_FORMAT " tokens of prompts the cache had %" G_GUINT64_FORMAT " (%.1f %%); %" G_GUINT64_FORMAT
            " preemptions\n", u.prompt, u.found, 100 * u.rate, u.preemptions);
    fprintf(out, "at most %" G_GINT64_FORMAT " of the cache's %" G_GINT64_FORMAT " positions were taken (%.1f %%)\n", u.most,
            u.positions, u.positions ? 100 * (double)u.most / (double)u.positions : 0);
}

void mi_usage_json(MiJson *j, const MiStats *before, const MiStats *after)
{
    const Usage u = usage_of(before, after);

    mi_json_int(j, "prompt_tokens", (int64_t)u.prompt);
    mi_json_int(j, "found_tokens", (int64_t)u.found);
    mi_json_float(j, "hit_rate", u.rate);
    mi_json_int(j, "preemptions", (int64_t)u.preemptions);
    mi_json_int(j, "kv_most", u.most);
    mi_json_int(j, "kv_positions", u.positions);
}
