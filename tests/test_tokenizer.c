/* test_tokenizer.c - parts of the tokenizers against slow ways to do the same, and what they refuse. */
#include "common.h"
#include "merge.h"
#include "normal.h"
#include "scan.h"

#include <math.h>

static MiRegistry *registry;

/* ---- merging --------------------------------------------------------------- */
enum { SYMBOLS = 40 };

/* The definition: of all pairs the lowest rank, the leftmost, until there is none. */
static size_t merge_slowly(const MiPairs *pairs, int32_t *ids, size_t n)
{
    for (;;) {
        const MiPair *best = NULL;
        size_t        at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            const MiPair *p = mi_pairs_find(pairs, ids[i], ids[i + 1]);
            if (p && (!best || p->rank < best->rank))
                best = p, at = i;
        }
        if (!best)
            return n;
        ids[at] = best->id;
        memmove(ids + at + 1, ids + at + 2, (--n - at - 1) * sizeof *ids);
    }
}

/* Tables no training would make: pairs that give what they came from, equal ranks, later parts before
 * earlier ones. */
static void merges_like_the_definition(void **state)
{
    GRand         *r = g_rand_new_with_seed(7);
    MiMergeScratch scratch = { 0 };
    int32_t        ids[700], slow[700];

    (void)state;
    for (int table = 0; table < 200; table++) {
        const int n_pairs = g_rand_int_range(r, 1, 400), n_ids = g_rand_int_range(r, 1, SYMBOLS);
        MiPairs   pairs;
        assert_true(mi_pairs_init(&pairs, (size_t)n_pairs));
        for (int i = 0; i < n_pairs; i++)
            mi_pairs_add(&pairs, g_rand_int_range(r, -2, n_ids), g_rand_int_range(r, 0, n_ids),
                         table % 2 ? (uint32_t)i : (uint32_t)g_rand_int_range(r, 0, 5), g_rand_int_range(r, 0, n_ids));
        for (int word = 0; word < 10; word++) {
            size_t n = (size_t)g_rand_int_range(r, 0, word < 5 ? 64 : G_N_ELEMENTS(ids));
            for (size_t i = 0; i < n; i++)
                ids[i] = slow[i] = word % 3 ? g_rand_int_range(r, 0, n_ids) : 0;
            const size_t wanted = merge_slowly(&pairs, slow, n);
            assert_true(mi_merge(&pairs, &scratch, ids, &n));
            assert_int_equal(n, wanted);
            assert_memory_equal(ids, slow, n * sizeof *ids);
        }
        mi_pairs_clear(&pairs);
    }
    mi_merge_scratch_clear(&scratch);
    g_rand_free(r);
}

/* ---- splitting ------------------------------------------------------------- */
typedef const char *(*Scan)(const char *p, const char *end);

static void random_text(GRand *r, GString *text)
{
    static const char *const parts[] = {
        "a", "bc", "\xc3\xa9", "\xe6\x97\xa5", "1", "23", "\xc2\xbd", " ", "  ", "\t", "\n", "\r\n", "\xc2\xa0",
        "\xe3\x80\x80", "\xc2\x85", "\v", "\f", "'", "'s", "'LL", "'\xc5\xbf", "'Re", "'d", "'m", "!", "-",
        "\xf0\x9f\x98\x80", "\xcc\x81", "_", "\x01",
    };

    g_string_truncate(text, 0);
    for (int n = g_rand_int_range(r, 0, 14); n > 0; n--)
        g_string_append(text, parts[g_rand_int_range(r, 0, G_N_ELEMENTS(parts))]);
}

/* The scanners beside the expressions that they stand for. */
static void splits_like_the_expressions(void **state)
{
#define REST "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+"
    const struct { Scan scan; const char *regex; } rules[] = {
        { mi_scan_gpt2, "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+" },
        { mi_scan_llama3, WORDS "|\\p{N}{1,3}" REST },
        { mi_scan_qwen2, WORDS "|\\p{N}" REST },
    };
    GRand   *r = g_rand_new_with_seed(3);
    GString *text = g_string_new(NULL);

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(rules); i++) {
        g_autoptr(GRegex) regex = g_regex_new(rules[i].regex, 0, 0, NULL);
        assert_non_null(regex);
        for (int t = 0; t < 5000; t++) {
            random_text(r, text);
            g_autoptr(GMatchInfo) info = NULL;
            const char           *p = text->str, *end = p + text->len;
            int                   from, to;
            g_regex_match_full(regex, text->str, (gssize)text->len, 0, 0, &info, NULL);
            for (; g_match_info_matches(info); g_match_info_next(info, NULL)) {
                assert_true(g_match_info_fetch_pos(info, 0, &from, &to));
                assert_int_equal(p - text->str, from);
                p = rules[i].scan(p, end);
                if (p - text->str != to)
                    fail_msg("rule %zu, '%s', from byte %d: %d, wanted %d", i, text->str, from, (int)(p - text->str),
                             to);
            }
            assert_ptr_equal(p, end);
        }
    }
    g_string_free(text, TRUE);
    g_rand_free(r);
}

