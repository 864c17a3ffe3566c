/* The links that move logits, against values worked out by hand, and what a chain of links draws. */
#include "sampler.h"

static void near(float got, double want)
{
    if (!(fabs(got - want) <= 1e-6 * (1 + fabs(want))))
        fail_msg("%.9g, not %.9g", (double)got, want);
}

static void temperature_divides(void **state)
{
    (void)state;
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, "temperature");
    g_autofree void *rows = params(s, 5);
    Rows             r;
    float           *x = rows_new(&r, 5, 5);
    const float      from[] = { 1, -2, 3, 3, -INFINITY };

    for (int i = 0; i < 5; i++)
        memcpy(x + 5 * i, from, sizeof from);
    set(s, rows, 0, "temperature", "1");
    set(s, rows, 1, "temperature", "0.5");
    set(s, rows, 2, "temperature", "0");
    set(s, rows, 3, "temperature", "1e-39");
    set(s, rows, 4, "temperature", "0");
    x[4 * 5] = NAN;
    apply(s, rows, &r);
    for (int k = 0; k < 4; k++) {
        near(x[k], from[k]);
        near(x[5 + k], from[k] * 2.0);
        for (int i = 2; i < 5; i++)
            assert_true(k == 2 ? x[i * 5 + k] > -INFINITY : x[i * 5 + k] == -INFINITY);
    }
    assert_true(x[4] == -INFINITY && x[9] == -INFINITY && x[14] == -INFINITY);
    g_free(r.logits);
    mi_registry_free(reg);
}

/* Prompt 1 2 2, answer 3 3 3 2; token 9 lies behind what is known.  One number by hand for each. */
static void penalties_are_the_definitions(void **state)
{
    (void)state;
    static const int32_t history[] = { 1, 2, 2, 3, 3, 3, 2, 9, -1, 1000000 };
    static const struct { const char *key[3], *value[3]; double want[6]; } cases[] = {
        { { "repetition_penalty" }, { "2" }, { 4, 2, -8, 2, 4, -4 } },
        { { "presence_penalty" }, { "1.5" }, { 4, 4, -5.5, 2.5, 4, -4 } },
        { { "frequency_penalty" }, { "0.5" }, { 4, 4, -4.5, 2.5, 4, -4 } },
        { { "frequency_penalty" }, { "-1" }, { 4, 4, -3, 7, 4, -4 } },
        { { "repetition_penalty", "presence_penalty", "frequency_penalty" }, { "2", "1.5", "0.5" },
          { 4, 2, -10, -1, 4, -4 } },
    };
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, "penalties");
    g_autofree void *rows = params(s, MAX_ROWS);
    Rows             r;

    for (size_t c = 0; c < G_N_ELEMENTS(cases); c++) {
        float *x = rows_new(&r, 3, 10);
        for (int i = 0; i < 30; i++)
            x[i] = i % 10 == 2 || i % 10 == 5 ? -4 : 4;
        for (int i = 0; i < 3; i++)
            set(s, rows, i, NULL, NULL);
        for (int k = 0; k < 3 && cases[c].key[k]; k++)
            set(s, rows, 1, cases[c].key[k], cases[c].value[k]);
        r.slot[0] = 5, r.slot[1] = 2, r.slot[2] = -1;
        memcpy(r.history[2], history, sizeof history);
        r.n_prompt[2] = 3;
        r.out_rows[0] = 1, r.out_rows[1] = 0, r.position[0] = 6;
        apply(s, rows, &r);
        for (int k = 0; k < 10; k++) {
            near(x[k], k == 2 || k == 5 ? -4 : 4);
            near(x[10 + k], k < 6 ? cases[c].want[k] : 4);
            near(x[20 + k], k == 2 || k == 5 ? -4 : 4);
        }
        g_free(r.logits);
    }
    mi_registry_free(reg);
}

/* Histories that claim more than there is, and ids that no vocabulary has, touch nothing else. */
static void penalties_stay_inside(void **state)
{
    (void)state;
    MiRegistry      *reg = load(NULL);
    const MiSampler *s = link_named(reg, "penalties");
    g_autofree void *rows = params(s, 1);
    Rows             r;
    float           *x = rows_new(&r, 1, 65);

    set(s, rows, 0, "frequency_penalty", "1");
    set(s, rows, 0, "repetition_penalty", "2");
    for (int t = 0; t < MAX_HISTORY; t++)
        r.history[0][t] = t % 3 == 0 ? 64 : t % 3 == 1 ? 65 : INT32_MAX;
    r.position[0] = 1000;
    r.n_prompt[0] = -5;
    apply(s, rows, &r);
    for (int k = 0; k < 64; k++)
        near(x[k], 0);
    near(x[64], -22);
    g_free(r.logits);
    mi_registry_free(reg);
}

