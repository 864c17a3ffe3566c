/* test_tokenizer_json.c - what a tokenizer.json may say, and what of it is refused, by name. */
#include "letters.h"
#include "tokenizer_json.h"

#include <glib/gstdio.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <string.h>
#include <unistd.h>

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
        {FILE_OF(SEQUENCE("{\"type\":\"Digits\",\"individual_digits\":true}," ISOLATED("x") "," PLAIN_LEVEL)), "regex",
         "\\p{N}"},
        {FILE_OF("\"normalizer\":null," LEVEL), "gpt-2", NULL},
        {FILE_OF("\"pre_tokenizer\":{\"type\":\"ByteLevel\"},\"post_processor\":{\"type\":\"ByteLevel\"}"), "gpt-2", NULL},
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

#define SEQ(one) "{\"type\":\"Sequence\",\"pretokenizers\":[" one "]}"
#define METASPACE(more) "{\"type\":\"Metaspace\",\"replacement\":\"\xe2\x96\x81\"," more "}"
#define BLANKS                                                                                                         \
    "\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\" \"},\"content\":\"\xe2\x96\x81\"}"
#define AROUND(...) "{\"type\":\"TemplateProcessing\",\"single\":[" __VA_ARGS__ "]}"
#define SPECIAL(id) "{\"SpecialToken\":{\"id\":\"" id "\"}}"

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
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"content\":\"x\"}]"), "added_tokens[0]: id" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":1.5,\"content\":\"x\"}]"), "added_tokens[0]: id" },
    { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":9,\"content\":5}]"), "content: wanted a string" },
    { FILE_OF(LEVEL ",\"added_tokens\":[3]"), "added_tokens[0]: id" },
    { FILE_OF(LEVEL ",\"added_tokens\":[nul]"), "added_tokens: " },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[5]}}", "wanted an array" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[]]}}", "a pair of piece and score" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]]}}", "a pair of piece and score" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[1,2]]}}", "wanted a string" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\" 2]]}}", "wanted a comma" },
    { "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]],\"merges\":[\"a a\"]}}", "an array `vocab` and no merges" },
    { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":99999999999,\"vocab\":[[\"a\",0]]}}", "the unknown piece" },
    { "{" LEVEL ",\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",0]]}}", "a Unigram model of byte-level letters" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[]]}}", "a pair of pieces" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[5,\"a\"]]}}", "wanted a string" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\",5]]}}", "wanted a string" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB ",\"merges\":[[\"a\" \"b\"]]}}", "wanted a comma" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\"," VOCAB
      ",\"merges\":[\"a 0123456789012345678901234567890123456789012345\"]}}",
      "'0123456789012345678901234567890123456789' is no piece" },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"a2345678901234567890123456789012345678901234567890\":nul," VOCAB
      ",\"merges\":[]}}",
      "model.a234567890123456789012345678901234567890: " },
    { "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"continuing_subword_prefix\":\"##\",\"end_of_word_suffix\":\"\"," VOCAB
      ",\"merges\":[]}}",
      "subwords" },
    { FILE_OF("\"normalizer\":{\"type\":\"Prepend\",\"prepend\":\"_\"}," LEVEL), "'Prepend'" },
    { FILE_OF("\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"\xe2\x96\x81\"}," LEVEL),
     "'Replace'" },
    { FILE_OF("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":3}," LEVEL), "without its list" },
    { FILE_OF("\"normalizer\":{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFD\"}]}," LEVEL), "normalizer 'NFD'" },
    { FILE_OF(SEQUENCE(SEQ(SEQ(SEQ(SEQ(SEQ(SEQ(SEQ(SEQ(PLAIN_LEVEL)))))))))), "a Sequence too deep" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\\u0000\"},\"behavior\":\"Isolated\"}"),
     "pattern" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"Split\",\"behavior\":\"Isolated\"}"), "pattern" },
    { FILE_OF("\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"x\"},\"invert\":true}"), "'invert'" },
    { FILE_OF(SEQUENCE(ISOLATED("x") ",{\"type\":\"ByteLevel\"}")), "add_prefix_space, after other splits" },
    { FILE_OF("\"pre_tokenizer\":" METASPACE("\"prepend_scheme\":\"maybe\"")), "prepend_scheme 'maybe'" },
    { FILE_OF(SEQUENCE(METASPACE("\"split\":false") "," PLAIN_LEVEL)), "ByteLevel with U+2581 for blanks" },
    { FILE_OF(BLANKS ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\"x\"},\"behavior\":\"Isolated\"}"),
     "Split without ByteLevel" },
    { "{\"model\":{\"type\":\"BPE\",\"merges\":[]}}", "an object `vocab`, and merges" },
    { FILE_OF(BLANKS "," LEVEL), "ByteLevel with U+2581 for blanks" },
    { FILE_OF("\"normalizer\":{\"type\":\"NFC\"},\"pre_tokenizer\":" METASPACE("\"split\":false")),
     "NFC before a model that is not of bytes" },
    { FILE_OF(LEVEL ",\"post_processor\":" AROUND(SPECIAL("a") "," SPECIAL("b"))), "two special tokens on one side" },
    { FILE_OF(LEVEL ",\"post_processor\":" AROUND("{\"Sequence\":{}}," SPECIAL("a") "," SPECIAL("b"))),
     "two special tokens on one side" },
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