/* ---- normalisation --------------------------------------------------------- */
static void normalises_what_is_text(void **state)
{
    static const struct { const char *text, *wanted; size_t len, wanted_len; } cases[] = {
        { "plain", "plain", 5, 5 },
        { "e\xcc\x81", "\xc3\xa9", 3, 2 },
        { "e\xff\xcc\x81 e\xcc\x81\xc3", "e\xff\xcc\x81 \xc3\xa9\xc3", 9, 8 },
        { "a\0e\xcc\x81\0", "a\0\xc3\xa9\0", 6, 5 },
        { "\xed\xa0\x80o\xcc\x88", "\xed\xa0\x80\xc3\xb6", 6, 5 },
    };

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++) {
        char  *out;
        size_t n;
        assert_true(mi_nfc(cases[i].text, cases[i].len, &out, &n));
        assert_int_equal(n, cases[i].wanted_len);
        assert_memory_equal(out, cases[i].wanted, n);
        if (out != cases[i].text)
            g_free(out);
    }
}

/* Sorted by bubbles, 200,000 marks would take minutes. */
static void orders_many_marks(void **state)
{
    enum { N = 100000 };
    GString *text = g_string_new("q"), *wanted = g_string_new("q");
    char    *out;
    size_t   n;

    (void)state;
    for (int i = 0; i < N; i++) {
        g_string_append(text, "\xcc\x81\xcc\xa3"); /* above, class 230; below, class 220 */
        g_string_append(wanted, "\xcc\xa3");
    }
    for (int i = 0; i < N; i++)
        g_string_append(wanted, "\xcc\x81");
    assert_true(mi_nfc(text->str, text->len, &out, &n));
    assert_int_equal(n, wanted->len);
    assert_memory_equal(out, wanted->str, n);
    g_free(out);
    g_string_free(text, TRUE);
    g_string_free(wanted, TRUE);
}

/* ---- whole tokenizers ------------------------------------------------------ */
enum { N_BYTES = 256, HELLO = 256, USER, CONTROL, CONTROL_LONG, N_PIECES };

/* 256 bytes and a few more; merges make "he" to "hello". */
typedef struct {
    char            bytes[N_BYTES];
    MiPiece         pieces[N_PIECES + 3];
    int32_t         merges[4][2];
    MiTokenizerData data;
} Vocabulary;

static void fill(Vocabulary *v)
{
    static const char *const extra[] = { "hello", "<tool>", "<|end|>", "<|end|>of", "he", "hel", "hell" };

    *v = (Vocabulary){ .merges = { { 'h', 'e' }, { N_PIECES, 'l' }, { N_PIECES + 1, 'l' }, { N_PIECES + 2, 'o' } } };
    for (int b = 0; b < N_BYTES; b++) {
        v->bytes[b] = (char)b;
        v->pieces[b] = (MiPiece){ .text = &v->bytes[b], .len = 1 };
    }
    for (size_t i = 0; i < G_N_ELEMENTS(extra); i++)
        v->pieces[HELLO + i] = (MiPiece){ .text = extra[i], .len = (uint32_t)strlen(extra[i]) };
    v->pieces[USER].type = MI_PIECE_USER;
    v->pieces[CONTROL].type = v->pieces[CONTROL_LONG].type = MI_PIECE_CONTROL;
    v->data = (MiTokenizerData){.kind = "bpe",
                                .pre = "gpt-2",
                                .pieces = v->pieces,
                                .n_pieces = G_N_ELEMENTS(v->pieces),
                                .merges = (const int32_t(*)[2])v->merges,
                                .n_merges = 4,
                                .bos = -1,
                                .eos = -1,
                                .pad = -1,
                                .unk = -1};
}

static const MiTokenizer *find(const char *kind)
{
    const MiFeature *f = mi_registry_find(registry, MI_KIND_TOKENIZER, kind, "*", NULL);
    assert_non_null(f);
    return f->vtable;
}

static void *open_of(const MiTokenizerData *data)
{
    g_autoptr(GError) error = NULL;
    void             *self = find(data->kind)->open(data, NULL, &error);

    if (!self)
        fail_msg("%s", error->message);
    return self;
}

