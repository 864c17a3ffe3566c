/* Hugging Face directories: what is in them, and what is refused and how. */
#include "formats_common.h"
#include "data/tiny_safetensors.h"
#include <sys/stat.h>
#include <unistd.h>

static char *folder;

static int set_up(void **state)
{
    (void)state;
    folder = new_folder();
    put(folder, "config.json", "{}", 2);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_folder(folder);
    g_free(folder);
    return 0;
}

/* A file of this header and so many zero bytes behind it. */
static void put_st(const char *name, const char *header, size_t bytes)
{
    const uint64_t       n = strlen(header);
    g_autoptr(GByteArray) file = g_byte_array_new();
    const guint8          zero = 0;

    g_byte_array_append(file, (const guint8 *)&n, 8);
    g_byte_array_append(file, (const guint8 *)header, (guint)n);
    for (size_t i = 0; i < bytes; i++)
        g_byte_array_append(file, &zero, 1);
    put(folder, name, file->data, file->len);
}

static void reads_what_the_package_wrote(void **state)
{
    static const float a[] = { 1, -2.5f, 0x1.f7p-16f, 65504, 0, -0x1.998p-4f };
    static const int64_t outside[][2] = { { -1, 1 }, { 0, -1 }, { 7, 0 }, { INT64_MAX, INT64_MAX } };
    g_autoptr(GError)    error = NULL;
    const MiFormat      *f = format_of("safetensors");
    MiWeight             w;
    float                x[6];

    (void)state;
    put(folder, "model.safetensors", tiny_safetensors, sizeof tiny_safetensors);
    assert_int_equal(f->probe(folder), 100);
    void *self = f->open(folder, NULL, &error);
    if (!self)
        fail_msg("%s", error->message);
    assert_int_equal(f->count(self), 3);
    assert_int_equal(f->rope_style(self), MI_ROPE_HALF);
    assert_true(f->find(self, "a.weight", &w));
    assert_true(w.ndim == 2 && w.shape[0] == 2 && w.shape[1] == 3 && w.bytes == 12);
    assert_string_equal(w.format, "f16");
    assert_true(f->decode(self, &w, 0, 6, x, &error));
    assert_memory_equal(x, a, sizeof a);
    assert_true(f->decode(self, &w, 5, 1, x, &error));
    assert_true(x[0] == a[5]);
    assert_false(f->decode(self, &w, 5, 2, x, &error));
    assert_non_null(strstr(error->message, "a.weight: elements 5 and 2 more"));
    for (size_t i = 0; i < G_N_ELEMENTS(outside); i++) {
        g_clear_error(&error);
        assert_false(f->decode(self, &w, outside[i][0], outside[i][1], x, &error));
        assert_non_null(strstr(error->message, "are no whole blocks of 1 of its 6"));
    }
    g_clear_error(&error);
    assert_true(f->find(self, "b", &w));
    f->drop(self, &w);
    /* Not of the file, before it, behind it, or in part: left alone. */
    f->drop(self, &(MiWeight){ .data = x, .bytes = sizeof x });
    f->drop(self, &(MiWeight){ .data = (const void *)1, .bytes = 1 });
    f->drop(self, &(MiWeight){ .data = w.data, .bytes = SIZE_MAX });
    assert_true(f->decode(self, &w, 0, 2, x, &error));
    assert_true(x[0] == 0.1f && x[1] == 1e-40f);
    assert_true(f->find(self, "n", &w));
    assert_true(w.ndim == 1 && w.shape[0] == 1);
    assert_false(f->decode(self, &w, 0, 1, x, &error));
    assert_non_null(strstr(error->message, "n is stored as i64"));
    assert_false(f->find(self, "c", &w));
    f->close(self);
}

