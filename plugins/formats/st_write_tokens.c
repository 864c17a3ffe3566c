/* st_write_tokens.c - tokenizer.json and tokenizer_config.json out of MiTokenizerData, as
 * the `tokenizers` library reads them.
 *
 * Byte-level pieces are spelled in GPT-2's letters again.  Sentencepiece vocabularies with
 * scores become BPE with merges: each way to make a piece out of two, best score first. */
#include "letters.h"
#include "st_write.h"
#include <stdlib.h>
#include <string.h>

#define LEAD "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define TAIL "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define BLANK "\xe2\x96\x81" /* U+2581 */

typedef struct {
    MiOut                 *o;
    const MiTokenizerData *t;
    bool                   bpe; /* byte-level */
    GHashTable            *ids; /* GBytes of a text to 1 + id */
} Writer;

/* A piece as the file spells it: out points to *buffer or to the piece. */
static const char *spelled(const Writer *w, const MiPiece *p, char **buffer, size_t *len)
{
    *buffer = NULL;
    *len = p->len;
    if (w->bpe && p->type == MI_PIECE_NORMAL) {
        *buffer = g_try_malloc(2 * (size_t)p->len + 1);
        if (!*buffer) {
            mi_out_fail(w->o, MI_ERROR_NO_MEMORY, "no memory for a token of %u bytes", p->len);
            *len = 0;
            return "";
        }
        *len = mi_bytes_to_letters(p->text, p->len, *buffer);
        return *buffer;
    }
    if (g_utf8_validate_len(p->text, p->len, NULL))
        return p->text;
    mi_out_fail(w->o, MI_ERROR_UNSUPPORTED, "token %td is not UTF-8, which tokenizer.json has to be", p - w->t->pieces);
    *len = 0;
    return "";
}

static void put(const Writer *w, const MiPiece *p)
{
    char       *buffer;
    size_t      len;
    const char *text = spelled(w, p, &buffer, &len);

    mi_out_json(w->o, text, len);
    g_free(buffer);
}

static const MiPiece *piece(const Writer *w, int32_t id)
{
    return id >= 0 && (uint32_t)id < w->t->n_pieces && w->t->pieces[id].text ? &w->t->pieces[id] : NULL;
}

static bool added(const MiPiece *p)
{
    return p->text && (p->type == MI_PIECE_CONTROL || p->type == MI_PIECE_USER || p->type == MI_PIECE_UNKNOWN);
}

static void write_added(const Writer *w)
{
    bool first = true;

    mi_out_text(w->o, "  \"added_tokens\": [");
    for (uint32_t i = 0; i < w->t->n_pieces && !w->o->error; i++) {
        const MiPiece *p = &w->t->pieces[i];
        if (!added(p) || p->len == 0)
            continue;
        mi_out_print(w->o, "%s\n    {\"id\": %u, \"content\": ", first ? "" : ",", i);
        put(w, p);
        mi_out_print(
            w->o, ", \"single_word\": false, \"lstrip\": %s, \"rstrip\": %s, \"normalized\": false, \"special\": %s}",
            p->lstrip ? "true" : "false", p->rstrip ? "true" : "false", p->type == MI_PIECE_USER ? "false" : "true");
        first = false;
    }
    mi_out_text(w->o, "],\n");
}

/* ---- how text is prepared and cut ------------------------------------------------- */

static void split(MiOut *o, const char *regex)
{
    mi_out_text(o, "{\"type\": \"Split\", \"pattern\": {\"Regex\": ");
    mi_out_json(o, regex, strlen(regex));
    mi_out_text(o, "}, \"behavior\": \"Isolated\", \"invert\": false}, ");
}

static void byte_level(MiOut *o, bool prefix, bool regex)
{
    mi_out_print(o, "{\"type\": \"ByteLevel\", \"add_prefix_space\": %s, \"trim_offsets\": false, \"use_regex\": %s}",
                 prefix ? "true" : "false", regex ? "true" : "false");
}

