/* What `verify` finds, on a device with memory of its own against the CPU, and what its measure says. */
#include "common.h"
#include "compare.h"
#include "engine.h"
#include "numbers.h"
#include "remote.h"
#include "scaled.h"
#include "verify.h"

#include <math.h>
#include <unistd.h>

typedef struct {
    MiRegistry *registry;
    MiConfig   *config[2];
    MiAssembly *assembly[2];
    MiSide      side[2]; /* tested, reference */
    MiVerify    verify;
} Pair;

/* An engine loads the weights; what follows runs by hand. */
static MiAssembly *assemble(Pair *p, int i, const char *path, const char *device, const char *kv_dtype)
{
    g_autoptr(GError) error = NULL;
    MiConfig         *c = p->config[i] = mi_config_new();

    assert_true(mi_config_set(c, "model.path", path, &error) && mi_config_set(c, "engine.linear", "reference", &error) &&
                mi_config_set(c, "engine.device", device, &error) && mi_config_set(c, "engine.max_seqs", "3", &error) &&
                mi_config_set(c, "engine.prefill_step", "9", &error));
    assert_true(i ? mi_config_set(c, "engine.dtype", "fp32", &error) : mi_config_set(c, "engine.kv_dtype", kv_dtype, &error));
    MiAssembly *a = mi_assembly_new(p->registry, c, &error);
    MiEngine   *e = a ? mi_engine_start(a, NULL, NULL, &error) : NULL;
    if (!e)
        fail_msg("%s", error->message);
    mi_engine_stop(e);
    return a;
}

static void pair_run_kv(Pair *p, const char *const *extra, const char *pattern, const char *kv_dtype)
{
    static const int32_t ids[] = { 3, 14, 15, 92, 65, 35, 89, 79 };
    const MiParam        params[] = { { "seed", "1" }, { NULL, NULL } };
    g_autoptr(GError)    error = NULL;
    g_autofree char     *path = NULL;
    const int            fd = g_file_open_tmp("miniinfer-XXXXXX.tiny", &path, &error);

    assert_true(fd >= 0 && g_file_set_contents(path, "tiny\n", -1, NULL));
    close(fd);
    *p = (Pair){ .registry = load(extra) };
    remote_add(p->registry);
    p->assembly[0] = assemble(p, 0, path, "remote", kv_dtype);
    p->assembly[1] = assemble(p, 1, path, "cpu", "auto");
    unlink(path);
    mi_verify_init(&p->verify, &p->side[0], &p->side[1], pattern);
    for (int i = 0; i < 2; i++) {
        assert_true(mi_side_open(&p->side[i], p->assembly[i], &error));
        for (size_t k = 0; k < 3; k++) {
            const MiRequest r = { .tokens = ids, .n_tokens = 8 - k, .max_tokens = 4, .ignore_eos = true, .params = params };
            assert_true(mi_side_ask(&p->side[i], &r, &error));
        }
    }
    for (int i = 0; i < 5; i++) /* 21 rows of prompts, 11 at a time */
        if (!mi_verify_step(&p->verify, &error))
            fail_msg("%s", error->message);
}

static void pair_run(Pair *p, const char *const *extra, const char *pattern) { pair_run_kv(p, extra, pattern, "auto"); }

static void pair_clear(Pair *p)
{
    mi_verify_clear(&p->verify);
    for (int i = 0; i < 2; i++) {
        mi_side_close(&p->side[i]);
        mi_assembly_free(p->assembly[i]);
        mi_config_free(p->config[i]);
    }
    mi_registry_free(p->registry);
}

static void all_is_right(void **state)
{
    (void)state;
    Pair p;
    int  fused = 0, cached = 0;

    pair_run(&p, (const char *const[]){ "tests/plugins/tiny.so", NULL }, NULL);
    assert_true(p.verify.lines->len > 20);
    for (guint i = 0; i < p.verify.lines->len; i++) {
        const MiVerified *l = p.verify.lines->pdata[i];
        if (!(l->worst <= 1))
            fail_msg("%s: %g of what is allowed", l->label, l->worst);
        assert_true(l->steps >= 3 && l->tolerance > 0 && l->tolerance < 0.01 && l->where && l->feature);
        assert_false(l->same);
        fused += l->fused && l->nodes_worst >= 0;
        cached += l->cache_worst >= 0;
    }
    assert_true(fused > 0 && cached > 0 && cached == p.assembly[0]->n_layers);
    for (guint i = 0; i < 3; i++) { /* both sides go on with the reference's tokens */
        const MiRequested *a = p.side[0].seqs->pdata[i], *b = p.side[1].seqs->pdata[i];
        assert_true(a->n_known == b->n_known && a->n_known > a->pub.n_prompt);
        assert_memory_equal(a->pub.tokens, b->pub.tokens, (size_t)a->n_known * sizeof *a->pub.tokens);
    }
    pair_clear(&p);
}

