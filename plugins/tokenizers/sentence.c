/* sentence.c - see sentence.h. */
#define _GNU_SOURCE /* memmem */
#include "sentence.h"

#include <miniinfer/context.h>
#include <string.h>

static const char block[] = "\xe2\x96\x81"; /* U+2581 */
enum { BLOCK = 3 /* bytes */ };

/* Blanks for U+2581; the bytes written to out, which may be NULL. */
static uint32_t unescape(const MiPiece *p, char *out)
{
    uint32_t n = 0;

    for (uint32_t i = 0; i < p->len; n++) {
        const bool is_block = p->len - i >= BLOCK && !memcmp(p->text + i, block, BLOCK);
        if (out)
            out[n] = is_block ? ' ' : p->text[i];
        i += is_block ? BLOCK : 1;
    }
    return n;
}

static bool is_escaped(const MiPiece *p)
{
    return p->text && (p->type == MI_PIECE_NORMAL || p->type == MI_PIECE_USER) && unescape(p, NULL) < p->len;
}

static bool unescape_all(MiSentence *s, const MiTokenizerData *d)
{
    size_t bytes = 0;

    s->plain_start = g_try_new(uint32_t, d->n_pieces);
    s->plain_len = g_try_new(uint32_t, d->n_pieces);
    for (uint32_t i = 0; i < d->n_pieces; i++)
        bytes += is_escaped(&d->pieces[i]) ? d->pieces[i].len : 0;
    s->plain = bytes < UINT32_MAX ? g_try_malloc(bytes + 1) : NULL;
    if (!s->plain_start || !s->plain_len || !s->plain)
        return false;
    bytes = 0;
    for (uint32_t i = 0; i < d->n_pieces; i++) {
        s->plain_start[i] = UINT32_MAX;
        if (!d->escape_spaces || !is_escaped(&d->pieces[i]))
            continue;
        s->plain_start[i] = (uint32_t)bytes;
        s->plain_len[i] = unescape(&d->pieces[i], s->plain + bytes);
        bytes += s->plain_len[i];
    }
    return true;
}

bool mi_sentence_init(MiSentence *s, const MiTokenizerData *data, GError **error)
{
    s->split = data->pre;
    if (data->pre && (strcmp(data->pre, "metaspace") || !data->escape_spaces)) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED,
                    "tokenizer: no split rule '%.40s' before '%s'; there is metaspace, with blanks as U+2581",
                    data->pre, data->kind);
        return false;
    }
    if (!mi_lexicon_init(&s->lexicon, data, error))
        return false;
    if (!unescape_all(s, data)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "tokenizer: no memory for %u pieces", data->n_pieces);
        return false;
    }
    return true;
}

void mi_sentence_clear(MiSentence *s)
{
    mi_lexicon_clear(&s->lexicon);
    g_free(s->plain);
    g_free(s->plain_start);
    g_free(s->plain_len);
}

static bool begins_blank(const char *text, size_t len)
{
    return *text == ' ' || (len >= BLOCK && !memcmp(text, block, BLOCK));
}

char *mi_sentence_prepare(const MiSentence *s, const char *text, size_t len, bool start, size_t *out_len)
{
    const MiTokenizerData *d = s->lexicon.data;
    const size_t           blank = d->escape_spaces ? BLOCK : 1;
    size_t                 n = 0;

    if (d->collapse_spaces) {
        for (; len && *text == ' '; text++)
            len--;
        for (; len && text[len - 1] == ' '; len--)
            ;
    }
    char *out = g_try_malloc((len + 1) * blank);
    if (!out)
        return NULL;
    if (len && start && d->add_prefix_space && !(d->prefix_if_none && begins_blank(text, len))) {
        memcpy(out, d->escape_spaces ? block : " ", blank);
        n = blank;
    }
    for (size_t i = 0; i < len; i++) {
        if (text[i] != ' ') {
            out[n++] = text[i];
        } else if (!d->collapse_spaces || text[i - 1] != ' ') {
            memcpy(out + n, d->escape_spaces ? block : " ", blank);
            n += blank;
        }
    }
    while (d->collapse_spaces && d->escape_spaces && n >= BLOCK && !memcmp(out + n - BLOCK, block, BLOCK))
        n -= BLOCK; /* of a U+2581 in the text, too */
    *out_len = n;
    return out;
}

size_t mi_sentence_word_end(const MiSentence *s, const char *text, size_t at, size_t len)
{
    const char *next = s->split && len - at > BLOCK ? memmem(text + at + 1, len - at - 1, block, BLOCK) : NULL;
    return next ? (size_t)(next - text) : len;
}

void mi_sentence_unknown(const MiSentence *s, const char *text, size_t len, bool after_unknown, MiIds *out)
{
    const MiTokenizerData *d = s->lexicon.data;
    bool                   bytes = d->byte_fallback;

    for (size_t i = 0; i < len; i++)
        bytes = bytes && s->lexicon.byte[(unsigned char)text[i]] >= 0;
    if (!bytes) {
        if (d->unk >= 0 && !after_unknown)
            mi_ids_push(out, d->unk);
        return;
    }
    for (size_t i = 0; i < len; i++)
        mi_ids_push(out, s->lexicon.byte[(unsigned char)text[i]]);
}

/* The blank put before the text does not come back: not at its start, nor after a bos alone. */
const char *mi_sentence_piece(const MiSentence *s, int32_t previous, int32_t id, size_t *len)
{
    const MiTokenizerData *d = s->lexicon.data;
    const char            *text = mi_lexicon_piece(&s->lexicon, id, len);

    if (!text)
        return NULL;
    if (s->plain_start[id] != UINT32_MAX) {
        text = s->plain + s->plain_start[id];
        *len = s->plain_len[id];
    }
    if (d->add_prefix_space && (previous < 0 || previous == d->bos) && *len && *text == ' ') {
        text++;
        --*len;
    }
    return text;
}
