/* test_tokenizer_json.c - what a tokenizer.json may say, and what of it is refused, by name. */
#include "tokenizer_json.h"

#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>

#define LEVEL "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"
#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2,\"\\u0120\":3}"
#define MODEL "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"]}"
#define FILE_OF(steps) "{" steps "," MODEL "}"

static MiTokenizerJson *parse(const char *text, const char *config, GError **error)
{
    return mi_tokenizer_json_parse("t.json", text, strlen(text), config, config ? strlen(config) : 0, error);
}

static void reads_a_small_file(void **state)
{
    g_autoptr(GError) error = NULL;
    MiTokenizerJson *t =
        parse("{\"added_tokens\":[{\"id\":6,\"content\":\"<|x|>\",\"special\":true,\"rstrip\":true},"
              "{\"id\":4,\"content\":\"\\u0120\\u00e9\\ud83d\\ude00\",\"special\":false}],"
              "\"normalizer\":{\"type\":\"NFC\"}," LEVEL ",\"post_processor\":{\"type\":\"TemplateProcessing\","
              "\"single\":[{\"SpecialToken\":{\"id\":\"<|x|>\",\"type_id\":0}},{\"Sequence\":{\"id\":\"A\"}}]},"
              "\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\",\"b\"],[\"\\u0120\",\"ab\"]],"
              "\"ignore_merges\":true}}",
              "{\"eos_token\":{\"content\":\"<|x|>\"},\"model_max_length\":1000000000000000019884624838656,"
              "\"chat_template\":[{\"name\":\"tool\",\"template\":\"1\"},{\"name\":\"default\",\"template\":\"2\"}]}",
              &error);
    if (!t)
        fail_msg("%s", error->message);
    const MiTokenizerData d = mi_tokenizer_json_data(t);

    (void)state;
    assert_string_equal(d.kind, "bpe");
    assert_string_equal(d.pre, "gpt-2");
    assert_string_equal(d.chat_template, "2");
    assert_int_equal(d.n_pieces, 7);
    assert_memory_equal(d.pieces[3].text, " ", 1); /* the letter's byte */
    assert_int_equal(d.pieces[3].len, 1);
    assert_null(d.pieces[5].text); /* a gap */
    assert_int_equal(d.pieces[4].type, MI_PIECE_USER);
    assert_int_equal(d.pieces[4].len, 8); /* an added token is meant as it is */
    assert_memory_equal(d.pieces[4].text, "\xc4\xa0\xc3\xa9\xf0\x9f\x98\x80", 8);
    assert_int_equal(d.pieces[6].type, MI_PIECE_CONTROL);
    assert_true(d.pieces[6].rstrip && !d.pieces[6].lstrip);
    assert_int_equal(d.n_merges, 2);
    assert_int_equal(d.merges[1][0], 3);
    assert_int_equal(d.merges[1][1], 2);
    assert_int_equal(d.bos, 6); /* by the post-processor */
    assert_int_equal(d.eos, 6);
    assert_int_equal(d.n_stop, 1);
    assert_int_equal(d.stop[0], 6);
    assert_true(d.add_bos && !d.add_eos && d.nfc && d.ignore_merges && !d.add_prefix_space);
    mi_tokenizer_json_free(t);
}

static void names_the_split_rules(void **state)
{
#define ISOLATED(regex)                                                                                                \
    "{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"},\"behavior\":\"Isolated\",\"invert\":false}"
#define PLAIN_LEVEL "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"
#define SEQUENCE(...) "\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[" __VA_ARGS__ "]}"
    static const struct { const char *text, *pre, *split;
    } cases[] = {
        {FILE_OF(LEVEL), "gpt-2", NULL},
        {FILE_OF("\"pre_tokenizer\":" PLAIN_LEVEL), NULL, NULL},
        {FILE_OF(SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true},"
                          "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}")),
         "smollm", NULL},
        {FILE_OF(SEQUENCE(ISOLATED("x+") "," PLAIN_LEVEL)), "regex", "x+" },
        {FILE_OF(
             SEQUENCE("{\"type\":\"Split\",\"pattern\":{\"String\":\"a.b\"},\"behavior\":\"Isolated\"}," PLAIN_LEVEL)),
         "regex", "a\\.b" },
        {FILE_OF(SEQUENCE("{\"type\":\"Digits\"}," PLAIN_LEVEL)), "regex", NULL},
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        MiTokenizerJson *t = parse(cases[i].text, NULL, NULL);
        assert_non_null(t);
        const MiTokenizerData d = mi_tokenizer_json_data(t);
        assert_int_equal(g_strcmp0(d.pre, cases[i].pre), 0);
        if (cases[i].split)
            assert_string_equal(d.split[0], cases[i].split);
        mi_tokenizer_json_free(t);
    }
}

