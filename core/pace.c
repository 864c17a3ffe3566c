#include "pace.h"

#include <stdlib.h>
#include <time.h>

int64_t mi_pace_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

void mi_pace_add(MiPaceLog *l, const MiPaced *p) { l->at[l->n++ % MI_PACED] = *p; }

static int ascending(const void *a, const void *b)
{
    const int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void mi_pace_sum(const MiPaceLog *l, uint64_t since, bool decode, int n_seqs, MiPace *out)
{
    g_autofree int64_t *ns = g_new(int64_t, MI_PACED);

    *out = (MiPace){ .n = l->n };
    for (uint64_t i = MAX(since, l->n > MI_PACED ? l->n - MI_PACED : 0); i < l->n; i++) {
        const MiPaced *p = &l->at[i % MI_PACED];
        if (p->decode != decode || (n_seqs && p->n_seqs != n_seqs))
            continue;
        if (p->first) {
            out->first++;
            out->first_us += (double)p->ns / 1e3;
            continue;
        }
        out->late += p->late;
        ns[out->steps++] = p->ns;
    }
    if (!out->steps)
        return;
    qsort(ns, (size_t)out->steps, sizeof *ns, ascending);
    out->median_us = (double)ns[out->steps / 2] / 1e3;
    out->p99_us = (double)ns[out->steps * 99 / 100] / 1e3;
}
