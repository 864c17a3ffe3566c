/* A GGUF file reads as the PyPI package gguf reads it (data/gguf_dump.py). */
#include "common.h"

static const MiFormat *format(void)
{
    static MiRegistry *r;
    g_autoptr(GError)  error = NULL;

    if (!r)
        r = load(NULL);
    const MiFeature *f = mi_registry_find(r, MI_KIND_FORMAT, "gguf", "*", &error);
    if (!f)
        fail_msg("%s", error->message);
    return f->vtable;
}

/* The first 16 digits, as the dump has them. */
static const char *sha(const void *data, size_t bytes, char out[17])
{
    g_autofree char *hex = g_compute_checksum_for_data(G_CHECKSUM_SHA256, data, bytes);
    g_strlcpy(out, hex, 17);
    return out;
}

static void weights(GString *out, const MiFormat *f, void *self)
{
    for (size_t i = 0; i < f->count(self); i++) {
        g_autoptr(GError) error = NULL;
        MiWeight          w, again;
        int64_t           n = 1;
        char              digits[17];

        f->at(self, i, &w);
        assert_true(f->find(self, w.name, &again));
        assert_ptr_equal(w.data, again.data);
        g_string_append_printf(out, "weight %s %s ", w.name, w.format);
        for (int d = 0; d < w.ndim; d++) {
            g_string_append_printf(out, "%s%d", d ? "x" : "", (int)w.shape[d]);
            n *= w.shape[d];
        }
        n = MIN(n, 1 << 18);
        g_autofree float *x = g_new(float, (gsize)n);
        /* In two pieces, so that `first` counts. */
        const int64_t half = n / 2 / 256 * 256;
        assert_true(f->decode(self, &w, 0, half, x, &error));
        f->drop(self, &w); /* changes nothing that is read */
        assert_true(f->decode(self, &w, half, n - half, x + half, &error));
        g_string_append_printf(out, " %s\n", sha(x, (size_t)n * sizeof *x, digits));
    }
}

static void vocabulary(GString *out, const MiFormat *f, void *self)
{
    g_autoptr(GError)    error = NULL;
    MiTokenizerData      t, again;
    g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
    static const int     types[] = { 1, 2, 3, 4, 6 };
    char                 digits[17];

    if (!f->tokenizer(self, &t, &error) || !f->tokenizer(self, &again, &error))
        fail_msg("%s", error->message);
    assert_ptr_equal(t.pieces, again.pieces);
    for (uint32_t i = 0; i < t.n_pieces; i++) {
        const MiPiece   *p = &t.pieces[i];
        g_autofree char *head = p->text ? g_strdup_printf("%u %d ", p->len, types[p->type]) : g_strdup("5 5 (gap)");
        g_checksum_update(sum, (const guchar *)head, -1);
        g_checksum_update(sum, (const guchar *)p->text, p->len);
    }
    g_string_append_printf(out, "pieces %u %.16s\n", t.n_pieces, g_checksum_get_string(sum));
    if (t.merges)
        g_string_append_printf(out, "merges %u %s\n", t.n_merges, sha(t.merges, t.n_merges * sizeof *t.merges, digits));
    if (!t.merges) {
        g_autofree float *scores = g_new(float, t.n_pieces);
        for (uint32_t i = 0; i < t.n_pieces; i++)
            scores[i] = t.pieces[i].score;
        g_string_append_printf(out, "scores %s\n", sha(scores, t.n_pieces * sizeof *scores, digits));
    }
    g_string_append_printf(out, "id bos %d\nid eos %d\nid padding %d\nid unknown %d\n", t.bos, t.eos, t.pad, t.unk);
    g_string_append_printf(
        out, "template %s\n",
        sha(t.chat_template ? t.chat_template : "", t.chat_template ? strlen(t.chat_template) : 0, digits));
}

/* models/<name>.gguf of the shared data or of $MI_MODELS; NULL: it is not there. */
static char *model(const char *name)
{
    const char      *data = g_getenv("MI_DATA"), *models = g_getenv("MI_MODELS");
    g_autofree char *file = g_strconcat(name, ".gguf", NULL);
    g_autofree char *beside = g_build_filename(g_getenv("MI_SRCDIR"), "../shared/data", NULL);
    char            *path = g_build_filename(data ? data : beside, "models", file, NULL);

    if (!g_file_test(path, G_FILE_TEST_EXISTS) && models) {
        g_free(path);
        path = g_build_filename(models, file, NULL);
    }
    if (!g_file_test(path, G_FILE_TEST_EXISTS))
        g_clear_pointer(&path, g_free);
    return path;
}

static void reads_as_the_reference(void **state)
{
    static const char *const names[] = {"stories260K", "SmolLM2-135M-Instruct.Q4_1",
                                        "qwen2.5-coder-0.5b-instruct-q4_k_m"};
    static const char *const keys[] = {
        "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads",
        "max_position_embeddings", "rms_norm_eps", "rope_theta", "tie_word_embeddings" };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autoptr(GError)   error = NULL;
        g_autoptr(GString)  out = g_string_new(NULL);
        g_autofree char    *path = model(names[i]), *file = g_strconcat(names[i], ".dump", NULL), *text = NULL;
        g_autofree char    *dump = g_build_filename(g_getenv("MI_SRCDIR"), "tests/data", file, NULL);
        const MiFormat     *f = format();

        if (!path) {
            print_message("%s is not here: not compared\n", names[i]);
            continue;
        }
        assert_int_equal(f->probe(path), 100);
        void *self = f->open(path, NULL, &error);
        if (!self)
            fail_msg("%s", error->message);
        weights(out, f, self);
        for (size_t k = 0; k < G_N_ELEMENTS(keys); k++)
            g_string_append_printf(out, "meta %s %s\n", keys[k], f->meta(self, keys[k]));
        vocabulary(out, f, self);
        f->close(self);
        assert_true(g_file_get_contents(dump, &text, NULL, NULL));
        assert_string_equal(out->str, text);
    }
}

TEST_MAIN(cmocka_unit_test(reads_as_the_reference));