static void refuses_hostile_headers(void **state)
{
#define T "\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]"
    static const struct { const char *header; size_t bytes; const char *words;
    } bad[] = {
        {"{", 0, "a header of 1 bytes"},
        {"  ", 0, "does not start with {"},
        {"[]", 0, "does not start with {"},
        {"{} x", 0, "something behind"},
        {"{}{}", 0, "something behind"},
        {"{\"a\"}", 0, "no a colon here"},
        {"{\"a\":1}", 0, "no an object here"},
        {"{\"a\":{}}", 0, "lacks its dtype"},
        {"{\"a\":{\"dtype\":\"F32\"}}", 0, "lacks its shape"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", 0, "lacks its data_offsets"},
        {"{\"a\":{" T "}", 8, "no a comma here"},
        {"{\"a\":{" T "},}", 8, "no a string here"},
        {"{\"a\":{" T "}  ", 8, "no a comma here"},
        {"{\"a\":{" T ",\"x\":1}}", 8, "has a key 'x'"},
        {"{\"a\":{" T ",\"dtype\":\"F32\"}}", 8, "its dtype twice"},
        {"{\"a\":{" T ",\"shape\":[2]}}", 8, "its shape twice"},
        {"{\"a\":{\"data_offsets\":[0,8]," T "}}", 8, "its data_offsets twice"},
        {"{\"a\":{" T "},\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12, "'a' is there twice"},
        {"{\"a\":{" T "},\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}", 12,
         "'a' is there twice"},
        {"{\"\":{" T "}}", 8, "is empty"},
        {"{\"a\\u0000b\":{" T "}}", 8, "'a?b', a tensor's name, is empty, longer than 255 bytes or holds control bytes"},
        {"{\"a\\nb\":{" T "}}", 8, "'a?b', a tensor's name"},
        {"{\"\xff\":{" T "}}", 8, "not UTF-8"},
        {"{\"a\\ud800\":{" T "}}", 8, "code of a character"},
        {"{\"a\n\":{" T "}}", 8, "control character"},
        {"{\"a\":{\"dtype\":\"Q4\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "of dtype 'Q4'"},
        {"{\"a\":{\"dtype\":7,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "no a string here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8, "no an array here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "no an integer here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2e0],\"data_offsets\":[0,8]}}", 8, "no an integer here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8, "no an integer here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,],\"data_offsets\":[0,8]}}", 8, "no an integer here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2", 8, "no a comma here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", 8, "has -2 in its dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "has 0 for dimension 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,2],\"data_offsets\":[0,8]}}", 8, "more than 4 dimensions"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775808],\"data_offsets\":[0,8]}}", 8, "no an integer here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,0]}}", 8, "more than 2^64"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 8, "more than 2^64"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8, "has 12 bytes by its shape and 8"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8, "more than 2 data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8]}}", 8, "has 1 data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":{}}}", 8, "no an array here"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8, "is at 8 to 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8, "has -8 in its data_offsets"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "of the file's 7 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[1,9]}}", 9, "starts at 1 of the data"},
        {"{\"a\":{" T "}}", 9, "end at 8 of 9"},
        {"{\"a\":{" T "},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]}}", 12,
         "one before it ends at 8"},
        {"{\"a\":{" T "},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "one before it ends at 8"},
        {"{\"a\":{" T "},\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[12,20]}}", 20,
         "one before it ends at 8"},
        {"{}", 1, "end at 0 of 1"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[]}}", 8, "has 0 data_offsets"},
        {"{\"a\":{5:1}}", 8, "no a string here"},
        {"{\"a\":{\"dtype\":\"F32\"", 8, "no a comma here"},
        {"{\"__metadata__\":{5:1}}", 0, "no a string here"},
        {"{\"__metadata__\":1}", 0, "no an object here"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "no a string here"},
        {"{\"__metadata__\":{\"a\":\"b\"", 0, "no a comma here"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "'__metadata__' is there twice"},
    };
    const MiFormat *f = format_of("safetensors");

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        put_st("model.safetensors", bad[i].header, bad[i].bytes);
        refused(f, folder, bad[i].words);
    }
    g_autofree char *name = g_strnfill(256, 'x'), *header = g_strdup_printf("{\"%s\":{" T "}}", name);
    put_st("model.safetensors", header, 8);
    refused(f, folder, "longer than 255 bytes");
}