static void write_bpe_steps(const Writer *w)
{
    MiOut                 *o = w->o;
    const MiTokenizerData *t = w->t;
    const char            *pre = t->pre ? t->pre : "";
    bool                   regex = false;

    mi_out_text(o, t->nfc ? "  \"normalizer\": {\"type\": \"NFC\"},\n" : "  \"normalizer\": null,\n");
    mi_out_text(o, "  \"pre_tokenizer\": {\"type\": \"Sequence\", \"pretokenizers\": [");
    if (strcmp(pre, "llama-bpe") == 0 || strcmp(pre, "llama3") == 0 || strcmp(pre, "llama-v3") == 0)
        split(o, LEAD "\\p{N}{1,3}" TAIL);
    else if (strcmp(pre, "qwen2") == 0)
        split(o, LEAD "\\p{N}" TAIL);
    else if (strcmp(pre, "smollm") == 0)
        mi_out_text(o, "{\"type\": \"Digits\", \"individual_digits\": true}, ");
    else if (strcmp(pre, "regex") == 0)
        for (const char *const *s = t->split; s && *s; s++)
            split(o, *s);
    else if (strcmp(pre, "gpt-2") != 0 && strcmp(pre, "default") != 0 && *pre)
        mi_out_fail(o, MI_ERROR_UNSUPPORTED, "split rule '%.40s' is not written", pre);
    regex = strcmp(pre, "smollm") == 0 || strcmp(pre, "gpt-2") == 0 || strcmp(pre, "default") == 0;
    byte_level(o, t->add_prefix_space, regex);
    mi_out_text(o, "]},\n  \"decoder\": ");
    byte_level(o, false, false);
    mi_out_text(o, ",\n");
}

static void write_sentence_steps(const Writer *w)
{
    const MiTokenizerData *t = w->t;
    MiOut                 *o = w->o;
    const bool             meta = (t->pre && strcmp(t->pre, "metaspace") == 0) || t->prefix_first || t->prefix_if_none;

    if (meta) {
        mi_out_print(o,
                     "  \"normalizer\": null,\n  \"pre_tokenizer\": {\"type\": \"Metaspace\", \"replacement\": \"" BLANK
                     "\", \"prepend_scheme\": \"%s\", \"split\": %s},\n",
                     !t->add_prefix_space ? "never"
                     : t->prefix_first    ? "first"
                                          : "always",
                     t->pre ? "true" : "false");
    } else {
        mi_out_print(o, "  \"normalizer\": {\"type\": \"Sequence\", \"normalizers\": [%s"
                     "{\"type\": \"Replace\", \"pattern\": {\"String\": \" \"}, \"content\": \"" BLANK "\"}]},\n"
                     "  \"pre_tokenizer\": null,\n",
                     t->add_prefix_space ? "{\"type\": \"Prepend\", \"prepend\": \"" BLANK "\"}, " : "");
    }
    mi_out_text(o,
                "  \"decoder\": {\"type\": \"Sequence\", \"decoders\": [{\"type\": \"Replace\", \"pattern\": "
                "{\"String\": \"" BLANK "\"}, \"content\": \" \"}, {\"type\": \"ByteFallback\"}, {\"type\": \"Fuse\"}");
    if (t->add_prefix_space)
        mi_out_text(o, ", {\"type\": \"Strip\", \"content\": \" \", \"start\": 1, \"stop\": 0}");
    mi_out_text(o, "]},\n");
}

/* What stands before and behind every text. */
static void write_template(const Writer *w)
{
    const MiPiece *bos = w->t->add_bos ? piece(w, w->t->bos) : NULL, *eos = w->t->add_eos ? piece(w, w->t->eos) : NULL;
    MiOut         *o = w->o;

    if (!bos && !eos) {
        mi_out_text(o, "  \"post_processor\": null,\n");
        return;
    }
    mi_out_text(o, "  \"post_processor\": {\"type\": \"TemplateProcessing\"");
    for (int pairs = 0; pairs < 2; pairs++) {
        mi_out_text(o, pairs ? ", \"pair\": [" : ", \"single\": [");
        for (int part = 0; part <= pairs; part++) {
            if (bos) {
                mi_out_text(o, part ? ", {\"SpecialToken\": {\"id\": " : "{\"SpecialToken\": {\"id\": ");
                put(w, bos);
                mi_out_print(o, ", \"type_id\": %d}}, ", part);
            }
            mi_out_print(o, "%s{\"Sequence\": {\"id\": \"%s\", \"type_id\": %d}}", !bos && part ? ", " : "",
                         part ? "B" : "A", part);
            if (eos) {
                mi_out_text(o, ", {\"SpecialToken\": {\"id\": ");
                put(w, eos);
                mi_out_print(o, ", \"type_id\": %d}}", part);
            }
        }
        mi_out_text(o, "]");
    }
    mi_out_text(o, ", \"special_tokens\": {");
    for (int i = 0; i < 2; i++) {
        const MiPiece *p = i ? eos != bos ? eos : NULL : bos;
        if (!p)
            continue;
        mi_out_text(o, i && bos ? ", " : "");
        put(w, p);
        mi_out_text(o, ": {\"id\": ");
        put(w, p);
        mi_out_print(o, ", \"ids\": [%td], \"tokens\": [", p - w->t->pieces);
        put(w, p);
        mi_out_text(o, "]}");
    }
    mi_out_text(o, "}},\n");
}

