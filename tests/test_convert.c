/* The write halves: what goes to a Hugging Face directory and back to GGUF is the same model. */
#include "formats_common.h"
#include "gguf_builder.h"
#include <signal.h>
#include <sys/resource.h>

static char *folder;

static int set_up(void **state)
{
    (void)state;
    folder = new_folder();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_folder(folder);
    g_free(folder);
    return 0;
}

typedef struct { MiSource s; char *path; } Model;

static Model open_model(const MiFormat *f, const char *name)
{
    g_autoptr(GError) error = NULL;
    Model             m = { .path = g_build_filename(folder, name, NULL) };

    m.s = (MiSource){ f, f->open(m.path, NULL, &error) };
    if (!m.s.self)
        fail_msg("%s", error->message);
    return m;
}

static void close_model(Model *m)
{
    m->s.vt->close(m->s.self);
    g_free(m->path);
}

static Model small_model(Small which)
{
    Builder b = small_gguf(which);
    put(folder, "a.gguf", b.bytes->data, b.bytes->len);
    builder_free(&b);
    return open_model(format_of("gguf"), "a.gguf");
}

static Model converted(const Model *from, const MiFormat *to, const char *name, const char *dtype)
{
    g_autoptr(GError) error = NULL;
    g_autofree char  *path = g_build_filename(folder, name, NULL);
    const MiWriteSpec spec = { .dtype = dtype };

    if (!to->write(path, &from->s, &spec, &error))
        fail_msg("%s", error->message);
    return open_model(to, name);
}

static int64_t values(const Model *m, const char *name, float *out, int64_t max)
{
    g_autoptr(GError) error = NULL;
    MiWeight          w;
    int64_t           n = 1;

    if (!m->s.vt->find(m->s.self, name, &w))
        fail_msg("there is no %s", name);
    for (int d = 0; d < w.ndim; d++)
        n *= w.shape[d];
    assert_true(n <= max);
    if (!m->s.vt->decode(m->s.self, &w, 0, n, out, &error))
        fail_msg("%s", error->message);
    return n;
}

static const char *stored(const Model *m, const char *name)
{
    MiWeight w;
    return m->s.vt->find(m->s.self, name, &w) ? w.format : "(none)";
}

static const char *meta(const Model *m, const char *key) { return m->s.vt->meta(m->s.self, key); }

static void same_tokens(const Model *a, const Model *b)
{
    g_autoptr(GError) error = NULL;
    MiTokenizerData   t, u;

    if (!a->s.vt->tokenizer(a->s.self, &t, &error) || !b->s.vt->tokenizer(b->s.self, &u, &error))
        fail_msg("%s", error->message);
    assert_string_equal(t.kind, u.kind);
    for (uint32_t i = u.n_pieces; i < t.n_pieces; i++) /* gaps at the end are no part of a tokenizer.json */
        assert_null(t.pieces[i].text);
    assert_true(t.bos == u.bos && t.eos == u.eos && t.unk == u.unk && t.pad == u.pad);
    assert_true(t.add_bos == u.add_bos && t.add_prefix_space == u.add_prefix_space && t.nfc == u.nfc);
    assert_true(t.byte_fallback == u.byte_fallback && t.escape_spaces == u.escape_spaces);
    assert_string_equal(t.chat_template, u.chat_template);
    assert_true(g_strcmp0(t.pre, u.pre) == 0);
    assert_int_equal(t.n_stop, u.n_stop);
    for (uint32_t i = 0; i < t.n_stop; i++)
        assert_int_equal(t.stop[i], u.stop[i]);
    for (uint32_t i = 0; i < u.n_pieces; i++) {
        assert_int_equal(t.pieces[i].text != NULL, u.pieces[i].text != NULL);
        if (!t.pieces[i].text)
            continue;
        assert_int_equal(t.pieces[i].len, u.pieces[i].len);
        assert_memory_equal(t.pieces[i].text, u.pieces[i].text, t.pieces[i].len);
        if (u.pieces[i].type != MI_PIECE_CONTROL || (int32_t)i != t.unk) /* tokenizer.json has no type for it */
            assert_int_equal(t.pieces[i].type, u.pieces[i].type);
    }
    if (strcmp(t.kind, "bpe") == 0) {
        assert_int_equal(t.n_merges, u.n_merges);
        assert_memory_equal(t.merges, u.merges, t.n_merges * sizeof *t.merges);
    }
    if (strcmp(t.kind, "unigram") == 0)
        for (uint32_t i = 0; i < u.n_pieces; i++)
            assert_true(t.pieces[i].score == u.pieces[i].score);
    if (strcmp(t.kind, "spm") == 0) { /* scores become ranks: what they order is kept: " ab" before "ab" */
        assert_true(t.pieces[8].score > t.pieces[7].score);
        if (!u.merges)
            assert_true(u.pieces[8].score > u.pieces[7].score);
        else
            assert_true(u.n_merges == 2 && u.merges[0][0] == 4 && u.merges[0][1] == 7 && u.merges[1][0] == 5);
    }
}