static void refuses_what_is_no_file_of_tensors(void **state)
{
    static const uint64_t huge[] = { 1, 100, 100000001, UINT64_MAX, UINT64_MAX - 7, 1ull << 63 };
    const MiFormat  *f = format_of("safetensors");
    g_autofree char *path = g_build_filename(folder, "model.safetensors", NULL);

    (void)state;
    refused(f, folder, "holds neither model.safetensors nor");
    put(folder, "pytorch_model.bin", "", 0);
    refused(f, folder, "pytorch_model.bin cannot be read");
    put(folder, "model.safetensors", "", 0);
    refused(f, folder, "file is empty");
    for (size_t i = 1; i < 8; i++) {
        put(folder, "model.safetensors", "\2\0\0\0\0\0\0", i);
        refused(f, folder, "2 to 100000000 are possible");
    }
    for (size_t i = 0; i < G_N_ELEMENTS(huge); i++) {
        put(folder, "model.safetensors", &huge[i], 8);
        refused(f, folder, "2 to 100000000 are possible");
    }
    for (size_t i = 0; i < sizeof tiny_safetensors; i++) { /* cut anywhere */
        put(folder, "model.safetensors", tiny_safetensors, i);
        refused(f, folder, "/model.safetensors: ");
    }
    g_remove(path);
    assert_int_equal(mkfifo(path, 0600), 0);
    refused(f, folder, "not a regular file");
    g_remove(path);
    g_mkdir(path, 0700);
    refused(f, folder, "not a regular file");
    g_rmdir(path);
    put(folder, "model.safetensors", "\1\xe1\xf5\5\0\0\0", 8); /* one byte more than may be, and a file of that */
    assert_int_equal(truncate(path, 100000001 + 8), 0);
    refused(f, folder, "a header of 100000001 bytes in a file of 100000009");
    g_remove(path);
    assert_int_equal(f->probe(path), 90);
    assert_int_equal(f->probe(folder), 50); /* by config.json */
    put(folder, "model.safetensors.index.json", "{}", 2);
    assert_int_equal(f->probe(folder), 100);
    assert_int_equal(f->probe("/"), 0);
    refused(f, path, "No such file");
    assert_int_equal(f->probe("/dev/null"), 0);
}

static const char *meta(const char *config, const char *key)
{
    static char       out[64];
    g_autoptr(GError) error = NULL;
    const MiFormat   *f = format_of("safetensors");

    put(folder, "config.json", config, strlen(config));
    put_st("model.safetensors", "{}", 0);
    void *self = f->open(folder, NULL, &error);
    if (!self)
        fail_msg("%s", error->message);
    const char *value = f->meta(self, key);
    if (value)
        g_strlcpy(out, value, sizeof out);
    f->close(self);
    return value ? out : NULL;
}