/* Attention on both sides reads what the scales of the tested side's cache leave of keys and values. */
static void a_cache_with_scales_is_no_mistake(void **state)
{
    (void)state;
    static const char *const kinds[] = { "fp8", "int8" };

    for (size_t k = 0; k < 2; k++) {
        Pair p;
        int  cached = 0, attended = 0;
        pair_run_kv(&p, (const char *const[]){ "tests/plugins/tiny.so", NULL }, NULL, kinds[k]);
        assert_true(mi_dtype_scaled(p.assembly[0]->kv_dtype) && !mi_dtype_scaled(p.assembly[1]->kv_dtype));
        for (guint i = 0; i < p.verify.lines->len; i++) {
            const MiVerified *l = p.verify.lines->pdata[i];
            const bool        attention = strstr(l->label, ": attention") != NULL;
            if (!(l->worst <= 1))
                fail_msg("%s, %s: %g of what is allowed", kinds[k], l->label, l->worst);
            if (attention)
                assert_true(l->tolerance < 1e-3); /* of f32, not of 8 bits */
            cached += l->cache_worst >= 0 && l->cache_worst < 0.01; /* the very codes */
            attended += attention;
        }
        assert_int_equal(cached, p.assembly[0]->n_layers);
        assert_int_equal(attended, p.assembly[0]->n_layers);
        pair_clear(&p);
    }
}

/* Against the definition of E4M3; vectors of zeros, of next to nothing, one element that is far larger, no numbers. */
static void numbers_with_scales_are_the_nearest(void **state)
{
    (void)state;
    enum { DIM = 48 };
    float    x[DIM], shift[DIM], back[DIM], want[DIM];
    uint8_t  codes[DIM];
    uint32_t seed = 1;

    for (int round = 0; round < 2000; round++) {
        const MiDType t = round % 2 ? MI_I8 : MI_F8;
        const bool    shifted = round % 3 == 0;
        for (int i = 0; i < DIM; i++) {
            seed = seed * 1664525 + 1013904223;
            shift[i] = (float)(seed >> 20 & 15);
            const float y = round % 7 == 0 ? 0 : ldexpf((float)(int32_t)(seed ^ seed << 13) * 0x1p-31f, (int)(seed >> 24) % (1 + round % 30));
            x[i] = shifted ? shift[i] + y : y;
            want[i] = shifted ? x[i] - shift[i] : x[i];
        }
        scaled_round(t, want, DIM, want);
        const uint16_t scale = mi_scaled_to(t, x, shifted ? shift : NULL, DIM, codes);
        mi_scaled_from(t, codes, scale, DIM, back);
        for (int i = 0; i < DIM; i++)
            if (back[i] != want[i])
                fail_msg("round %d: %g became %g, wanted %g", round, (double)x[i], (double)back[i], (double)want[i]);
    }
    for (int i = 0; i < 256; i++) {
        codes[0] = (uint8_t)i;
        mi_scaled_from(MI_F8, codes, 0x3f80, 1, back);
        const double by_definition = scaled_code(MI_F8, i);
        assert_true(isnan(by_definition) ? isnan(back[0]) : (double)back[0] == by_definition);
    }
    x[3] = NAN;
    mi_scaled_from(MI_F8, codes, mi_scaled_to(MI_F8, x, NULL, DIM, codes), DIM, back);
    assert_true(isnan(back[0]) && isnan(back[3]));
}

/* Both mistakes, nothing else, and whose they are. */
static void mistakes_are_named(void **state)
{
    (void)state;
    Pair p;
    int  norms = 0, gated = 0;

    pair_run(&p, (const char *const[]){ "tests/plugins/tiny.so", "tests/plugins/wrong.so", NULL }, NULL);
    for (guint i = 0; i < p.verify.lines->len; i++) {
        const MiVerified *l = p.verify.lines->pdata[i];
        const bool        norm = strcmp(l->feature, "op:rmsnorm@remote") == 0;
        const bool        fusion = strcmp(l->feature, "fusion:acme.gated@remote") == 0;
        norms += norm;
        gated += fusion;
        if ((l->worst > 1) != (norm || fusion))
            fail_msg("%s, %s: %g of what is allowed", l->label, l->feature, l->worst);
        assert_int_equal(l->worst > 1, g_strcmp0(l->file, "wrong.so") == 0);
        if (fusion)
            assert_true(l->nodes_worst > 1);
    }
    assert_int_equal(norms, 2 * p.assembly[0]->n_layers + 1);
    assert_int_equal(gated, p.assembly[0]->n_layers);
    pair_clear(&p);
}

