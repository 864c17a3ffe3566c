#include "pace.h"

#include <math.h>

enum { TRUSTED = 2 /* times the rows that were seen */ };
static const double FADES = 0.9, SMOOTHS = 0.2, OUTLIER = 4;

static int bucket(int n) { return MIN(31 - __builtin_clz((unsigned)n), (int)G_N_ELEMENTS(((Pace *)0)->decode) - 1); }

/* One odd step moves it by little; what a step cannot take, because one took half of it, is forgotten at once. */
static void learn_decode(Pace *p, int n, double us)
{
    double *have = &p->decode[bucket(n)];

    *have = *have > 0 ? MIN(*have + SMOOTHS * (MIN(us, OUTLIER * *have) - *have), 2 * us) : us;
}

double pace_decode(const Pace *p, int n)
{
    const int at = n > 0 ? bucket(n) : 0;

    for (int d = 0; n > 0 && d < (int)G_N_ELEMENTS(p->decode); d++) { /* the nearest that was seen */
        if (at - d >= 0 && p->decode[at - d] > 0)
            return p->decode[at - d];
        if (at + d < (int)G_N_ELEMENTS(p->decode) && p->decode[at + d] > 0)
            return p->decode[at + d];
    }
    return 0;
}

/* Neither cost is below 0: where the sum says so the other explains it all. */
static void solve(PaceRows *r)
{
    const double det = r->xx * r->cc - r->xc * r->xc;

    r->a = r->xx > 0 ? r->xy / r->xx : 0;
    r->b = 0;
    if (det <= 1e-6 * r->xx * r->cc)
        return;
    const double a = (r->xy * r->cc - r->cy * r->xc) / det, b = (r->cy * r->xx - r->xy * r->xc) / det;
    if (a >= 0 && b >= 0)
        r->a = a, r->b = b;
    else if (a < 0)
        r->a = 0, r->b = r->cy / r->cc;
}

static void learn_rows(PaceRows *r, double rows, double before, double us)
{
    const double expected = r->a * rows + r->b * before;

    us = MAX(us, 0);
    if (expected > 0)
        us = MIN(us, OUTLIER * expected);
    r->xx = FADES * r->xx + rows * rows;
    r->xc = FADES * r->xc + rows * before;
    r->cc = FADES * r->cc + before * before;
    r->xy = FADES * r->xy + rows * us;
    r->cy = FADES * r->cy + before * us;
    r->most = MAX((int)rows, (int)(FADES * r->most));
    solve(r);
}

/* A chunk of one row passes for an answer: nothing is learned from it. */
void pace_learn(Pace *p, const MiStep *step, int64_t microseconds)
{
    double us = (double)microseconds, rows = 0, before = 0;
    int    answers = 0;

    for (int i = 0; i < step->shape.n_seqs; i++) {
        const double n = step->count[i], from = MAX(step->seqs[i]->n_cached - step->count[i], 0);
        if (step->count[i] == 1) {
            answers++;
            continue;
        }
        rows += n;
        before += n * (from + n / 2);
    }
    if (rows < 1 && answers)
        learn_decode(p, answers, us);
    else if (rows >= 1)
        learn_rows(answers ? &p->beside : &p->alone, rows, before, us - pace_decode(p, answers));
}

static const PaceRows *known(const Pace *p)
{
    return p->beside.most ? &p->beside : p->alone.most ? &p->alone : NULL;
}

double pace_of(const Pace *p, int n_cached, int rows)
{
    const PaceRows *r = known(p);
    return r ? rows * (r->a + r->b * (n_cached + rows / 2.0)) : 0;
}

int pace_rows(const Pace *p, int n_cached, double microseconds)
{
    const PaceRows *r = known(p);

    if (!r || microseconds <= 0)
        return 0;
    const int    most = TRUSTED * r->most;
    const double each = r->a + r->b * n_cached, half = r->b / 2; /* rows (each + rows half) = microseconds */
    const double rows = half > 0 ? (sqrt(each * each + 4 * half * microseconds) - each) / (2 * half)
                        : each > 0 ? microseconds / each : most;
    return rows < most ? (int)rows : most;
}
