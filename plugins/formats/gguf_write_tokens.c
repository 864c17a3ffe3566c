/* gguf_write_tokens.c - MiTokenizerData as tokenizer.* keys.
 *
 * What GGUF has no words for is refused (a split by a regular expression of its own) or
 * follows from the names there are (NFC and whole words from the split rule's). */
#include "gguf_file.h"
#include "gguf_write.h"
#include "letters.h"
#include <string.h>

typedef struct {
    MiGgufKeys            *keys;
    const MiTokenizerData *t;
    bool                   bpe;
    uint32_t               n; /* tokens written: no fewer than rows of the embedding */
} Writer;

static bool known(const MiPiece *p) { return p->text != NULL; }

/* The piece in the file's spelling. */
static GString *spelled(const Writer *w, const MiPiece *p)
{
    GString *s = g_string_sized_new(2 * (gsize)p->len + 1);

    if (w->bpe && p->type == MI_PIECE_NORMAL) {
        g_string_set_size(s, 2 * (gsize)p->len);
        g_string_truncate(s, mi_bytes_to_letters(p->text, p->len, s->str));
    } else {
        g_string_append_len(s, p->text, p->len);
    }
    return s;
}

static void put_pieces(const Writer *w)
{
    mi_gguf_put_array(w->keys, "tokenizer.ggml.tokens", MI_GGUF_STRING, w->n);
    for (uint32_t i = 0; i < w->n; i++) {
        g_autoptr(GString) s = i < w->t->n_pieces && known(&w->t->pieces[i]) ? spelled(w, &w->t->pieces[i]) : NULL;
        if (!s) {
            s = g_string_new(NULL);
            g_string_printf(s, "[PAD%u]", i);
        }
        mi_gguf_put_string(w->keys, s->str, s->len);
    }
    mi_gguf_put_array(w->keys, "tokenizer.ggml.token_type", MI_GGUF_I32, w->n);
    for (uint32_t i = 0; i < w->n; i++) {
        static const int32_t types[] = { 1, 2, 3, 4, 6 };
        const bool           there = i < w->t->n_pieces && known(&w->t->pieces[i]);
        const int32_t        type = !there ? 5 : !w->bpe && (int32_t)i == w->t->unk ? 2 : types[w->t->pieces[i].type];
        g_byte_array_append(w->keys->bytes, (const guint8 *)&type, sizeof type);
    }
}

static uint32_t hash_piece(const void *p)
{
    const MiPiece *piece = p;
    uint32_t       h = 2166136261u;
    for (uint32_t i = 0; i < piece->len; i++)
        h = (h ^ (uint8_t)piece->text[i]) * 16777619u;
    return h;
}

static gboolean same_piece(const void *a, const void *b)
{
    const MiPiece *p = a, *q = b;
    return p->len == q->len && memcmp(p->text, q->text, p->len) == 0;
}

/* A vocabulary that merges by a list (Llama's tokenizer.json) as one that merges by score: what
 * is merged earlier scores higher, pieces that nothing makes score lowest. */
static void scores_of_merges(const Writer *w, float *scores)
{
    const MiTokenizerData *t = w->t;
    g_autoptr(GHashTable)  ids = g_hash_table_new(hash_piece, same_piece);

    for (uint32_t i = 0; i < t->n_pieces; i++) {
        scores[i] = -1e6f;
        if (known(&t->pieces[i]))
            g_hash_table_insert(ids, (void *)(uintptr_t)&t->pieces[i], (void *)(uintptr_t)&t->pieces[i]);
    }
    for (uint32_t m = t->n_merges; m-- > 0;) {
        const MiPiece      *a = &t->pieces[t->merges[m][0]], *b = &t->pieces[t->merges[m][1]];
        g_autofree char    *text = g_malloc((gsize)a->len + b->len + 1);
        memcpy(text, a->text, a->len);
        memcpy(text + a->len, b->text, b->len);
        const MiPiece  joined = { .text = text, .len = a->len + b->len };
        const MiPiece *found = g_hash_table_lookup(ids, &joined);
        if (found)
            scores[found - t->pieces] = -(float)m; /* backwards: the first merge's stays */
    }
}