static void comes_back_the_same(void **state)
{
    static const char *const keys[] = {
        "architectures.0", "num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads",
        "num_key_value_heads", "head_dim", "vocab_size", "rms_norm_eps", "layer_norm_eps", "rope_theta", "hidden_act",
        "tie_word_embeddings", "max_position_embeddings", "partial_rotary_factor", "use_parallel_residual",
        "rope_scaling.rope_type", "rope_scaling.factor", "rope_scaling.original_max_position_embeddings" };

    (void)state;
    for (int which = 0; which < SMALL_N; which++) {
        Model a = small_model((Small)which), b = converted(&a, format_of("safetensors"), "b", "f32");
        Model c = converted(&b, format_of("gguf"), "c.gguf", "f32");
        static float x[8192], y[8192];

        assert_int_equal(a.s.vt->count(a.s.self), c.s.vt->count(c.s.self));
        for (size_t i = 0; i < a.s.vt->count(a.s.self); i++) {
            MiWeight w, v;
            a.s.vt->at(a.s.self, i, &w);
            assert_true(c.s.vt->find(c.s.self, w.name, &v));
            assert_memory_equal(w.shape, v.shape, sizeof w.shape);
            const int64_t n = values(&a, w.name, x, G_N_ELEMENTS(x));
            assert_int_equal(values(&c, w.name, y, G_N_ELEMENTS(y)), n);
            assert_memory_equal(x, y, (size_t)n * sizeof *x);
        }
        for (size_t k = 0; k < G_N_ELEMENTS(keys); k++)
            if (g_strcmp0(meta(&a, keys[k]), meta(&c, keys[k])) != 0)
                fail_msg("%s was %s and is %s", keys[k], meta(&a, keys[k]), meta(&c, keys[k]));
        same_tokens(&a, &b);
        same_tokens(&a, &c);
        close_model(&a), close_model(&b), close_model(&c);
        tear_down(NULL), set_up(NULL);
    }
}

/* Row 2i + j of a head in Llama's GGUF is row j * 8 + i of Hugging Face's heads of 16. */
static void turns_the_rows_of_q_and_k(void **state)
{
    static const struct { const char *name; int rows;
    } weights[] = {{"model.layers.0.self_attn.q_proj.weight", 32}, {"model.layers.0.self_attn.k_proj.weight", 16}};
    Model        a = small_model(SMALL_LLAMA_BPE), b = converted(&a, format_of("safetensors"), "b", "keep");
    static float x[1024], y[1024];

    (void)state;
    assert_int_equal(a.s.vt->rope_style(a.s.self), MI_ROPE_INTERLEAVED);
    assert_int_equal(b.s.vt->rope_style(b.s.self), MI_ROPE_HALF);
    for (size_t k = 0; k < G_N_ELEMENTS(weights); k++) {
        values(&a, weights[k].name, x, 1024);
        values(&b, weights[k].name, y, 1024);
        for (int head = 0; head < weights[k].rows; head += 16)
            for (int i = 0; i < 8; i++)
                for (int j = 0; j < 2; j++)
                    assert_memory_equal(x + (head + 2 * i + j) * 32, y + (head + j * 8 + i) * 32, 32 * sizeof *x);
    }
    values(&a, "model.layers.0.self_attn.v_proj.weight", x, 1024);
    values(&b, "model.layers.0.self_attn.v_proj.weight", y, 1024);
    assert_memory_equal(x, y, 16 * 32 * sizeof *x);
    close_model(&a), close_model(&b);
}

