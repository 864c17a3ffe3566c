/* Rotary frequencies against those of transformers (tests/rope_reference.py). */
#include "device.h"
#include "rope.h"

typedef struct {
    char **pairs; /* "key=value", NULL-terminated */
} Config;

static const char *find(const Config *c, const char *key)
{
    for (char **p = c->pairs; *p; p++)
        if (g_str_has_prefix(*p, key) && (*p)[strlen(key)] == '=')
            return *p + strlen(key) + 1;
    return NULL;
}

static const char *meta(void *self, const char *key)
{
    static const char *const outside[] = { "rope_theta", "partial_rotary_factor", "max_position_embeddings" };
    for (size_t i = 0; i < G_N_ELEMENTS(outside); i++)
        if (strcmp(key, outside[i]) == 0)
            return find(self, key);
    return g_str_has_prefix(key, "rope_scaling.") ? find(self, key + strlen("rope_scaling.")) : NULL;
}

static MiRopeStyle half(void *self) { return (void)self, MI_ROPE_HALF; }

static MiRope read_rope(const Config *c, MiRecording *r)
{
    static const MiFormat format = { .struct_size = sizeof format, .meta = meta, .rope_style = half };
    const MiSource        source = { &format, (void *)(uintptr_t)c };
    MiRope                rope = mi_meta_rope(&r->pub, &source, atoi(find(c, "head_dim")));

    if (find(c, "seq_len"))
        rope.max_len = (float)atof(find(c, "seq_len"));
    return rope;
}

static void frequencies_are_those_of_transformers(void **state)
{
    (void)state;
    g_autoptr(GError)  error = NULL;
    g_autofree char   *path = g_build_filename(g_getenv("MI_SRCDIR"), "tests/rope_reference.txt", NULL);
    g_autofree char   *text = NULL;
    int                n = 0;

    if (!g_file_get_contents(path, &text, NULL, &error))
        fail_msg("%s", error->message);
    g_auto(GStrv) lines = g_strsplit(g_strchomp(text), "\n", -1);
    for (char **line = lines; *line; line++, n++) {
        g_auto(GStrv) halves = g_strsplit(*line, " | ", 2), pairs = g_strsplit(halves[0], " ", -1),
                      numbers = g_strsplit(halves[1], " ", -1);
        const Config      c = { pairs };
        MiRecording      *r = mi_recording_new(NULL, MI_F32);
        const MiRope      rope = read_rope(&c, r);
        g_autofree float *freqs = mi_rope_frequencies(&rope, &error);

        if (!freqs || !mi_recording_ok(r, &error))
            fail_msg("%s: %s", halves[0], error->message);
        assert_int_equal(g_strv_length(numbers), 1 + rope.rotate.dim / 2);
        assert_near(rope.rotate.magnitude, atof(numbers[0]), 1e-6, 0);
        for (int i = 0; i < rope.rotate.dim / 2; i++)
            if (fabs(freqs[i] / atof(numbers[1 + i]) - 1) > 1e-6)
                fail_msg("%s: frequency %d is %.9g, not %s", halves[0], i, freqs[i], numbers[1 + i]);
        mi_recording_free(r);
    }
    assert_true(n > 20);
}

static void refuses(MiRope rope, const char *why)
{
    g_autoptr(GError) error = NULL;
    assert_null(mi_rope_frequencies(&rope, &error));
    if (!strstr(error->message, why))
        fail_msg("'%s' does not say '%s'", error->message, why);
}

static void refuses_what_cannot_be(void **state)
{
    (void)state;
    const MiRope good = { .rotate = { 64, MI_ROPE_HALF, 1 }, .scaling = "yarn", .theta = 10000, .factor = 2,
                          .low_freq = 1, .high_freq = 4, .original_len = 4096, .beta_fast = 32, .beta_slow = 1,
                          .max_len = 4096 };
    g_autofree float *freqs = mi_rope_frequencies(&good, NULL);
    assert_non_null(freqs);
    for (int i = 0; i < 10; i++) {
        MiRope r = good;
        switch (i) {
        case 0: r.rotate.dim = 63; break;
        case 1: r.rotate.dim = 0; break;
        case 2: r.theta = 0; break;
        case 3: r.theta = NAN; break;
        case 4: r.factor = -1; break;
        case 5: r.original_len = 0; break;
        case 6: r.beta_slow = 0; break;
        case 7: r.scaling = "llama3", r.high_freq = 1; break;
        case 8: r.scaling = "dynamic", r.rotate.dim = 2; break;
        case 9: r.scaling = "dynamic", r.original_len = NAN; break;
        }
        refuses(r, "rope '");
    }
    MiRope unknown = good;
    unknown.scaling = "longrope";
    refuses(unknown, "'longrope' is not known; default, linear, dynamic, yarn, llama3 are");

    char             *pairs[] = { "rope_type=yarn", "truncate=false", "head_dim=64", NULL };
    g_autoptr(GError) error = NULL;
    MiRecording      *r = mi_recording_new(NULL, MI_F32);
    (void)read_rope(&(Config){ pairs }, r);
    assert_false(mi_recording_ok(r, &error));
    assert_non_null(strstr(error->message, "truncate"));
    mi_recording_free(r);
}

TEST_MAIN(cmocka_unit_test(frequencies_are_those_of_transformers), cmocka_unit_test(refuses_what_cannot_be));