static void some_nodes_only(void **state)
{
    (void)state;
    static const struct { const char *pattern; int per_layer, more; } cases[] = {
        { "rmsnorm", 2, 1 }, { "wrong.so", 3, 1 }, { "*layers.0: rope*", 0, 2 }, { "attention:*", 1, 0 }, { "nothing", 0, 0 },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        Pair p;
        pair_run(&p, (const char *const[]){ "tests/plugins/tiny.so", "tests/plugins/wrong.so", NULL }, cases[i].pattern);
        assert_int_equal(p.verify.lines->len, cases[i].per_layer * p.assembly[0]->n_layers + cases[i].more);
        pair_clear(&p);
    }
}

/* ---- the measure ------------------------------------------------------------------ */

enum { N = 4096 };

static double worst(const float *got, const float *want, int64_t rows, int64_t n, double tolerance, bool exact)
{
    MiDifference    d = { 0 };
    const MiAllowed allowed = { .tolerance = tolerance };

    mi_compare(got, want, rows, n, exact, &d);
    return mi_compare_worst(&d, &allowed);
}

static void one_column_of_thousands_shows(void **state)
{
    (void)state;
    float want[N], got[N];

    for (int i = 0; i < N; i++)
        got[i] = want[i] = sinf((float)(i * i % 971));
    assert_true(worst(got, want, 1, N, 1e-3, false) == 0);
    got[N - 1] = want[N - 1] + 0.5f; /* 0.011 of the row's norm */
    assert_true(worst(got, want, 1, N, 0x1p-7, false) > 1);
    got[N - 1] = NAN;
    assert_true(isinf(worst(got, want, 1, N, 1, false)));
    got[N - 1] = INFINITY;
    got[0] = -INFINITY;
    assert_true(isinf(worst(got, want, 1, N, 1, false)));
}

static void rounding_passes_and_twice_of_it_does_not(void **state)
{
    (void)state;
    float want[N], got[N];

    for (int factor = 1; factor <= 4; factor *= 4) {
        for (int i = 0; i < N; i++) {
            want[i] = 1 + (float)(i % 100) / 100;
            got[i] = want[i] * (1 + (float)factor * 0x1p-9f * (i % 2 ? 1 : -1)); /* half a unit of bf16 */
        }
        assert_int_equal(worst(got, want, 1, N, mi_tolerated(MI_BF16), false) > 1, factor > 1);
        assert_true(worst(got, want, 1, N, mi_tolerated(MI_F16), false) > 1);
    }
}

static void rows_count_alone(void **state)
{
    (void)state;
    float want[64 * 8], got[64 * 8];

    for (int i = 0; i < 64 * 8; i++)
        got[i] = want[i] = i < 8 ? 1000 : (float)(1 + i % 7);
    got[63 * 8] *= 1.1f; /* beside a row a thousand times as large */
    assert_true(worst(got, want, 64, 8, 1e-3, false) > 1);
    assert_true(isinf(worst((const float[]){ 7 }, (const float[]){ 8 }, 1, 1, 1, true)));
    assert_true(worst((const float[]){ 8 }, (const float[]){ 8 }, 1, 1, 1, true) == 0);
    const float cut[] = { -INFINITY, 1, 2, 3 }, less[] = { 0.5f, 1, 2, 3 }, more[] = { 0.5f, 1, -INFINITY, 3 };
    assert_true(worst(cut, less, 1, 4, 1e-3, false) == 0);
    assert_true(isinf(worst(cut, more, 1, 4, 1e-3, false)));
}

/* A near tie is none; what the other side found unlikely is. */
static void drawn_tokens_are_judged_by_their_logits(void **state)
{
    (void)state;
    const float logits[] = { 1, 3, 2.99f, -4, 0, 1, 2, 9 };
    const struct { float got[2], want[2]; double least, most; } cases[] = {
        { { 1, 3 }, { 1, 3 }, 0, 0 },       { { 2, 3 }, { 1, 3 }, 1e-4, 0.01 },
        { { 0, 3 }, { 1, 3 }, 0.2, 1 },     { { 1, 0 }, { 1, 3 }, 0.5, 1 },
        { { 4, 3 }, { 1, 3 }, INFINITY, INFINITY }, { { -1, 3 }, { 1, 3 }, INFINITY, INFINITY },
    };

    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        MiDifference d = { 0 };
        mi_compare_tokens(cases[i].got, cases[i].want, logits, 2, 4, &d);
        assert_true(d.element >= cases[i].least && d.element <= cases[i].most);
    }
}

TEST_MAIN(cmocka_unit_test(all_is_right), cmocka_unit_test(a_cache_with_scales_is_no_mistake),
          cmocka_unit_test(numbers_with_scales_are_the_nearest), cmocka_unit_test(mistakes_are_named), cmocka_unit_test(some_nodes_only),
          cmocka_unit_test(one_column_of_thousands_shows), cmocka_unit_test(rounding_passes_and_twice_of_it_does_not),
          cmocka_unit_test(rows_count_alone),
          cmocka_unit_test(drawn_tokens_are_judged_by_their_logits));