/* GGUF has all of q, then k, then v; Hugging Face q, k, v of each head. */
static void joins_q_k_v_by_heads(void **state)
{
    Builder      b = small_gguf(SMALL_NEOX_SPM);
    Model        a = small_model(SMALL_NEOX_SPM);
    static float x[96 * 32];
    const guint8 *raw = NULL;

    (void)state;
    values(&a, "gpt_neox.layers.0.attention.query_key_value.weight", x, G_N_ELEMENTS(x));
    for (size_t i = 0; i < b.bytes->len && !raw; i++) /* its offset stands 40 bytes behind the name */
        if (memcmp(b.bytes->data + i, "blk.0.attn_qkv.weight", 21) == 0) {
            uint64_t offset;
            memcpy(&offset, b.bytes->data + i + 21 + 4 + 16 + 4, 8);
            raw = b.bytes->data + b.bytes->len - b.data + offset;
        }
    assert_non_null(raw);
    for (int head = 0; head < 2; head++)
        for (int part = 0; part < 3; part++)
            assert_memory_equal((const guint8 *)x + ((head * 3 + part) * 16) * 128, raw + (part * 32 + head * 16) * 128,
                                16 * 128);
    close_model(&a);
    builder_free(&b);
}

static void takes_the_dtype_that_is_asked_for(void **state)
{
    static const char q[] = "model.layers.0.self_attn.q_proj.weight", k[] = "model.layers.0.self_attn.k_proj.weight",
                      v[] = "model.layers.0.self_attn.v_proj.weight", o[] = "model.layers.0.self_attn.o_proj.weight",
                      norm[] = "model.norm.weight";
    static const char *const dtypes[] = { "f32", "f16", "bf16" };
    Model a = small_model(SMALL_LLAMA_BPE), b = converted(&a, format_of("safetensors"), "keep", "keep");

    (void)state;
    assert_string_equal(stored(&b, q), "f32");
    assert_string_equal(stored(&b, k), "f16");
    assert_string_equal(stored(&b, v), "bf16");
    assert_string_equal(stored(&b, o), "f16"); /* q4_0 there */
    assert_string_equal(stored(&b, norm), "f32");
    close_model(&b);
    b = converted(&a, format_of("gguf"), "keep.gguf", "keep");
    assert_string_equal(stored(&b, o), "q4_0");
    assert_string_equal(stored(&b, v), "bf16");
    close_model(&b);
    for (size_t i = 0; i < G_N_ELEMENTS(dtypes); i++)
        for (int to = 0; to < 2; to++) {
            g_autofree char *name = g_strconcat(dtypes[i], to ? ".gguf" : "", NULL);
            b = converted(&a, format_of(to ? "gguf" : "safetensors"), name, dtypes[i]);
            assert_string_equal(stored(&b, q), dtypes[i]);
            assert_string_equal(stored(&b, o), dtypes[i]);
            assert_string_equal(stored(&b, norm), "f32");
            close_model(&b);
        }
    close_model(&a);
}

static bool stop_half_way(void *user, uint64_t done, uint64_t total)
{
    *(uint64_t *)user = done;
    assert_true(done <= total);
    return done < total / 2;
}

static void not_written(const Model *from, const MiFormat *to, const char *path, const MiWriteSpec *spec,
                        const char *words)
{
    g_autoptr(GError) error = NULL;
    g_autofree char  *part = g_strconcat(path, ".part", NULL);

    assert_false(to->write(path, &from->s, spec, &error));
    if (!strstr(error->message, words) || strchr(error->message, '\n'))
        fail_msg("'%s' lacks '%s'", error->message, words);
    assert_false(g_file_test(part, G_FILE_TEST_EXISTS));
}