/* With which words each is refused. */
static const struct { const char *text, *words; } bad[] = {
    { "", "wanted an object" },
    { "[]", "wanted an object" },
    { "{", "wanted a string" },
    { "{}", "wanted a member `model`" },
    { "{\"truncation\":", "wanted a value" },
    { "{" MODEL "} x", "wanted the end" },
    { "{" MODEL "," MODEL "}", "model is there twice" },
    { "{" LEVEL "," LEVEL "," MODEL "}", "pre_tokenizer is there twice" },
    { "{\"model\":{}}", "model 'without a type'" },
    { "{\"padding\":\"x", "the end of a string" },
    { "{\"padding\":[\"x\\\"]}", "a closing bracket" },
    { "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{}}}", "model 'WordPiece'" },
    { "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", "an object `vocab`" },
    { "{\"model\":{\"type\":\"BPE\"," VOCAB "}}", "an object `vocab`, and merges" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":{}}}", "an array `vocab`" },
    { "{\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[]}}", "neither ByteLevel" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{},\"merges\":[]}}", "a vocabulary of 0 pieces" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB "," VOCAB ",\"merges\":[]}}", "vocab is there twice" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":-1},\"merges\":[]}}", "id -1" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":2147483648},\"merges\":[]}}", "id 2147483648" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":99999999999999999999},\"merges\":[]}}", "an integer" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":1.5},\"merges\":[]}}", "an integer" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":200000},\"merges\":[]}}", "id 200000; wanted 0 to" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":0},\"merges\":[]}}", "two pieces have" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"a\":1},\"merges\":[]}}", "has the text of piece 0" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\" 0},\"merges\":[]}}", "wanted a colon" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0 \"b\":1},\"merges\":[]}}", "wanted a comma" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\":0},\"merges\":[]}}", "the code of a character" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\ud800\\u0041\":0},\"merges\":[]}}",
     "the code of a character" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\q\":0},\"merges\":[]}}", "an escape" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"\\u00g0\":0},\"merges\":[]}}", "the code of a character" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"\n\":0},\"merges\":[]}}", "control character" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a c\"]}}", "merges[0]: 'c' is no piece" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"ab\"]}}", "with a blank between" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\"]]}}", "a pair of pieces" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\",\"b\",\"a\"]]}}", "a pair of pieces" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[5]}}", "wanted a string" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\",]}}", "wanted a string" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"dropout\":0.1," VOCAB ",\"merges\":[]}}", "dropout" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"end_of_word_suffix\":\"</w>\"," VOCAB ",\"merges\":[]}}", "suffix" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"unk_token\":\"<u>\"," VOCAB ",\"merges\":[]}}", "the unknown piece" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"unk_token\":nul," VOCAB ",\"merges\":[]}}", "model.unk_token" },
    { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":1,\"vocab\":[[\"a\",0]]}}", "the unknown piece" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",\"b\"]]}}", "wanted a number" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0,1]]}}", "a pair of piece and score" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",NaN]]}}", "wanted a number" },
    { FILE_OF("\"normalizer\":{\"type\":\"NFKC\"}," LEVEL), "normalizer 'NFKC'" },
    { FILE_OF("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\" \"},\"content\":\"_\"}," LEVEL),
     "'Replace'" },
    { FILE_OF("\"normalizer\":{\"type\":\"Sequence\"}," LEVEL), "without its list" },
    { FILE_OF("\"normalizer\":3," LEVEL), "normalizer ''" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"BertPreTokenizer\"}"), "'BertPreTokenizer'" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x\"},\"behavior\":\"Removed\"}"),
     "'Removed'" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"\"},\"behavior\":\"Isolated\"}"),
     "pattern" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x\"},\"behavior\":\"Isolated\"}"),
     "Split without ByteLevel" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"Metaspace\",\"replacement\":\"_\"}"), "replacement" },
    { FILE_OF(LEVEL ",\"post_processor\":{\"type\":\"BertProcessing\"}"), "'BertProcessing'" },
    { FILE_OF(LEVEL
             ",\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}}]}"),
     "'<s>' is not the token" },
    { FILE_OF(LEVEL ",\"added_tokens\":{}"), "added_tokens: wanted an array" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":-1,\"content\":\"x\"}]"), "added_tokens[0]: id" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":2147483648,\"content\":\"x\"}]"), "added_tokens[0]: id" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":9}]"), "content: wanted a string" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":1,\"content\":\"x\"}]"), "different pieces" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":9,\"content\":\"a\"}]"), "different pieces" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":9,\"content\":\"x\",\"single_word\":true}]"), "single_word" },
};

static void refuses_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerJson  *t = parse(bad[i].text, NULL, &error);
        if (t || !error || !strstr(error->message, bad[i].words) || !g_str_has_prefix(error->message, "t.json: "))
            fail_msg("%s\n  '%s', wanted '%s'", bad[i].text, error ? error->message : "read", bad[i].words);
    }
}

