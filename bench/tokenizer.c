/* tokenizer.c - how fast text becomes ids, and ids text.
 *
 *   tokenizer MODEL TEXT [--peer COMMAND]
 *
 * MODEL: a GGUF file, or a directory with a tokenizer.json; TEXT: a file, of which a megabyte is
 * made.  MI_PLUGINS: where the plugins are.  COMMAND prints how many MB/s another library encodes
 * of the same, as bench/tokenizer_peer.py does.  CPU time of the thread, medians of 5. */
#include "plugins.h"
#include "registry.h"
#include "tokenizer_json.h"
#include "spread.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { RUNS = 5, MEGABYTE = 1000000 };

typedef struct {
    MiTokenizerData    data;
    const MiTokenizer *vt;
    void              *self;
    int32_t           *ids; /* [MEGABYTE] */
    size_t             n_ids;
} Bench;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

static double median_ms(void (*work)(Bench *, const GString *), Bench *b, const GString *text)
{
    double ms[RUNS];

    for (int i = 0; i < RUNS; i++) {
        const double start = now_ms();
        work(b, text);
        ms[i] = now_ms() - start;
    }
    qsort(ms, RUNS, sizeof *ms, mi_ascending);
    return ms[RUNS / 2];
}

static void encode(Bench *b, const GString *text)
{
    b->n_ids = b->vt->encode(b->self, text->str, text->len, false, b->ids, MEGABYTE);
}

static void decode(Bench *b, const GString *text)
{
    size_t len, sum = 0;

    for (size_t i = 0; i < b->n_ids; i++)
        sum += b->vt->piece(b->self, i ? b->ids[i - 1] : -1, b->ids[i], &len) ? len : 0;
    if (sum > text->len + 3)
        abort();
}

/* Leaves the file open: the data are the format's. */
static bool read_model(MiRegistry *r, const char *path, MiTokenizerData *data, GError **error)
{
    if (!g_file_test(path, G_FILE_TEST_IS_DIR)) {
        const MiFeature *f = mi_registry_find(r, MI_KIND_FORMAT, "gguf", "*", error);
        const MiFormat  *vt = f ? f->vtable : NULL;
        void            *file = vt ? vt->open(path, NULL, error) : NULL;
        return file && vt->tokenizer(file, data, error);
    }
    MiTokenizerJson *json = mi_tokenizer_json_open(path, error);
    if (json)
        *data = mi_tokenizer_json_data(json);
    return json;
}

static bool open_model(MiRegistry *r, const char *path, Bench *b, GError **error)
{
    const double start = now_ms();

    if (!read_model(r, path, &b->data, error))
        return false;
    const MiFeature *f = mi_registry_find(r, MI_KIND_TOKENIZER, b->data.kind, "*", error);
    b->vt = f ? f->vtable : NULL;
    b->self = b->vt ? b->vt->open(&b->data, NULL, error) : NULL;
    const double ms = now_ms() - start;
    if (b->self)
        printf("{\"name\": \"tokenizer_open\", \"value\": %.1f, \"unit\": \"ms\", \"limit\": 500, \"ratio\": %.3f}\n",
               ms, ms / 500);
    return b->self;
}

/* A megabyte of the file's text, again and again. */
static GString *megabyte_of(const char *path, GError **error)
{
    g_autofree char *text = NULL;
    size_t           len;

    if (!g_file_get_contents(path, &text, &len, error))
        return NULL;
    GString *out = g_string_sized_new(MEGABYTE + len);
    while (len && out->len < MEGABYTE)
        g_string_append_len(out, text, (gssize)len);
    g_string_truncate(out, MIN(out->len, MEGABYTE));
    return out;
}

static void report_text(Bench *b, const GString *text, const char *peer)
{
    g_autofree char *out = NULL;
    const double     speed = (double)text->len / 1e3 / median_ms(encode, b, text);

    printf("{\"name\": \"tokenizer_encode\", \"value\": %.1f, \"unit\": \"MB/s\"", speed);
    if (peer && g_spawn_command_line_sync(peer, &out, NULL, NULL, NULL) && g_ascii_strtod(out, NULL) > 0)
        printf(", \"peer\": %.1f, \"ratio\": %.2f", g_ascii_strtod(out, NULL), speed / g_ascii_strtod(out, NULL));
    printf("}\n{\"name\": \"tokenizer_decode\", \"value\": %.1f, \"unit\": \"MB/s\"}\n",
           (double)text->len / 1e3 / median_ms(decode, b, text));
}

/* A word of a megabyte: of drawn letters, and of one. */
static void report_words(Bench *b)
{
    GString *word = g_string_sized_new(MEGABYTE);

    for (int one = 0; one < 2; one++) {
        uint32_t x = 1;
        g_string_truncate(word, 0);
        while (word->len < MEGABYTE) {
            x = x * 1664525 + 1013904223;
            g_string_append_c(word, one ? 'a' : "etaoinshrdlucmfwypvbgkjqxz"[(x >> 16) % 26]);
        }
        const double ms = median_ms(encode, b, word);
        printf(
            "{\"name\": \"tokenizer_word_%s\", \"value\": %.1f, \"unit\": \"ms\", \"limit\": 250, \"ratio\": %.3f}\n",
            one ? "of_one_letter" : "of_letters", ms, ms / 250);
    }
    g_string_free(word, TRUE);
}

int main(int argc, char **argv)
{
    g_autoptr(GError) error = NULL;
    const char       *peer = argc == 5 && !strcmp(argv[3], "--peer") ? argv[4] : NULL;
    Bench             b = { .ids = g_new(int32_t, MEGABYTE) };

    if (argc != 3 && !peer) {
        fprintf(stderr, "usage: %s MODEL TEXT [--peer COMMAND]\n", argv[0]);
        return 64;
    }
    MiRegistry *r = mi_registry_new();
    load_plugins(r);
    GString *text = megabyte_of(argv[2], &error);
    if (!text || !open_model(r, argv[1], &b, &error)) {
        fprintf(stderr, "%s\n", error->message);
        return 66;
    }
    report_text(&b, text, peer);
    report_words(&b);
    return 0;
}