static void leaves_nothing_after_an_error(void **state)
{
    Model             a = small_model(SMALL_LLAMA_BPE);
    uint64_t          done = 0;
    const MiWriteSpec keep = { .dtype = "keep" }, odd = { .dtype = "q4_0" };
    const MiWriteSpec stop = { .dtype = "f32", .progress = stop_half_way, .user = &done };
    struct rlimit     old;

    (void)state;
    for (int to = 0; to < 2; to++) {
        const MiFormat  *f = format_of(to ? "gguf" : "safetensors");
        g_autofree char *path = g_build_filename(folder, "x", NULL), *part = g_strconcat(path, ".part", NULL);
        g_autofree char *nowhere = g_build_filename(folder, "no", "x", NULL);

        not_written(&a, f, a.path, &keep, "exists already");
        not_written(&a, f, nowhere, &keep, "cannot be made: No such file or directory");
        not_written(&a, f, path, &odd, "dtype 'q4_0'; keep, f32, f16 and bf16");
        not_written(&a, f, path, &stop, "stopped");
        assert_true(done > 0);
        put(folder, "x.part", "", 0);
        g_autoptr(GError) error = NULL;
        assert_false(f->write(path, &a.s, &keep, &error));
        assert_non_null(strstr(error->message, "is in the way"));
        assert_true(g_file_test(part, G_FILE_TEST_EXISTS)); /* another's */
        g_remove(part);
        /* A full disk, as far as a program can have one to itself. */
        signal(SIGXFSZ, SIG_IGN);
        assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &(struct rlimit){ 5000, old.rlim_max }), 0);
        not_written(&a, f, path, &keep, "cannot be written: File too large");
        assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
        assert_false(g_file_test(path, G_FILE_TEST_EXISTS));
    }
    close_model(&a);
}

static void put_directory(const char *config, const char *header, size_t bytes)
{
    const uint64_t        n = strlen(header);
    g_autoptr(GByteArray) b = g_byte_array_new();

    g_byte_array_append(b, (const guint8 *)&n, 8);
    g_byte_array_append(b, (const guint8 *)header, (guint)n);
    while (bytes--)
        g_byte_array_append(b, (const guint8 *)"\0", 1);
    put(folder, "config.json", config, strlen(config));
    put(folder, "model.safetensors", b->data, b->len);
}

static void refuses_what_cannot_be_said(void **state)
{
#define LLAMA                                                                                                          \
    "\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":8,\"num_hidden_layers\":1,\"num_attention_heads\":2"
#define Q(name, rows, bytes) "{\"" name "\":{\"dtype\":\"F32\",\"shape\":[" rows ",8],\"data_offsets\":[0," bytes "]}}"
    static const struct { const char *config, *header; size_t bytes; const char *gguf, *st;
    } bad[] = {
        {"{}", "{}", 0, "architecture '(none)' is not converted", "architecture '(none)' is not converted"},
        {"{\"architectures\":[\"X\"]}", "{}", 0, "architecture 'X' is not converted", "architecture 'X'"},
        {"{\"architectures\":[\"LlamaForCausalLM\"]}", "{}", 0, "are no model", "are no model"},
        {"{" LLAMA "}", Q("model.layers.0.self_attn.q_proj.weight", "6", "192"), 192, "6 rows, which are no heads of 4",
         "6 rows"},
        {"{" LLAMA "}", Q("some.weight", "8", "256"), 256, "'some.weight' has no name in GGUF", NULL},
        {"{" LLAMA "}", Q("some\\u0022", "8", "256"), 256, "has no name in GGUF", "a name that is not written"},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"longrope\"}}", "{}", 0, "rope_scaling 'longrope' cannot be said",
         NULL},
        {"{" LLAMA ",\"rope_scaling\":{\"type\":\"llama3\",\"factor\":0.5}}", "{}", 0, NULL, NULL},
        {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":0.5}}", "{}", 0,
         "rope_scaling of llama3 by 0.5", NULL},
        {"{" LLAMA ",\"rms_norm_eps\":\"x\"}", "{}", 0, NULL, "'rms_norm_eps' is 'x', which cannot be written"},
        {"{" LLAMA ",\"vocab_size\":1.5}", "{}", 0, NULL, "'vocab_size' is '1.5'"},
        {"{" LLAMA ",\"tie_word_embeddings\":\"maybe\"}", "{}", 0, NULL, "'tie_word_embeddings' is 'maybe'"},
    };
    const MiWriteSpec keep = { .dtype = "keep" };
    g_autofree char  *path = NULL;

    (void)state;
    tear_down(NULL), set_up(NULL);
    path = g_build_filename(folder, "out", NULL);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        put_directory(bad[i].config, bad[i].header, bad[i].bytes);
        Model a = open_model(format_of("safetensors"), ".");
        if (bad[i].gguf)
            not_written(&a, format_of("gguf"), path, &keep, bad[i].gguf);
        if (bad[i].st)
            not_written(&a, format_of("safetensors"), path, &keep, bad[i].st);
        close_model(&a);
    }
}