/* What else a file may say, each with what comes of it. */
static bool unknown_is_zero(const MiTokenizerData *d) { return d->unk == 0 && d->pieces[0].type == MI_PIECE_UNKNOWN; }
static bool no_unknown(const MiTokenizerData *d) { return d->unk == -1; }
static bool letters_are_bytes(const MiTokenizerData *d) { return d->pieces[0].len == 2 && !memcmp(d->pieces[0].text, " a", 2); }
static bool other_letters_stay(const MiTokenizerData *d) { return d->pieces[0].len == 3; }
static bool second_type_counts(const MiTokenizerData *d) { return !strcmp(d->kind, "bpe"); }
static bool falls_back(const MiTokenizerData *d) { return d->byte_fallback && d->pieces[0].type == MI_PIECE_BYTE; }
static bool blanks_are_blocks(const MiTokenizerData *d) { return d->escape_spaces && !d->pre && !strcmp(d->kind, "spm"); }
static bool prefix_always(const MiTokenizerData *d) { return d->add_prefix_space && !d->prefix_first; }
static bool prefix_first(const MiTokenizerData *d) { return d->add_prefix_space && d->prefix_first; }
static bool no_prefix(const MiTokenizerData *d) { return !d->add_prefix_space; }
static bool strips(const MiTokenizerData *d) { return d->pieces[0].lstrip && d->pieces[0].rstrip; }
static bool ends_by_config(const MiTokenizerData *d) { return d->bos == 0 && !d->add_bos && d->eos == 1 && d->add_eos; }
static bool ends_by_template(const MiTokenizerData *d) { return d->bos == 0 && d->add_bos && d->eos == 1 && d->add_eos; }
static bool adds_nothing(const MiTokenizerData *d) { return d->bos == -1 && !d->add_bos; }
static bool no_template(const MiTokenizerData *d) { return !d->chat_template; }

static void understands_variants(void **state)
{
#define BPE(vocab) "{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{" vocab "},\"merges\":[]}}"
#define BLOCKS(steps, more) "{" steps ",\"model\":{\"type\":\"BPE\"," more VOCAB ",\"merges\":[\"a b\"]}}"
#define SCHEME(scheme) BLOCKS("\"pre_tokenizer\":" METASPACE("\"prepend_scheme\":\"" scheme "\""), "")
#define ENDS FILE_OF(LEVEL ",\"post_processor\":" AROUND(SPECIAL("a") ",{\"Sequence\":{}}," SPECIAL("b")))
    static const struct { const char *text, *config; bool (*holds)(const MiTokenizerData *); } cases[] = {
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":0,\"vocab\":[[\"a\",0]]}}", NULL, unknown_is_zero },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":null,\"vocab\":[[\"a\",0]]}}", NULL, no_unknown },
        { "{\"model\":{\"type\":\"Unigram\",\"unk_id\":-7,\"vocab\":[[\"a\",0]]}}", NULL, no_unknown },
        { BPE("\"\xc4\xa0" "a\":0"), NULL, letters_are_bytes },
        { BPE("\"\xe6\xbc\xa2\":0"), NULL, other_letters_stay },
        { "{" LEVEL ",\"model\":{\"type\":\"Unigram\",\"type\":\"BPE\"," VOCAB ",\"merges\":[]}}", NULL, second_type_counts },
        { "{" LEVEL ",\"model\":{\"type\":\"\"," VOCAB ",\"dropout\":null,\"end_of_word_suffix\":null,\"merges\":[]}}", NULL,
          second_type_counts },
        { "{" BLANKS ",\"model\":{\"byte_fallback\":true,\"vocab\":{\"<0x0A>\":0,\"<0x0Ax\":1,\"<0y0A>\":2,\"<0xG0>\":3,"
          "\"<0x0G>\":4},\"merges\":[\"<0x0A> <0x0A>\"]}}", NULL, falls_back },
        { BLOCKS(BLANKS ",\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"String\":\" \"},\"behavior\":\"MergedWithPrevious\"}",
                 ""), NULL, blanks_are_blocks },
        { SCHEME("always"), NULL, prefix_always }, { SCHEME("first"), NULL, prefix_first }, { SCHEME("never"), NULL, no_prefix },
        { FILE_OF(LEVEL ",\"added_tokens\":[{\"id\":0,\"content\":\"a\",\"lstrip\":true,\"rstrip\":true}]"), NULL, strips },
        { ENDS, "{\"add_bos_token\":false,\"add_eos_token\":true}", ends_by_config },
        { ENDS, "{\"add_bos_token\":null,\"add_eos_token\":7}", ends_by_template },
        { FILE_OF(LEVEL), "{\"chat_template\":[{\"name\":\"tool\",\"template\":\"1\"}]}", no_template },
        { FILE_OF(LEVEL), "{\"chat_template\":[]}", no_template },
        { FILE_OF(LEVEL), "{\"add_bos_token\":true}", adds_nothing },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        g_autoptr(GError) error = NULL;
        MiTokenizerJson  *t = parse(cases[i].text, cases[i].config, &error);
        if (!t)
            fail_msg("%s\n  %s", cases[i].text, error->message);
        const MiTokenizerData d = mi_tokenizer_json_data(t);
        if (!cases[i].holds(&d))
            fail_msg("%s", cases[i].text);
        mi_tokenizer_json_free(t);
    }
}