static void refuses_a_cut_file(void **state)
{
    static const char whole[] = FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":9,\"content\":\"<x>\",\"special\":true}]");

    (void)state;
    for (size_t n = 0; n < sizeof whole - 1; n++) {
        g_autoptr(GError) error = NULL;
        assert_null(mi_tokenizer_json_parse("t.json", whole, n, NULL, 0, &error));
        assert_non_null(error);
    }
    MiTokenizerJson *t = mi_tokenizer_json_parse("t.json", whole, sizeof whole - 1, NULL, 0, NULL);
    assert_non_null(t);
    mi_tokenizer_json_free(t);
}

static void refuses_bytes_that_are_no_text(void **state)
{
    g_autoptr(GError) error = NULL, error2 = NULL;

    (void)state;
    assert_null(parse("{\"\xff\":0}", NULL, &error));
    assert_non_null(strstr(error->message, "UTF-8"));
    assert_null(parse(FILE_OF(LEVEL), "{\"eos_token\":\"\xff\"}", &error2));
    assert_non_null(strstr(error2->message, "line 1"));
}

static void refuses_what_nests_too_deep(void **state)
{
    g_autofree char  *open = g_strnfill(1000000, '['), *close = g_strnfill(1000000, ']');
    g_autofree char  *text = g_strdup_printf("{\"normalizer\":%s%s," LEVEL "," MODEL "}", open, close);
    g_autoptr(GError) error = NULL;

    (void)state;
    assert_null(parse(text, NULL, &error));
    assert_non_null(strstr(error->message, "normalizer: "));
    /* What is not read may nest. */
    g_autofree char *other = g_strdup_printf("{\"truncation\":%s%s," LEVEL "," MODEL "}", open, close);
    MiTokenizerJson *t = parse(other, NULL, NULL);
    assert_non_null(t);
    mi_tokenizer_json_free(t);
}

static void reads_many_merges(void **state)
{
    enum { N = 5000000 };
    GString *text = g_string_new("{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[\"a b\"");

    (void)state;
    for (int i = 1; i < N; i++)
        g_string_append(text, ",\"a b\"");
    g_string_append(text, "]}}");
    MiTokenizerJson *t = mi_tokenizer_json_parse("t.json", text->str, text->len, NULL, 0, NULL);
    assert_non_null(t);
    assert_int_equal(mi_tokenizer_json_data(t).n_merges, N);
    mi_tokenizer_json_free(t);
    g_string_free(text, TRUE);
}

/* ---- a directory ----------------------------------------------------------- */
static void write_file(const char *dir, const char *name, const char *text)
{
    g_autofree char *path = g_build_filename(dir, name, NULL);
    assert_true(g_file_set_contents(path, text, -1, NULL));
}

static void reads_a_directory(void **state)
{
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "chat_template.jinja"};
    g_autofree char         *dir = g_dir_make_tmp("mi-tokenizer-XXXXXX", NULL);
    g_autoptr(GError)        error = NULL;

    (void)state;
    assert_null(mi_tokenizer_json_open(dir, &error));
    assert_non_null(strstr(error->message, "there is no tokenizer.json"));
    write_file(dir, names[0], FILE_OF(LEVEL));
    MiTokenizerJson *t = mi_tokenizer_json_open(dir, NULL);
    assert_non_null(t);
    assert_int_equal(mi_tokenizer_json_data(t).eos, -1);
    mi_tokenizer_json_free(t);
    write_file(dir, names[1], "{\"chat_template\":\"old\",\"pad_token\":\"b\",\"eos_token\":null}");
    write_file(dir, names[2], "{\"eos_token\":{\"content\":\"ab\"},\"pad_token\":\"a\"}");
    write_file(dir, names[3], "new");
    t = mi_tokenizer_json_open(dir, NULL);
    assert_non_null(t);
    assert_string_equal(mi_tokenizer_json_data(t).chat_template, "new");
    assert_int_equal(mi_tokenizer_json_data(t).eos, 2);
    assert_int_equal(mi_tokenizer_json_data(t).pad, 1);
    mi_tokenizer_json_free(t);
    write_file(dir, names[1], "{\"eos_token\":}");
    g_clear_error(&error);
    assert_null(mi_tokenizer_json_open(dir, &error));
    assert_non_null(strstr(error->message, "tokenizer_config.json: line 1"));
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++) {
        g_autofree char *path = g_build_filename(dir, names[i], NULL);
        g_unlink(path);
    }
    g_autofree char *inner = g_build_filename(dir, names[0], NULL);
    assert_int_equal(g_mkdir(inner, 0700), 0);
    g_clear_error(&error);
    assert_null(mi_tokenizer_json_open(dir, &error));
    assert_non_null(strstr(error->message, "regular file"));
    g_rmdir(inner);
    g_rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_a_small_file),
        cmocka_unit_test(names_the_split_rules),
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(refuses_a_cut_file),
        cmocka_unit_test(refuses_bytes_that_are_no_text),
        cmocka_unit_test(refuses_what_nests_too_deep),
        cmocka_unit_test(reads_many_merges),
        cmocka_unit_test(reads_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
