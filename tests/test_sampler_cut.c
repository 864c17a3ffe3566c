/* The links that remove tokens, against a sort of all of them in double. */
#include "sampler.h"

typedef struct { double rank, p; int id; } Token;

static int best_first(const void *a, const void *b)
{
    const Token *x = a, *y = b;
    return x->rank != y->rank ? (x->rank < y->rank ? 1 : -1) : (x->id > y->id) - (x->id < y->id);
}

/* By the definitions: candidates in order; rank[i] as the link ranks. */
static int sorted(const char *name, const float *x, int n, Token *t)
{
    g_autofree double *p = g_new(double, n);
    double             entropy = 0;
    int                m = 0;

    softmax(x, n, p);
    for (int k = 0; k < n; k++)
        entropy -= p[k] > 0 ? p[k] * log(p[k]) : 0;
    for (int k = 0; k < n; k++)
        if (x[k] > -INFINITY)
            t[m++] = (Token){ strcmp(name, "typical") ? x[k] : -fabs(-log(p[k]) - entropy), p[k], k };
    qsort(t, (size_t)m, sizeof *t, best_first);
    return m;
}

/* How many of t[0..m) stay; *lo..*hi: those about which rounding decides. */
static void expected(const char *name, double value, const Token *t, int m, int *lo, int *hi)
{
    const double near = 1e-6;
    double       before = 0;

    *lo = *hi = 0;
    for (int i = 0; i < m; before += t[i++].p) {
        bool sure, maybe;
        if (strcmp(name, "top_k") == 0)
            sure = maybe = value == 0 || i < value;
        else if (strcmp(name, "min_p") == 0)
            sure = t[i].p > value * t[0].p * (1 + near) || t[i].rank == t[0].rank,
            maybe = t[i].p >= value * t[0].p * (1 - near);
        else
            sure = before < value - near || i == 0 || value == 1, maybe = before < value + near || value == 1;
        *lo = sure ? i + 1 : *lo;
        *hi = maybe ? i + 1 : *hi;
    }
    *hi = MAX(*lo, *hi);
}

/* What is left of one row is the best of the sort; returns whether rounding had a say. */
static bool check(const char *name, double value, const float *before, const float *after, int n)
{
    g_autofree Token *t = g_new(Token, n);
    const int         m = sorted(name, before, n, t);
    int               lo, hi, kept = 0;
    bool              hole = false;

    expected(name, value, t, m, &lo, &hi);
    for (int i = 0; i < m; i++) {
        const bool stays = after[t[i].id] == before[t[i].id];
        if (!stays)
            assert_true(after[t[i].id] == -INFINITY);
        /* Typicality is a difference of floats: neighbours nearer than 1e-5 may change places. */
        const bool same_rank = strcmp(name, "typical") == 0 &&
                               ((lo > 0 && fabs(t[i].rank - t[lo - 1].rank) < 1e-5) ||
                                (lo < m && fabs(t[i].rank - t[lo].rank) < 1e-5));
        if ((i < lo && !stays && !same_rank) || (i >= hi && stays && !same_rank) || (stays && hole && !same_rank))
            fail_msg("%s %g of %d: rank %d (token %d, logit %g) %s; %d to %d stay", name, value, n, i, t[i].id,
                     before[t[i].id], stays ? "stays" : "goes", lo, hi);
        hole = hole || (!stays && !same_rank);
        kept += stays;
    }
    assert_true(m == 0 || kept > 0);
    for (int k = 0; k < n; k++)
        if (!(before[k] > -INFINITY))
            assert_false(after[k] > -INFINITY);
    return lo != hi;
}

/* Logits of many kinds: smooth, with ties, with holes, huge, tiny. */
static void fill(float *x, int n, int kind, uint64_t *rng)
{
    for (int k = 0; k < n; k++) {
        x[k] = 4 * gauss(rng);
        if (kind == 1)
            x[k] = rintf(x[k]) / 2; /* ties, +0 and -0 */
        if (kind == 2 && uniform(rng) < 0.7)
            x[k] = -INFINITY;
        if (kind == 3)
            x[k] = x[k] * 1e3f + 2e4f;
        if (kind == 4)
            x[k] = uniform(rng) < 0.1 ? NAN : rintf(x[k] / 4) * 1e-30f;
        if (kind == 5)
            x[k] = 2.5f;
    }
}