static void refuses_a_configuration_that_is_none(void **state)
{
    static const struct { const char *config, *words; } bad[] = {
        { "[]", "t.json: line 1: wanted an object" },
        { "{\n\"a\" 1}", "t.json: line 2: " },
        { "{\"bos_token\":\"b\"}", "'a' is not the token that add_bos_token is about" },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autoptr(GError) error = NULL;
        assert_null(parse(ENDS, bad[i].config, &error));
        if (!strstr(error->message, bad[i].words))
            fail_msg("%s: %s", bad[i].config, error->message);
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
    enum { N = 5000000, PIECES = 3000 };
    GString *text = g_string_new("{" LEVEL ",\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,\"ab\":2");

    (void)state;
    for (int i = 3; i < PIECES; i++)
        g_string_append_printf(text, ",\"%d\":%d", i, i);
    g_string_append(text, "},\"merges\":[\"a b\"");
    for (int i = 1; i < N; i++)
        g_string_append(text, ",\"a b\"");
    g_string_append(text, "]}}");
    MiTokenizerJson *t = mi_tokenizer_json_parse("t.json", text->str, text->len, NULL, 0, NULL);
    assert_non_null(t);
    assert_int_equal(mi_tokenizer_json_data(t).n_merges, N);
    assert_int_equal(mi_tokenizer_json_data(t).n_pieces, PIECES);
    mi_tokenizer_json_free(t);
    g_string_free(text, TRUE);
}

/* GPT-2's letters, a few as its table has them; all of them come back. */
static void bytes_have_letters(void **state)
{
    static const struct { const char *byte, *letter; } known[] = {
        { " ", "\xc4\xa0" }, { "\n", "\xc4\x8a" }, { "!", "!" }, { "~", "~" }, { "\x7f", "\xc4\xa1" },
        { "\xa0", "\xc5\x82" }, { "\xa1", "\xc2\xa1" }, { "\xad", "\xc5\x83" }, { "\xff", "\xc3\xbf" },
    };
    char   all[256], letters[512], back[512];
    size_t n;

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(known); i++) {
        assert_int_equal(mi_bytes_to_letters(known[i].byte, 1, letters), strlen(known[i].letter));
        assert_memory_equal(letters, known[i].letter, strlen(known[i].letter));
    }
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    const size_t len = mi_bytes_to_letters(all, sizeof all, letters);
    assert_true(g_utf8_validate_len(letters, len, NULL));
    assert_true(mi_letters_to_bytes(letters, len, back, &n));
    assert_int_equal(n, sizeof all);
    assert_memory_equal(back, all, sizeof all);
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
    write_file(dir, names[1], "{}");
    write_file(dir, names[2], "{");
    g_clear_error(&error);
    assert_null(mi_tokenizer_json_open(dir, &error));
    assert_non_null(strstr(error->message, "special_tokens_map.json: line 1"));
    g_autofree char *map = g_build_filename(dir, names[2], NULL), *first = g_build_filename(dir, names[0], NULL);
    g_unlink(map);
    assert_int_equal(g_mkdir(map, 0700), 0);
    g_clear_error(&error);
    assert_null(mi_tokenizer_json_open(dir, &error));
    assert_non_null(strstr(error->message, "special_tokens_map.json: wanted a regular file"));
    g_rmdir(map);
    assert_int_equal(truncate(first, (1l << 29) + 1), 0);
    g_clear_error(&error);
    assert_null(mi_tokenizer_json_open(dir, &error));
    assert_non_null(strstr(error->message, "tokenizer.json: wanted a regular file of at most 536870912 bytes"));
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
        cmocka_unit_test(understands_variants),
        cmocka_unit_test(refuses_a_configuration_that_is_none),
        cmocka_unit_test(refuses_a_cut_file),
        cmocka_unit_test(refuses_bytes_that_are_no_text),
        cmocka_unit_test(refuses_what_nests_too_deep),
        cmocka_unit_test(reads_many_merges),
        cmocka_unit_test(bytes_have_letters),
        cmocka_unit_test(reads_a_directory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