/* ---- the model ----------------------------------------------------------------------- */

/* Every piece under its text, of equal texts the first. */
static void write_vocab(Writer *w)
{
    bool first = true;

    mi_out_text(w->o, "\"vocab\": {");
    for (uint32_t i = 0; i < w->t->n_pieces && !w->o->error; i++) {
        const MiPiece *p = &w->t->pieces[i];
        char          *buffer;
        size_t         len;
        if (!p->text)
            continue;
        const char *text = spelled(w, p, &buffer, &len);
        GBytes     *key = g_bytes_new(text, len);
        if (!g_hash_table_contains(w->ids, key)) {
            mi_out_text(w->o, first ? "\n" : ",\n");
            mi_out_json(w->o, text, len);
            mi_out_print(w->o, ": %u", i);
            g_hash_table_insert(w->ids, key, GUINT_TO_POINTER(i + 1));
            first = false;
        } else {
            g_bytes_unref(key);
        }
        g_free(buffer);
    }
    mi_out_text(w->o, "}");
}

static void write_pair(const Writer *w, bool first, int32_t a, int32_t b)
{
    const MiPiece *p = piece(w, a), *q = piece(w, b);

    if (!p || !q) {
        mi_out_fail(w->o, MI_ERROR_MODEL, "a merge is of %d and %d, which are no tokens", a, b);
        return;
    }
    mi_out_text(w->o, first ? "\n[" : ",\n[");
    put(w, p);
    mi_out_text(w->o, ", ");
    put(w, q);
    mi_out_text(w->o, "]");
}

typedef struct { int32_t left, right, whole; float score; } Merge;

static int by_score(const void *a, const void *b)
{
    const Merge *x = a, *y = b;
    if (x->score != y->score)
        return x->score < y->score ? 1 : -1;
    return x->whole != y->whole ? x->whole - y->whole : x->left - y->left;
}

static uint32_t id_of(const Writer *w, const char *text, size_t len)
{
    g_autoptr(GBytes) key = g_bytes_new_static(text, len);
    return GPOINTER_TO_UINT(g_hash_table_lookup(w->ids, key));
}

/* The merges that scores stand for. */
static GArray *scored_merges(const Writer *w)
{
    GArray *out = g_array_new(FALSE, FALSE, sizeof(Merge));

    for (uint32_t i = 0; i < w->t->n_pieces; i++) {
        const MiPiece *p = &w->t->pieces[i];
        if (!p->text || p->type != MI_PIECE_NORMAL || p->len > 4096)
            continue;
        for (uint32_t cut = 1; cut < p->len; cut++) {
            if (((unsigned char)p->text[cut] & 0xc0) == 0x80)
                continue;
            const uint32_t a = id_of(w, p->text, cut), b = id_of(w, p->text + cut, p->len - cut);
            if (a && b) {
                const Merge m = { (int32_t)a - 1, (int32_t)b - 1, (int32_t)i, p->score };
                g_array_append_val(out, m);
            }
        }
    }
    g_array_sort(out, by_score);
    return out;
}