static void compare(const char *name, const char *key, const char *const *values)
{
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, name);
    g_autofree void *rows = params(s, MAX_ROWS);
    const int        sizes[] = { 1, 2, 7, 64, 100, 1000, 4096 };
    uint64_t         rng = 5;
    int              checked = 0, undecided = 0;

    for (size_t c = 0; c < G_N_ELEMENTS(sizes); c++)
        for (int kind = 0; kind < 6; kind++)
            for (int v = 0; values[v]; v++) {
                const int         n = sizes[c];
                Rows              r;
                float            *x = rows_new(&r, 4, n);
                g_autofree float *was = g_new(float, 4 * n);
                fill(x, 4 * n, kind, &rng);
                memcpy(was, x, sizeof *x * 4 * (size_t)n);
                r.copy = v % 2;
                for (int i = 0; i < 4; i++)
                    set(s, rows, i, key, values[v]);
                apply(s, rows, &r);
                for (int i = 0; i < 4; i++, checked++)
                    undecided += check(name, g_ascii_strtod(values[v], NULL), was + i * n, r.logits + i * n, n);
                g_free(r.logits);
            }
    if (undecided * 10 > checked)
        fail_msg("rounding decides %d of %d", undecided, checked);
    mi_registry_free(reg);
}

static void top_k_is_a_sort(void **state)
{
    (void)state;
    compare("top_k", "top_k", (const char *const[]){ "0", "1", "2", "5", "40", "999", "1000", "100000", NULL });
}
static void top_p_is_a_sort(void **state)
{
    (void)state;
    compare("top_p", "top_p", (const char *const[]){ "0", "0.01", "0.123", "0.5123", "0.9512", "0.99991", "1", NULL });
}
static void min_p_is_a_sort(void **state)
{
    (void)state;
    compare("min_p", "min_p", (const char *const[]){ "0", "0.001", "0.0512", "0.3", "1", NULL });
}
static void typical_is_a_sort(void **state)
{
    (void)state;
    compare("typical", "typical_p", (const char *const[]){ "0", "0.0512", "0.2123", "0.5123", "0.9512", "1", NULL });
}

/* Of equal logits the lower ids stay, as many as are needed. */
static void ties_go_to_lower_ids(void **state)
{
    (void)state;
    static const struct { const char *link, *key, *value; int kept; } cases[] = {
        { "top_k", "top_k", "3", 3 }, { "top_p", "top_p", "0.25", 3 }, { "top_p", "top_p", "0.31", 4 },
        { "typical", "typical_p", "0.25", 3 }, { "typical", "typical_p", "0.69", 7 }, { "min_p", "min_p", "1", 10 },
    };
    MiRegistry *reg = load(NULL);

    for (size_t c = 0; c < G_N_ELEMENTS(cases); c++) {
        const MiSampler *s = link_named(reg, cases[c].link);
        g_autofree void *rows = params(s, 1);
        Rows             r;
        float           *x = rows_new(&r, 1, 10);
        for (int k = 0; k < 10; k++)
            x[k] = k % 2 ? 0.0f : -0.0f;
        set(s, rows, 0, cases[c].key, cases[c].value);
        apply(s, rows, &r);
        for (int k = 0; k < 10; k++)
            assert_true((x[k] > -INFINITY) == (k < cases[c].kept));
        g_free(r.logits);
    }
    mi_registry_free(reg);
}

/* Nothing to choose from, one infinitely likely token, one token at all: nothing breaks, the best stays. */
static void odd_rows_keep_their_best(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        { "top_k", "top_k", "2" }, { "top_p", "top_p", "0.5" },
        { "min_p", "min_p", "0.1" }, { "typical", "typical_p", "0.5" },
    };
    const float I = INFINITY;
    MiRegistry *reg = load(NULL);

    for (size_t c = 0; c < G_N_ELEMENTS(cases); c++) {
        const MiSampler *s = link_named(reg, cases[c][0]);
        g_autofree void *rows = params(s, 5);
        Rows             r;
        float           *x = rows_new(&r, 5, 4);
        const float      odd[5][4] = {
            { -I, -I, -I, -I }, { NAN, NAN, NAN, NAN }, { 1, I, NAN, 2 }, { -I, -I, -5, -I },
            { 3e38f, -3e38f, NAN, -I },
        };
        memcpy(x, odd, sizeof odd);
        for (int i = 0; i < 5; i++)
            set(s, rows, i, cases[c][1], cases[c][2]);
        apply(s, rows, &r);
        for (int k = 0; k < 8; k++)
            assert_false(x[k] > -I);
        assert_true(x[2 * 4 + 1] == I);
        assert_true(x[3 * 4 + 2] == -5);
        assert_true(x[4 * 4] == 3e38f);
        g_free(r.logits);
    }
    mi_registry_free(reg);
}

TEST_MAIN(cmocka_unit_test(top_k_is_a_sort), cmocka_unit_test(top_p_is_a_sort), cmocka_unit_test(min_p_is_a_sort),
          cmocka_unit_test(typical_is_a_sort), cmocka_unit_test(ties_go_to_lower_ids),
          cmocka_unit_test(odd_rows_keep_their_best));