static void flattens_the_configuration(void **state)
{
    static const char nested[] = "{\"architectures\":[\"X\",\"Y\"],\"rms_norm_eps\":1e-05,\"a\":{\"b\":{\"c\":-3}},"
                                 "\"t\":true,\"f\":false,\"n\":null,\"s\":\"\\u00e9\",\"r\":0.1}";
    static const char v5[] = "{\"rope_parameters\":{\"rope_theta\":500000.0,\"rope_type\":\"llama3\",\"factor\":8.0,"
                             "\"partial_rotary_factor\":0.25}}";

    (void)state;
    assert_string_equal(meta(nested, "architectures.1"), "Y");
    assert_string_equal(meta(nested, "rms_norm_eps"), "1e-05");
    assert_string_equal(meta(nested, "a.b.c"), "-3");
    assert_string_equal(meta(nested, "t"), "true");
    assert_string_equal(meta(nested, "f"), "false");
    assert_string_equal(meta(nested, "s"), "\303\251");
    assert_string_equal(meta(nested, "r"), "0.1");
    assert_string_equal(meta("{\"r\":0.30000000000000004}", "r"), "0.30000000000000004");
    assert_null(meta(nested, "n"));
    assert_null(meta(nested, "a"));
    assert_string_equal(meta(v5, "rope_theta"), "500000");
    assert_string_equal(meta(v5, "rope_scaling.rope_type"), "llama3");
    assert_string_equal(meta(v5, "rope_scaling.factor"), "8");
    assert_string_equal(meta(v5, "partial_rotary_factor"), "0.25");
    assert_string_equal(meta("{\"rotary_pct\":0.5,\"rotary_emb_base\":10}", "partial_rotary_factor"), "0.5");
    assert_string_equal(meta("{\"rotary_pct\":0.5,\"rotary_emb_base\":10}", "rope_theta"), "10");
    assert_string_equal(meta("{\"rope_theta\":7,\"rope_scaling\":{\"type\":\"linear\"}}", "rope_theta"), "7");
    put(folder, "generation_config.json", "{\"eos_token_id\":[1,2]}", 22);
    assert_string_equal(meta("{}", "generation_config.eos_token_id.1"), "2");
}

static void refuses_a_broken_configuration(void **state)
{
    static const char *const bad[][2] = {
        { "", "file is empty" },          { "{", "line 1:" },
        { "[]", "no JSON object" },       { "{\"a\":1,\"a\":2}", "duplicate" },
        { "{\"a\":1e309}", "line 1:" },   { "{} {}", "line 1:" },
        { "{\"a\":\"\\u0000\"}", "line 1:" },
        { "{\"a\":[[[[[[[[[1]]]]]]]]]}", "deeper than 8" },
    };
    const MiFormat *f = format_of("safetensors");

    (void)state;
    put_st("model.safetensors", "{}", 0);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        put(folder, "config.json", bad[i][0], strlen(bad[i][0]));
        refused(f, folder, bad[i][1]);
    }
    g_autoptr(GString) many = g_string_new("{\"a\":[0");
    for (int i = 0; i < 8192; i++)
        g_string_append(many, ",0");
    g_string_append(many, "]}");
    put(folder, "config.json", many->str, many->len);
    refused(f, folder, "more than 8192 values");
    g_string_set_size(many, (4 << 20) + 1);
    put(folder, "config.json", many->str, many->len);
    refused(f, folder, "at most 4194304 are read");
    put(folder, "config.json", "{}", 2);
    put(folder, "generation_config.json", "{]", 2);
    refused(f, folder, "generation_config.json: line 1:");
    g_autofree char *config = g_build_filename(folder, "config.json", NULL);
    g_remove(config);
    refused(f, folder, "config.json: No such file");
}

static void joins_shards(void **state)
{
    static const char index[] = "model.safetensors.index.json";
    static const char *const bad[][2] = {
        {"{}", "'weight_map' is no object"},
        {"{\"weight_map\":[]}", "'weight_map' is no object"},
        {"{\"weight_map\":{\"a\":1}}", "weight_map?s value"},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", "'../1.safetensors' is no name"},
        {"{\"weight_map\":{\"a\":\"/etc/1.safetensors\"}}", "is no name"},
        {"{\"weight_map\":{\"a\":\"1.bin\"}}", "is no name"},
        {"{\"weight_map\":{\"a\":\".safetensors\"}}", "is no name"},
        {"{\"weight_map\":{\"a\":\"3.safetensors\"}}", "3.safetensors: No such file"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\",\"c\":\"1.safetensors\"}}",
         "'c' is in none"},
        {"{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"4.safetensors\"}}", "'a' is there twice"},
    };
    static const char good[] = "{\"weight_map\":{\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}";
    const MiFormat   *f = format_of("safetensors");
    MiWeight          w;

    (void)state;
    put_st("1.safetensors", "{\"a\":{" T "}}", 8);
    put_st("2.safetensors", "{\"b\":{" T "}}", 8);
    put_st("4.safetensors", "{\"a\":{" T "}}", 8);
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        put(folder, index, bad[i][0], strlen(bad[i][0]));
        if (strstr(bad[i][1], "?s"))
            refused(f, folder, "is no name of a .safetensors file");
        else
            refused(f, folder, bad[i][1]);
    }
    put(folder, index, good, strlen(good));
    void *self = f->open(folder, NULL, NULL);
    assert_non_null(self);
    assert_int_equal(f->count(self), 2);
    assert_true(f->find(self, "a", &w) && f->find(self, "b", &w));
    f->close(self);
}