static void brings_every_byte_back(void **state)
{
    static const char *const rules[] = { "gpt-2", "llama-bpe", "qwen2", "smollm", "regex", NULL };
    static const char *const regex[] = { "\\p{N}{1,2}", "\\s+|[^\\s]+", NULL };
    GRand                   *r = g_rand_new_with_seed(5);
    Vocabulary               v;
    char                     text[300], back[300];
    int32_t                  ids[300];

    (void)state;
    fill(&v);
    v.data.split = regex;
    for (size_t rule = 0; rule < G_N_ELEMENTS(rules); rule++) {
        v.data.pre = rules[rule];
        void              *self = open_of(&v.data);
        const MiTokenizer *vt = find("bpe");
        for (int t = 0; t < 300; t++) {
            const size_t len = (size_t)g_rand_int_range(r, 0, sizeof text);
            size_t       n_back = 0, n_bytes;
            for (size_t i = 0; i < len; i++)
                text[i] = (char)(t % 2 ? g_rand_int_range(r, 0, 256)
                                       : "hello \n12\xc3\xa9\xf0\x9f"[g_rand_int_range(r, 0, 13)]);
            const size_t n = vt->encode(self, text, len, false, ids, G_N_ELEMENTS(ids));
            assert_true(n <= len);
            for (size_t i = 0; i < n; i++) {
                const char *p = vt->piece(self, i ? ids[i - 1] : -1, ids[i], &n_bytes);
                assert_true(n_back + n_bytes <= len);
                memcpy(back + n_back, p, n_bytes);
                n_back += n_bytes;
            }
            assert_int_equal(n_back, len);
            assert_memory_equal(back, text, len);
        }
        vt->close(self);
    }
    g_rand_free(r);
}

static void encodes(void *self, const char *text, const size_t (*trusted)[2], size_t n_trusted, const int32_t *wanted,
                    size_t n)
{
    int32_t ids[64];

    assert_int_equal(find("bpe")->encode_ranges(self, text, strlen(text), trusted, n_trusted, ids, G_N_ELEMENTS(ids)),
                     n);
    assert_memory_equal(ids, wanted, n * sizeof *ids);
}

/* Text of a user that spells a special piece stays text; the words run over the border. */
static void recognises_pieces_in_trusted_ranges_only(void **state)
{
    Vocabulary v;

    (void)state;
    fill(&v);
    void *self = open_of(&v.data);
    encodes(self, "hello<|end|>", (const size_t[][2]){ { 0, 12 } }, 1, (int32_t[]){ HELLO, CONTROL }, 2);
    encodes(self, "hello<|end|>", (const size_t[][2]){ { 0, 11 } }, 1,
            (int32_t[]){ HELLO, '<', '|', 'e', 'n', 'd', '|', '>' }, 8);
    encodes(self, "hello<|end|>", (const size_t[][2]){ { 6, 12 } }, 1,
            (int32_t[]){ HELLO, '<', '|', 'e', 'n', 'd', '|', '>' }, 8);
    /* the longer one reaches out of the range */
    encodes(self, "<|end|>of", (const size_t[][2]){ { 0, 9 } }, 1, (int32_t[]){ CONTROL_LONG }, 1);
    encodes(self, "<|end|>of", (const size_t[][2]){ { 0, 8 } }, 1, (int32_t[]){ CONTROL, 'o', 'f' }, 3);
    /* two ranges, a user's text between; a user piece needs none */
    encodes(self, "<|end|><|end|><tool><|end|>", (const size_t[][2]){ { 0, 7 }, { 20, 27 } }, 2,
            (int32_t[]){ CONTROL, '<', '|', 'e', 'n', 'd', '|', '>', USER, CONTROL }, 10);
    encodes(self, "hello", (const size_t[][2]){ { 0, 2 } }, 1, (int32_t[]){ HELLO }, 1);
    assert_int_equal(find("bpe")->special(self, "<|end|>"), CONTROL);
    assert_int_equal(find("bpe")->special(self, "<tool>"), USER);
    assert_int_equal(find("bpe")->special(self, "hello"), -1);
    assert_int_equal(find("bpe")->special(self, "<|en"), -1);
    find("bpe")->close(self);
}

static void counts_past_the_room_there_is(void **state)
{
    Vocabulary v;
    int32_t    ids[3] = { 0, 0, -7 };

    (void)state;
    fill(&v);
    void *self = open_of(&v.data);
    assert_int_equal(find("bpe")->encode(self, "a b c", 5, false, ids, 2), 5);
    assert_int_equal(ids[1], ' ');
    assert_int_equal(ids[2], -7);
    find("bpe")->close(self);
}