/* Llama 3's rotation goes into a tensor and comes out as numbers again, those of all Llamas or others. */
static void keeps_the_rotation_of_llama3(void **state)
{
    static const char *const configs[] = { "1.0", "2.0" };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(configs); i++) {
        g_autofree char *config = g_strdup_printf("{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,"
                                                  "\"num_hidden_layers\":1,\"num_attention_heads\":2,\"rope_theta\":"
                                                  "500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\","
                                                  "\"factor\":8.0,\"low_freq_factor\":%s,\"high_freq_factor\":4.0,"
                                                  "\"original_max_position_embeddings\":8192}}",
                                                  configs[i]);
        put_directory(config,
                      "{\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[1,8],\"data_offsets\":[0,32]},"
                      "\"model.layers.0.self_attn.rotary_emb.inv_freq\":{\"dtype\":\"F32\",\"shape\":[2],\"data_"
                      "offsets\":[32,40]}}",
                      40);
        Model a = open_model(format_of("safetensors"), "."), b = converted(&a, format_of("gguf"), "l3.gguf", "keep");
        assert_string_equal(meta(&b, "rope_scaling.rope_type"), "llama3");
        assert_string_equal(meta(&b, "rope_scaling.factor"), "8");
        assert_string_equal(meta(&b, "rope_scaling.low_freq_factor"), i ? "2" : "1");
        assert_string_equal(meta(&b, "rope_scaling.original_max_position_embeddings"), "8192");
        assert_int_equal(b.s.vt->count(b.s.self), 1); /* neither the tensor of divisors nor the old buffer */
        g_remove(b.path);
        close_model(&a), close_model(&b);
    }
}

/* A build of the plugin that begins a new shard after 4000 bytes. */
static void shards_what_is_large(void **state)
{
    g_autoptr(GError) error = NULL;
    g_autofree char  *plugin = built("tests/plugins/small_shards.so");
    MiRegistry       *r = mi_registry_new();
    Model             a = small_model(SMALL_LLAMA_BPE);
    static float      x[1024], y[1024];

    (void)state;
    if (!mi_plugin_load(r, plugin, &error))
        fail_msg("%s", error->message);
    const MiFeature *f = mi_registry_find(r, MI_KIND_FORMAT, "safetensors", "*", &error);
    assert_non_null(f);
    Model            b = converted(&a, f->vtable, "sharded", "f16");
    g_autofree char *first = g_build_filename(b.path, "model-00001-of-00006.safetensors", NULL);
    g_autofree char *index = g_build_filename(b.path, "model.safetensors.index.json", NULL);
    assert_true(g_file_test(first, G_FILE_TEST_EXISTS) && g_file_test(index, G_FILE_TEST_EXISTS));
    assert_int_equal(b.s.vt->count(b.s.self), a.s.vt->count(a.s.self));
    assert_int_equal(values(&a, "model.layers.0.self_attn.k_proj.weight", x, 1024), 512);
    values(&b, "model.layers.0.self_attn.k_proj.weight", y, 1024);
    assert_memory_equal(x, y, 32 * sizeof *x); /* f16 there, too; row 0 stays in its place */
    close_model(&a), close_model(&b);
    mi_registry_free(r);
}

#define ALONE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
TEST_MAIN(ALONE(comes_back_the_same), ALONE(turns_the_rows_of_q_and_k), ALONE(joins_q_k_v_by_heads),
          ALONE(takes_the_dtype_that_is_asked_for), ALONE(leaves_nothing_after_an_error),
          ALONE(refuses_what_cannot_be_said), ALONE(keeps_the_rotation_of_llama3), ALONE(shards_what_is_large));