static void counts_have_a_limit(void **state)
{
    const MiFormat    *f = format_of("safetensors");
    g_autoptr(GString) s = g_string_new("{\"weight_map\":{");

    (void)state;
    for (int i = 0; i <= 1024; i++) {
        g_autofree char *name = g_strdup_printf("%d.safetensors", i);
        put_st(name, "{}", 0);
        g_string_append_printf(s, "%s\"%d\":\"%s\"", i ? "," : "", i, name);
    }
    g_string_append(s, "}}");
    put(folder, "model.safetensors.index.json", s->str, s->len);
    refused(f, folder, "more than 1024 files");
    g_string_assign(s, "{\"weight_map\":{\"x\":\"1.safetensors\"");
    for (int i = 0; i < 65536; i++)
        g_string_append_printf(s, ",\"%d\":\"1.safetensors\"", i);
    g_string_append(s, "}}");
    put(folder, "model.safetensors.index.json", s->str, s->len);
    refused(f, folder, "'weight_map' is no object of at most 65536 names");
    g_string_assign(s, "{");
    for (int i = 0; i <= 65536; i++)
        g_string_append_printf(s, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "", i, i,
                               i + 1);
    g_string_append(s, "}");
    put_st("model.safetensors", s->str, 65537);
    refused(f, folder, "more than 65536 tensors");
}

/* The tokenizer's eos and the ids of both configurations, each once and each a token. */
static void knows_what_ends_an_answer(void **state)
{
    static const char tokens[] =
        "{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},\"model\":"
        "{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"c\":3},\"merges\":[\"a b\"]}}";
    static const struct { const char *config, *generation, *words; uint32_t n; } cases[] = {
        { "{}", "{}", NULL, 0 },
        { "{\"eos_token_id\":1}", "{\"eos_token_id\":[3,1]}", NULL, 2 },
        { "{\"eos_token_id\":4}", "{}", "eos_token_id is 4; there are 4 tokens", 0 },
        { "{\"eos_token_id\":[0,-1]}", "{}", "eos_token_id.1 is -1; there are 4 tokens", 0 },
    };
    const MiFormat *f = format_of("safetensors");

    (void)state;
    put_st("model.safetensors", "{}", 0);
    for (size_t i = 0; i <= G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerData   t;
        const bool        none = i == G_N_ELEMENTS(cases);
        g_autofree char  *json = g_build_filename(folder, "tokenizer.json", NULL);
        put(folder, "tokenizer.json", tokens, strlen(tokens));
        if (none)
            g_remove(json);
        put(folder, "config.json", none ? "{}" : cases[i].config, strlen(none ? "{}" : cases[i].config));
        put(folder, "generation_config.json", none ? "{}" : cases[i].generation,
            strlen(none ? "{}" : cases[i].generation));
        void *self = f->open(folder, NULL, &error);
        assert_non_null(self);
        for (int again = 0; again < 2; again++) {
            const bool ok = f->tokenizer(self, &t, &error);
            if (none)
                assert_true(!ok && error->code == MI_ERROR_NOT_FOUND);
            else if (cases[i].words)
                assert_true(!ok && strstr(error->message, cases[i].words));
            else
                assert_true(ok && t.n_stop == cases[i].n);
            g_clear_error(&error);
        }
        f->close(self);
    }
    g_autofree char *json = g_build_filename(folder, "tokenizer.json", NULL);
    g_autoptr(GError) error = NULL;
    MiTokenizerData   t;
    assert_int_equal(symlink("/etc/passwd", json), 0);
    void *self = f->open(folder, NULL, NULL);
    assert_false(f->tokenizer(self, &t, &error));
    assert_non_null(strstr(error->message, "a link that leads out"));
    f->close(self);
}