static void write_merges(const Writer *w)
{
    mi_out_text(w->o, ", \"merges\": [");
    if (w->t->merges) {
        for (uint32_t i = 0; i < w->t->n_merges && !w->o->error; i++)
            write_pair(w, i == 0, w->t->merges[i][0], w->t->merges[i][1]);
    } else {
        g_autoptr(GArray) merges = scored_merges(w);
        for (guint i = 0; i < merges->len && !w->o->error; i++)
            write_pair(w, i == 0, g_array_index(merges, Merge, i).left, g_array_index(merges, Merge, i).right);
    }
    mi_out_text(w->o, "]");
}

static void write_unigram(const Writer *w)
{
    mi_out_print(w->o, "  \"model\": {\"type\": \"Unigram\", \"unk_id\": %d, \"byte_fallback\": %s, \"vocab\": [",
                 w->t->unk, w->t->byte_fallback ? "true" : "false");
    for (uint32_t i = 0; i < w->t->n_pieces && !w->o->error; i++) {
        char score[32];
        mi_float_text(w->t->pieces[i].score, score);
        mi_out_text(w->o, i ? ",\n[" : "\n[");
        if (w->t->pieces[i].text)
            put(w, &w->t->pieces[i]);
        else
            mi_out_print(w->o, "\"[PAD%u]\"", i); /* ids are places: no gaps */
        mi_out_print(w->o, ", %s%s]", score, strpbrk(score, ".e") ? "" : ".0");
    }
    mi_out_text(w->o, "]}\n}\n");
}

static void write_model(Writer *w)
{
    const MiPiece *unk = w->bpe ? NULL : piece(w, w->t->unk);

    if (strcmp(w->t->kind, "unigram") == 0) {
        write_unigram(w);
        return;
    }
    mi_out_text(w->o, "  \"model\": {\"type\": \"BPE\", \"dropout\": null, \"continuing_subword_prefix\": null, "
                "\"end_of_word_suffix\": null, \"unk_token\": ");
    if (unk)
        put(w, unk);
    else
        mi_out_text(w->o, "null");
    mi_out_print(w->o, ", \"fuse_unk\": %s, \"byte_fallback\": %s, \"ignore_merges\": %s,\n", unk ? "true" : "false",
                 w->t->byte_fallback ? "true" : "false", w->t->ignore_merges ? "true" : "false");
    write_vocab(w);
    write_merges(w);
    mi_out_text(w->o, "}\n}\n");
}

static void write_tokenizer_config(const Writer *w)
{
    const MiTokenizerData *t = w->t;
    const struct { const char *key; int32_t id; } names[] = {
        { "bos_token", t->bos }, { "eos_token", t->eos }, { "pad_token", t->pad }, { "unk_token", t->unk },
    };

    mi_out_file(w->o, "tokenizer_config.json");
    mi_out_print(w->o,
                 "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"clean_up_tokenization_spaces\": false,\n"
                 "  \"add_bos_token\": %s,\n  \"add_eos_token\": %s",
                 t->add_bos ? "true" : "false", t->add_eos ? "true" : "false");
    for (size_t i = 0; i < G_N_ELEMENTS(names); i++)
        if (piece(w, names[i].id)) {
            mi_out_print(w->o, ",\n  \"%s\": ", names[i].key);
            put(w, piece(w, names[i].id));
        }
    if (t->chat_template) {
        mi_out_text(w->o, ",\n  \"chat_template\": ");
        mi_out_json(w->o, t->chat_template, strlen(t->chat_template));
    }
    mi_out_text(w->o, "\n}\n");
    mi_out_close(w->o);
}

void mi_st_write_tokenizer(MiOut *o, const MiTokenizerData *t)
{
    Writer w = { o, t, strcmp(t->kind, "bpe") == 0, NULL };

    w.ids = g_hash_table_new_full(g_bytes_hash, g_bytes_equal, (GDestroyNotify)g_bytes_unref, NULL);
    mi_out_file(o, "tokenizer.json");
    mi_out_text(o, "{\n  \"version\": \"1.0\",\n  \"truncation\": null,\n  \"padding\": null,\n");
    write_added(&w);
    if (w.bpe)
        write_bpe_steps(&w);
    else
        write_sentence_steps(&w);
    write_template(&w);
    write_model(&w);
    mi_out_close(o);
    write_tokenizer_config(&w);
    g_hash_table_unref(w.ids);
}
