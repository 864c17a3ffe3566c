/* What inspect says of features and of a model file, of a hostile one too. */
#include "common.h"
#include "inspect.h"
#include "report.h"

static const MiWeight weights[] = {
    { .name = "a.weight", .format = "f32", .ndim = 2, .shape = { 3, 5 }, .bytes = 60 },
    { .name = "b\x1b[2J\n.weight", .format = "q8_0", .ndim = 1, .shape = { 32 }, .bytes = 34 },
    { .name = "c", .format = "f32", .ndim = 3, .shape = { INT64_MAX, INT64_MAX, 2 }, .bytes = 4 },
    { .name = "d", .format = "f32", .ndim = 99, .shape = { 1, 2, 3, 4 }, .bytes = 96 },
};

static size_t count(void *self)
{
    (void)self;
    return G_N_ELEMENTS(weights);
}
static void at(void *self, size_t i, MiWeight *out)
{
    (void)self;
    *out = weights[i];
}
static const char *meta(void *self, const char *key) { return strcmp(key, "architectures.0") ? NULL : self; }
static bool meta_at(void *self, size_t i, const char **key, const char **value)
{
    (void)self;
    *key = "general.\xff", *value = "one\ttwo\x9b";
    return i == 0;
}
static bool tokenizer(void *self, MiTokenizerData *out, GError **error)
{
    if (*(const char *)self == '-')
        g_set_error(error, MI_ERROR, MI_ERROR_NOT_FOUND, "none");
    else if (*(const char *)self == '!')
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "x.gguf: a merge of nothing");
    else
        *out = (MiTokenizerData){ .kind = "bpe", .n_pieces = 7, .bos = -1, .eos = 2, .chat_template = "{{ x }}" };
    return out->kind;
}

static const MiFormat plain = { .struct_size = sizeof plain, .count = count, .at = at, .meta = meta };
static const MiFormat whole = {
    .struct_size = sizeof whole, .count = count, .at = at, .meta = meta, .meta_at = meta_at, .tokenizer = tokenizer,
};

static char *reported(const MiFormat *vt, const char *architecture, bool json, GError **error)
{
    MiRegistry    *r = load(NULL);
    GString       *text = g_string_new(NULL);
    MiReport       report = { .text = json ? NULL : text, .json = { text, false }, .key = "" };
    const MiSource source = { vt, (void *)(uintptr_t)architecture };
    bool           ok = mi_report_model(&report, r, &source, "x.gguf", error);

    mi_registry_free(r);
    return g_string_free(text, !ok);
}

static void has(const char *text, const char *line)
{
    if (!strstr(text, line))
        fail_msg("'%s' is not in:\n%s", line, text);
}

static void a_model_is_described(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    g_autofree char  *text = reported(&whole, "LlamaForCausalLM", false, &error);

    has(text, "model           x.gguf\n");
    has(text, "architecture    LlamaForCausalLM\nruns as         llama\n");
    has(text, "parameters      71\nbytes           194\n"); /* 15 + 32 + nothing sane + 24 */
    has(text, "  f32              3 tensors          160 bytes\n  q8_0             1 tensors           34 bytes\n");
    has(text, "tokenizer       bpe\npre             none\npieces          7\n");
    has(text, "eos             2\nchat template   7\n");
    has(text, "  general.\xef\xbf\xbd = one?two\xef\xbf\xbd\n");
    has(text, "  b?[2J?.weight ");
    has(text, " 3 x 5 ");
    for (const char *p = text; *p; p++)
        assert_true(*p == '\n' || (unsigned char)*p >= ' ');
}

static void a_model_is_described_as_json(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    g_autofree char  *text = reported(&whole, "ZebraForCausalLM", true, &error);

    has(text, "\"runs_as\":\"nothing: no loaded model records that architecture\"");
    has(text, "\"tokenizer\":{\"kind\":\"bpe\",\"pre\":\"none\",\"pieces\":7,\"merges\":0,\"bos\":-1,\"eos\":2,");
    has(text, "\"tensors\":[{\"name\":\"a.weight\",\"format\":\"f32\",\"shape\":[3,5],\"bytes\":60},"
              "{\"name\":\"b\\u001b[2J\\n.weight\",");
    has(text, "\"shape\":[1,2,3,4]");
}

static void a_model_may_lack_a_tokenizer(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    g_autofree char  *without = reported(&plain, NULL, false, &error);
    g_autofree char  *missing = reported(&whole, "-", true, &error);
    g_autofree char  *broken = reported(&whole, "!", false, &error);

    has(without, "architecture    not said\n");
    has(without, "tokenizer       none\nmetadata\ntensors\n");
    has(missing, "\"tokenizer\":\"none\"");
    assert_null(broken);
    assert_string_equal(error->message, "x.gguf: a merge of nothing");
}

static void features_say_what_their_tables_say(void **state)
{
    (void)state;
    MiRegistry        *r = load((const char *[]){ "tests/plugins/stubs.so", NULL });
    MiConfig          *c = mi_config_new();
    const char *const  asked[] = { "fusion:norm_qkv_rope", "linear:stub", "attention:simple@stub", "op:rope@stub",
                                   "sampler:stub_draw", "format:gguf", "op:rope@nowhere" };
    g_autoptr(GString) text = g_string_new(NULL);
    g_autoptr(GError)  error = NULL;

    for (size_t i = 0; i + 1 < G_N_ELEMENTS(asked); i++) {
        if (!mi_inspect(r, c, asked[i], false, text, &error))
            fail_msg("%s", error->message);
        assert_true(mi_inspect(r, c, asked[i], true, text, &error));
    }
    has(text->str, "pattern         rmsnorm, linear, linear, linear, rope, rope, kv_append\nlayouts         plain\n");
    has(text->str, "\"pattern\":[\"rmsnorm\",");
    has(text->str, "formats         bf16\nlayout          plain\n");
    has(text->str, "layouts         contiguous\ncache dtypes    f32\n");
    has(text->str, "head sizes      any\n");
    has(text->str, "\"head_sizes\":null");
    has(text->str, "inputs          2\noutputs         1\nweights         0\n");
    has(text->str, "gives           the token\n");
    has(text->str, "writes          ");
    assert_false(mi_inspect(r, c, asked[G_N_ELEMENTS(asked) - 1], true, text, &error));
    assert_int_equal(error->code, MI_ERROR_NOT_FOUND);
    mi_config_free(c);
    mi_registry_free(r);
}

TEST_MAIN(cmocka_unit_test(a_model_is_described), cmocka_unit_test(a_model_is_described_as_json),
          cmocka_unit_test(a_model_may_lack_a_tokenizer), cmocka_unit_test(features_say_what_their_tables_say));