static void logit_bias_adds(void **state)
{
    (void)state;
    MiRegistry          *reg = load(NULL);
    const MiSampler     *s = link_named(reg, "logit_bias");
    g_autofree MiBiases *rows = params(s, 2);
    Rows                 r;
    float               *x = rows_new(&r, 2, 4);

    assert_int_equal(s->row_size, sizeof(MiBiases));
    assert_false(s->wants(&rows[0]));
    set(s, rows, 1, "logit_bias", "2: 2.5, 4: 9, 0: -100");
    rows[1].at[rows[1].n].id = -1, rows[1].at[rows[1].n].bias = 9;
    rows[1].n++;
    assert_true(s->wants(&rows[1]));
    apply(s, rows, &r);
    for (int k = 0; k < 4; k++)
        near(x[k], 0);
    near(x[4], -100), near(x[5], 0), near(x[6], 2.5), near(x[7], 0);
    g_free(r.logits);
    mi_registry_free(reg);
}

/* A row of neutral values asks for nothing, one that says something does. */
static void neutral_values_ask_for_nothing(void **state)
{
    (void)state;
    static const char *const cases[][4] = {
        { "temperature", "temperature", "0", "1" },      { "temperature", "temperature", "0.7", "1" },
        { "top_k", "top_k", "1", "0" },                  { "top_p", "top_p", "0.9", "1" },
        { "min_p", "min_p", "0.1", "0" },                { "typical", "typical_p", "0.9", "1" },
        { "penalties", "repetition_penalty", "1.1", "1" }, { "penalties", "presence_penalty", "-1", "0" },
        { "penalties", "frequency_penalty", "1", "0" },
    };
    MiRegistry *reg = load(NULL);

    for (size_t c = 0; c < G_N_ELEMENTS(cases); c++) {
        const MiSampler  *s = link_named(reg, cases[c][0]);
        g_autofree void  *rows = params(s, 1);
        Rows              r;
        float            *x = rows_new(&r, 1, 100), was[100];
        uint64_t          rng = 1;
        for (int k = 0; k < 100; k++)
            x[k] = was[k] = gauss(&rng);
        set(s, rows, 0, cases[c][1], cases[c][3]);
        assert_false(s->wants(rows));
        r.history[0][0] = 5;
        apply(s, rows, &r);
        assert_memory_equal(x, was, sizeof was);
        set(s, rows, 0, cases[c][1], cases[c][2]);
        assert_true(s->wants(rows));
        g_free(r.logits);
    }
    mi_registry_free(reg);
}

/* penalties, temperature, top_k, top_p, min_p, multinomial: 30,000 draws have the probabilities
 * that the definitions give by hand for logits of which the chain leaves three tokens. */
static void a_chain_draws_what_its_links_say(void **state)
{
    (void)state;
    enum { N = 30000 };
    static const char *const chain[][3] = {
        { "penalties", "presence_penalty", "2" }, { "temperature", "temperature", "0.5" }, { "top_k", "top_k", "4" },
        { "top_p", "top_p", "0.999" }, { "min_p", "min_p", "0.05" }, { "multinomial", "seed", "2024" },
    };
    /* Token 1 was said: 5 - 2 = 3.  Doubled: 4, 6, 5, -8, 4.8, 2.  Top 4: 0, 1, 2, 4; min_p 0.05: all of
     * them, e^-2 = 0.135 being the least share. */
    static const float logits[] = { 2, 5, 2.5f, -4, 2.4f, 1 };
    static const int   left[] = { 0, 1, 2, 4 };
    const double       w[] = { exp(-2), 1, exp(-1), exp(-1.2) }, sum = w[0] + w[1] + w[2] + w[3];
    MiRegistry        *reg = load(NULL);
    void              *rows[6];
    int                times[6] = { 0 };
    double             chi = 0;

    for (int l = 0; l < 6; l++) {
        rows[l] = params(link_named(reg, chain[l][0]), 1);
        set(link_named(reg, chain[l][0]), rows[l], 0, chain[l][1], chain[l][2]);
    }
    for (int at = 0; at < N; at++) {
        Rows r;
        memcpy(rows_new(&r, 1, 6), logits, sizeof logits);
        r.position[0] = at;
        for (int t = 0; t < MAX_HISTORY; t++)
            r.history[0][t] = 1;
        for (int l = 0; l < 6; l++)
            apply(link_named(reg, chain[l][0]), rows[l], &r);
        times[r.token[0]]++;
        g_free(r.logits);
    }
    assert_int_equal(times[3] + times[5], 0);
    for (int k = 0; k < 4; k++) {
        const double want = N * w[k] / sum;
        chi += (times[left[k]] - want) * (times[left[k]] - want) / want;
    }
    if (chi > 3 + 4 * sqrt(6.0))
        fail_msg("chi-square %g with 3 degrees of freedom", chi);
    for (int l = 0; l < 6; l++)
        g_free(rows[l]);
    mi_registry_free(reg);
}

TEST_MAIN(cmocka_unit_test(temperature_divides), cmocka_unit_test(penalties_are_the_definitions),
          cmocka_unit_test(penalties_stay_inside), cmocka_unit_test(logit_bias_adds),
          cmocka_unit_test(neutral_values_ask_for_nothing), cmocka_unit_test(a_chain_draws_what_its_links_say));