static void has_64_ends_at_most(void **state)
{
    g_autoptr(GString) tokens = g_string_new("{\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                                             "\"model\":{\"type\":\"BPE\",\"merges\":[],\"vocab\":{");
    g_autoptr(GString) config = g_string_new("{\"eos_token_id\":[");
    g_autoptr(GError)  error = NULL;
    const MiFormat    *f = format_of("safetensors");
    MiTokenizerData    t;

    (void)state;
    for (int i = 0; i < 65; i++) {
        g_string_append_printf(tokens, "%s\"%d\":%d", i ? "," : "", i, i);
        g_string_append_printf(config, "%s%d", i ? "," : "", i);
    }
    g_string_append(tokens, "}}}");
    g_string_append(config, "]}");
    put_st("model.safetensors", "{}", 0);
    put(folder, "config.json", config->str, config->len);
    put(folder, "tokenizer.json", tokens->str, tokens->len);
    void *self = f->open(folder, NULL, &error);
    assert_non_null(self);
    assert_false(f->tokenizer(self, &t, &error));
    assert_non_null(strstr(error->message, "more than 64 end tokens"));
    f->close(self);
}

/* <repository>/snapshots/<commit>/x -> ../../blobs/<hash> is followed, a link elsewhere is not. */
static void follows_links_within_the_repository(void **state)
{
    const MiFormat  *f = format_of("safetensors");
    g_autofree char *snapshots = g_build_filename(folder, "snapshots", NULL);
    g_autofree char *commit = g_build_filename(snapshots, "c0ffee", NULL),
                    *blobs = g_build_filename(folder, "blobs", NULL);
    g_autofree char *link = g_build_filename(commit, "model.safetensors", NULL);
    g_autofree char *config = g_build_filename(commit, "config.json", NULL), *outside = new_folder();
    g_autofree char *other = g_build_filename(outside, "x", NULL);

    (void)state;
    g_mkdir(snapshots, 0700);
    g_mkdir(commit, 0700);
    g_mkdir(blobs, 0700);
    put(blobs, "1", tiny_safetensors, sizeof tiny_safetensors);
    put(blobs, "2", "{}", 2);
    put(outside, "x", "{}", 2);
    assert_int_equal(symlink("../../blobs/1", link), 0);
    assert_int_equal(symlink("../../blobs/2", config), 0);
    void *self = f->open(commit, NULL, NULL);
    assert_non_null(self);
    f->close(self);
    self = f->open(link, NULL, NULL); /* the file alone, config.json beside it */
    assert_non_null(self);
    f->close(self);
    g_remove(config);
    assert_int_equal(symlink(other, config), 0);
    refused(f, commit, "a link that leads out");
    remove_folder(outside);
    /* Beside the repository, by a name that begins with the repository's. */
    g_autofree char *beside = g_strconcat(folder, "2", NULL), *there = g_build_filename(beside, "x", NULL);
    g_mkdir(beside, 0700);
    put(beside, "x", "{}", 2);
    g_remove(config);
    assert_int_equal(symlink(there, config), 0);
    refused(f, commit, "a link that leads out");
    remove_folder(beside);
}

#define ALONE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)
TEST_MAIN(ALONE(reads_what_the_package_wrote), ALONE(refuses_hostile_headers),
          ALONE(refuses_what_is_no_file_of_tensors), ALONE(flattens_the_configuration),
          ALONE(refuses_a_broken_configuration), ALONE(joins_shards), ALONE(counts_have_a_limit),
          ALONE(has_64_ends_at_most), ALONE(knows_what_ends_an_answer),
          ALONE(follows_links_within_the_repository));