static bool put_scores(const Writer *w, GError **error)
{
    g_autofree float *scores = g_try_new0(float, (gsize)w->n + 1);

    if (!scores) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for %u scores", w->n);
        return false;
    }
    if (w->t->merges)
        scores_of_merges(w, scores);
    else
        for (uint32_t i = 0; i < w->t->n_pieces; i++)
            scores[i] = w->t->pieces[i].score;
    mi_gguf_put_array(w->keys, "tokenizer.ggml.scores", MI_GGUF_F32, w->n);
    g_byte_array_append(w->keys->bytes, (const guint8 *)scores, w->n * (guint)sizeof *scores);
    return true;
}

static void put_merges(const Writer *w)
{
    const MiTokenizerData *t = w->t;

    mi_gguf_put_array(w->keys, "tokenizer.ggml.merges", MI_GGUF_STRING, t->n_merges);
    for (uint32_t i = 0; i < t->n_merges; i++) {
        g_autoptr(GString) a = spelled(w, &t->pieces[t->merges[i][0]]), b = spelled(w, &t->pieces[t->merges[i][1]]);
        g_string_append_c(a, ' ');
        g_string_append_len(a, b->str, (gssize)b->len);
        mi_gguf_put_string(w->keys, a->str, a->len);
    }
}

/* What GGUF calls the split rule; NULL with *error: it has no name for it. */
static const char *split_name(const MiTokenizerData *t, GError **error)
{
    if (t->pre && strcmp(t->pre, "regex") != 0)
        return strcmp(t->pre, "llama3") == 0 || strcmp(t->pre, "llama-v3") == 0 ? "llama-bpe" : t->pre;
    const char *split = t->split && t->split[0] ? t->split[0] : "none";
    char        shown[64];
    g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "the tokenizer splits by a rule (%s) that GGUF has no name for",
                mi_shown(split, strlen(split), shown));
    return NULL;
}

static void put_ids(const Writer *w)
{
    const MiTokenizerData *t = w->t;
    const struct { const char *key; int32_t id; } ids[] = {
        { "tokenizer.ggml.bos_token_id", t->bos },
        { "tokenizer.ggml.eos_token_id", t->eos },
        { "tokenizer.ggml.unknown_token_id", t->unk },
        { "tokenizer.ggml.padding_token_id", t->pad },
    };
    static const char *const more[] = { "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id" };
    size_t                   n = 0;

    for (size_t i = 0; i < G_N_ELEMENTS(ids); i++)
        if (ids[i].id >= 0 || !w->bpe) /* all ones say that there is none, where a reader would assume one */
            mi_gguf_put_u32(w->keys, ids[i].key, (uint32_t)ids[i].id);
    for (uint32_t i = 0; i < t->n_stop && n < G_N_ELEMENTS(more); i++)
        if (t->stop[i] != t->eos)
            mi_gguf_put_u32(w->keys, more[n++], (uint32_t)t->stop[i]);
    mi_gguf_put_bool(w->keys, "tokenizer.ggml.add_bos_token", t->add_bos);
    mi_gguf_put_bool(w->keys, "tokenizer.ggml.add_eos_token", t->add_eos);
    mi_gguf_put_bool(w->keys, "tokenizer.ggml.add_space_prefix", t->add_prefix_space);
}

bool mi_gguf_put_tokens(MiGgufKeys *keys, const MiTokenizerData *t, uint32_t n_rows, GError **error)
{
    const bool  bpe = strcmp(t->kind, "bpe") == 0, unigram = strcmp(t->kind, "unigram") == 0;
    Writer      w = { keys, t, bpe, MAX(t->n_pieces, n_rows) };
    const char *pre = bpe ? split_name(t, error) : NULL;

    if (bpe && !pre)
        return false;
    mi_gguf_put_text(keys, "tokenizer.ggml.model", bpe ? "gpt2" : unigram ? "t5" : "llama");
    if (pre)
        mi_gguf_put_text(keys, "tokenizer.ggml.pre", pre);
    put_pieces(&w);
    if (bpe)
        put_merges(&w);
    else if (!put_scores(&w, error))
        return false;
    if (unigram)
        mi_gguf_put_bool(keys, "tokenizer.ggml.remove_extra_whitespaces", t->collapse_spaces);
    put_ids(&w);
    if (t->chat_template)
        mi_gguf_put_text(keys, "tokenizer.chat_template", t->chat_template);
    return true;
}