/* ---- hostile data ---------------------------------------------------------- */
static void gives_up_on_a_split_without_end(void **state)
{
    static const char *const splits[][2] = { { "(a+)+$" }, { "(a|aa)+$" }, { "(?:a*)*b" } };
    Vocabulary               v;

    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(splits); i++) {
        fill(&v);
        v.data.pre = "regex";
        v.data.split = splits[i];
        void            *self = open_of(&v.data);
        g_autofree char *text = g_strnfill(5000, 'a');
        text[4999] = '!';
        const size_t n = find("bpe")->encode(self, text, 5000, false, NULL, 0);
        assert_true(n == SIZE_MAX);
        find("bpe")->close(self);
    }
}

static void refuses(const MiTokenizerData *d, const char *word)
{
    g_autoptr(GError) error = NULL;
    void             *self = find(d->kind)->open(d, NULL, &error);

    assert_null(self);
    assert_non_null(error);
    if (!strstr(error->message, word))
        fail_msg("'%s' does not say '%s'", error->message, word);
}

static void refuses_data_that_does_not_fit(void **state)
{
    Vocabulary       v;
    g_autofree char *long_text = g_strnfill(100000, 'x');

    (void)state;
#define BAD(word, ...) (fill(&v), __VA_ARGS__, refuses(&v.data, word))
    BAD("bos id 1000", v.data.bos = 1000);
    BAD("eos id -2", v.data.eos = -2);
    BAD("0 pieces", v.data.n_pieces = 0);
    BAD("merge 1", v.merges[1][0] = N_PIECES + 3);
    BAD("merge 1", v.merges[1][0] = INT32_MIN);
    BAD("makes no piece", v.merges[3][1] = 'x');
    BAD("makes no piece", v.pieces['o'].text = NULL);
    BAD("'acme'", v.data.pre = "acme");
    BAD("without an expression", v.data.pre = "regex");
    BAD("split expression 0", (v.data.pre = "regex", v.data.split = (const char *const[]){ "(", NULL }));
    BAD("not UTF-8", (v.data.pre = "regex", v.data.split = (const char *const[]){ "\xff", NULL }));
    BAD("100000 bytes", (v.pieces[USER].text = long_text, v.pieces[USER].len = 100000));
    BAD("byte piece 65", (v.pieces['A'].type = MI_PIECE_BYTE));
    v.data.merges = NULL;
    BAD("not a number", (v.data.kind = "spm", v.data.merges = NULL, v.data.pre = NULL, v.pieces[3].score = NAN));
    BAD("100000 bytes", (v.data.kind = "spm", v.data.merges = NULL, v.data.pre = NULL, v.pieces[3].text = long_text,
                         v.pieces[3].len = 100000));
    BAD("metaspace", (v.data.kind = "spm"));
    BAD("finite", (v.data.kind = "unigram", v.data.pre = NULL, v.pieces[3].score = -INFINITY));
}

static void survives_pieces_that_are_odd(void **state)
{
    Vocabulary v;
    int32_t    ids[8];
    size_t     len;

    (void)state;
    fill(&v);
    v.pieces[USER] = (MiPiece){ .text = "", .type = MI_PIECE_USER }; /* empty */
    v.pieces['z'].text = NULL;                                       /* a gap */
    v.pieces['y'] = v.pieces['x'];                                   /* twice the same */
    void              *self = open_of(&v.data);
    const MiTokenizer *vt = find("bpe");
    assert_int_equal(vt->encode(self, "xyz", 3, true, ids, 8), 1); /* bytes y and z have no piece */
    assert_int_equal(ids[0], 'x');
    assert_null(vt->piece(self, -1, 'z', &len));
    assert_null(vt->piece(self, -1, -1, &len));
    assert_null(vt->piece(self, -1, INT32_MAX, &len));
    assert_int_equal(vt->encode(self, NULL, 0, true, NULL, 0), 0);
    vt->close(self);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_like_the_definition),
        cmocka_unit_test(splits_like_the_expressions),
        cmocka_unit_test(normalises_what_is_text),
        cmocka_unit_test(orders_many_marks),
        cmocka_unit_test(brings_every_byte_back),
        cmocka_unit_test(recognises_pieces_in_trusted_ranges_only),
        cmocka_unit_test(counts_past_the_room_there_is),
        cmocka_unit_test(gives_up_on_a_split_without_end),
        cmocka_unit_test(refuses_data_that_does_not_fit),
        cmocka_unit_test(survives_pieces_that_are_odd),
    };

    registry = load(NULL);
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    mi_registry_free(registry);
    return failed;
}
