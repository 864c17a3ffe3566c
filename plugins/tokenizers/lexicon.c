/* lexicon.c - see lexicon.h.  Everything in the data comes from a file of a stranger:
 * init() checks each id and length once, nothing after it does. */
#include "lexicon.h"

#include "utf8.h"

#include <miniinfer/context.h>
#include <string.h>

static uint64_t hash(const MiLexicon *l, const char *text, size_t len)
{
    uint64_t h = l->seed ^ len * 0x9e3779b97f4a7c15u, word;

    for (; len >= 8; text += 8, len -= 8) {
        memcpy(&word, text, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    word = 0;
    memcpy(&word, text, len);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    h ^= h >> 29;
    return h * 0xc4ceb9fe1a85ec53u >> 20;
}

static bool no_memory(GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "tokenizer: no memory for the tables of its vocabulary");
    return false;
}

/* ---- trie ------------------------------------------------------------------ */
static bool trie_add(MiTrie *t, const char *text, size_t len, int32_t id)
{
    int32_t node = 0;

    for (size_t i = 0; i < len; i++) {
        int32_t next = mi_trie_step(t, node, text[i]);
        if (next < 0) {
            next = (int32_t)t->n_nodes++;
            t->ends[next] = -1;
            mi_pairs_add(&t->edges, node, (unsigned char)text[i], 0, next);
        }
        node = next;
    }
    if (t->ends[node] < 0)
        t->ends[node] = id;
    return true;
}

bool mi_trie_init(MiTrie *t, const MiTokenizerData *data, bool (*wanted)(const MiPiece *), GError **error)
{
    size_t bytes = 1;

    for (uint32_t i = 0; i < data->n_pieces; i++) {
        const MiPiece *p = &data->pieces[i];
        if (!p->text || !wanted(p))
            continue;
        if (p->len > MI_MAX_SPECIAL) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: piece %u has %u bytes; at most %d are read", i,
                        p->len, MI_MAX_SPECIAL);
            return false;
        }
        bytes += p->len;
    }
    if (bytes > INT32_MAX || !mi_pairs_init(&t->edges, bytes))
        return no_memory(error);
    t->ends = g_try_new(int32_t, bytes);
    if (!t->ends)
        return no_memory(error);
    t->ends[0] = -1;
    t->n_nodes = 1;
    for (uint32_t i = 0; i < data->n_pieces; i++) {
        const MiPiece *p = &data->pieces[i];
        if (p->text && p->len && wanted(p))
            trie_add(t, p->text, p->len, (int32_t)i);
    }
    return true;
}

void mi_trie_clear(MiTrie *t)
{
    mi_pairs_clear(&t->edges);
    g_free(t->ends);
    t->ends = NULL;
}

/* ---- by text --------------------------------------------------------------- */
int32_t mi_lexicon_find(const MiLexicon *l, const char *text, size_t len)
{
    for (uint64_t i = hash(l, text, len) & l->mask;; i = (i + 1) & l->mask) {
        if (!l->by_text[i])
            return -1;
        const MiPiece *p = &l->data->pieces[l->by_text[i] - 1];
        if (p->len == len && !memcmp(p->text, text, len))
            return (int32_t)(l->by_text[i] - 1);
    }
}

/* The first of several with one text stays. */
static void enter(MiLexicon *l, MiPieceType type)
{
    for (uint32_t id = 0; id < l->data->n_pieces; id++) {
        const MiPiece *p = &l->data->pieces[id];
        if (!p->text || !p->len || p->type != type)
            continue;
        uint64_t i = hash(l, p->text, p->len) & l->mask;
        for (; l->by_text[i]; i = (i + 1) & l->mask) {
            const MiPiece *other = &l->data->pieces[l->by_text[i] - 1];
            if (other->len == p->len && !memcmp(other->text, p->text, p->len))
                break;
        }
        if (!l->by_text[i])
            l->by_text[i] = id + 1;
    }
}

/* "<0x0A>"; -1: not of this form. */
static int byte_of(const MiPiece *p)
{
    if (p->len != 6 || memcmp(p->text, "<0x", 3) || p->text[5] != '>')
        return -1;
    const int high = g_ascii_xdigit_value(p->text[3]), low = g_ascii_xdigit_value(p->text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

static bool find_bytes(MiLexicon *l, GError **error)
{
    for (int b = 0; b < 256; b++) {
        l->bytes[b] = (char)b;
        l->byte[b] = mi_lexicon_find(l, &l->bytes[b], 1);
    }
    for (uint32_t id = l->data->n_pieces; id-- > 0;) {
        const MiPiece *p = &l->data->pieces[id];
        if (!p->text || p->type != MI_PIECE_BYTE)
            continue;
        const int b = byte_of(p);
        if (b < 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: byte piece %u is not written <0x00> to <0xFF>",
                        id);
            return false;
        }
        l->byte[b] = (int32_t)id;
    }
    return true;
}

static bool is_special(const MiPiece *p)
{
    return p->len && (p->type == MI_PIECE_CONTROL || p->type == MI_PIECE_USER || p->type == MI_PIECE_UNKNOWN);
}

static bool check(const MiTokenizerData *d, GError **error)
{
    const struct { const char *name; int32_t id; } ids[] = {
        { "bos", d->bos }, { "eos", d->eos }, { "pad", d->pad }, { "unk", d->unk },
    };

    if (!d->n_pieces || d->n_pieces > INT32_MAX / 2) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: a vocabulary of %u pieces; wanted 1 to %d",
                    d->n_pieces, INT32_MAX / 2);
        return false;
    }
    for (size_t i = 0; i < G_N_ELEMENTS(ids); i++)
        if (ids[i].id < -1 || ids[i].id >= (int64_t)d->n_pieces) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: %s id %d; the vocabulary has %u", ids[i].name,
                        ids[i].id, d->n_pieces);
            return false;
        }
    return true;
}

bool mi_lexicon_init(MiLexicon *l, const MiTokenizerData *data, GError **error)
{
    uint64_t size = 16;

    *l = (MiLexicon){ .data = data, .seed = (uint64_t)g_random_int() << 32 | g_random_int() };
    if (!check(data, error))
        return false;
    while (size < 2 * (uint64_t)data->n_pieces)
        size *= 2;
    l->mask = size - 1;
    l->by_text = g_try_new0(uint32_t, size);
    if (!l->by_text)
        return no_memory(error);
    enter(l, MI_PIECE_NORMAL);
    enter(l, MI_PIECE_USER);
    if (!find_bytes(l, error) || !mi_trie_init(&l->special, data, is_special, error))
        return false;
    for (int b = 0; b < 256; b++)
        l->begins[b] = mi_trie_step(&l->special, 0, (char)b) >= 0;
    return true;
}

void mi_lexicon_clear(MiLexicon *l)
{
    g_free(l->by_text);
    mi_trie_clear(&l->special);
}

int32_t mi_lexicon_special(const MiLexicon *l, const char *text)
{
    int32_t node = 0;

    for (; *text && node >= 0; text++)
        node = mi_trie_step(&l->special, node, *text);
    return node < 0 ? -1 : l->special.ends[node];
}

const char *mi_lexicon_piece(const MiLexicon *l, int32_t id, size_t *len)
{
    if (id < 0 || (uint32_t)id >= l->data->n_pieces || !l->data->pieces[id].text)
        return NULL;
    const MiPiece *p = &l->data->pieces[id];
    if (p->type == MI_PIECE_BYTE) {
        *len = 1;
        return &l->bytes[byte_of(p)];
    }
    *len = p->len;
    return p->text;
}

/* ---- merges ---------------------------------------------------------------- */
/* The piece that l and r make. */
static int32_t joined(const MiLexicon *lexicon, const MiPiece *l, const MiPiece *r)
{
    char   small[256];
    size_t len = (size_t)l->len + r->len;
    char  *text = len <= sizeof small ? small : g_try_malloc(len);

    if (!text)
        return -1;
    memcpy(text, l->text, l->len);
    memcpy(text + l->len, r->text, r->len);
    const int32_t id = mi_lexicon_find(lexicon, text, len);
    if (text != small)
        g_free(text);
    return id;
}

static bool has(const MiTokenizerData *d, int32_t id)
{
    return id >= 0 && (uint32_t)id < d->n_pieces && d->pieces[id].text;
}

bool mi_lexicon_merges(const MiLexicon *l, MiPairs *pairs, GError **error)
{
    const MiTokenizerData *d = l->data;

    if (!mi_pairs_init(pairs, d->n_merges)) {
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "tokenizer: no memory for %u merges", d->n_merges);
        return false;
    }
    for (uint32_t i = 0; i < d->n_merges; i++) {
        const int32_t left = d->merges[i][0], right = d->merges[i][1];
        int32_t       id = -1;
        if (has(d, left) && has(d, right))
            id = joined(l, &d->pieces[left], &d->pieces[right]);
        if (id < 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL,
                        "tokenizer: merge %u, of ids %d and %d, makes no piece of the vocabulary", i, left, right);
            return false;
        }
        mi_pairs_add(pairs, left, right, i, id);
    }
    return true;
}

/* ---- special pieces in text ------------------------------------------------ */
/* The longest piece at `at`; control pieces may not reach past `limit`. */
static int32_t longest(const MiLexicon *l, const char *text, size_t len, size_t at, size_t limit, size_t *end)
{
    int32_t node = 0, found = -1;

    for (size_t i = at; i < len; i++) {
        node = mi_trie_step(&l->special, node, text[i]);
        if (node < 0)
            break;
        const int32_t id = l->special.ends[node];
        if (id >= 0 && (l->data->pieces[id].type == MI_PIECE_USER || i + 1 <= limit)) {
            found = id;
            *end = i + 1;
        }
    }
    return found;
}

static bool is_blank(uint32_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 ||
           (c >= 0xa0 && c < MI_INVALID_BYTE && g_unichar_isspace(c));
}

static size_t blanks_before(const char *text, size_t from, size_t at)
{
    while (at > from) {
        size_t start = at - 1, n;
        while (start > from && at - start < 4 && ((unsigned char)text[start] & 0xc0) == 0x80)
            start--;
        if (!is_blank(mi_utf8_at(text + start, text + at, &n)) || start + n != at)
            break;
        at = start;
    }
    return at;
}

static size_t blanks_after(const char *text, size_t at, size_t len)
{
    for (size_t n; at < len && is_blank(mi_utf8_at(text + at, text + len, &n)); at += n)
        ;
    return at;
}

void mi_lexicon_cut(const MiLexicon *l, const char *text, size_t len, const size_t (*trusted)[2], size_t n_trusted,
                    MiOrdinary ordinary, void *user, MiIds *out)
{
    size_t done = 0, range = 0;

    for (size_t at = 0, end = 0; at < len && !out->failed;) {
        if (!l->begins[(unsigned char)text[at]]) {
            at++;
            continue;
        }
        while (range < n_trusted && trusted[range][1] <= at)
            range++;
        const size_t  limit = range < n_trusted && trusted[range][0] <= at ? trusted[range][1] : 0;
        const int32_t id = longest(l, text, len, at, limit, &end);
        if (id < 0) {
            at++;
            continue;
        }
        const MiPiece *p = &l->data->pieces[id];
        const size_t   cut = p->lstrip ? blanks_before(text, done, at) : at;
        if (cut > done)
            ordinary(user, text + done, cut - done, !done, out);
        mi_ids_push(out, id);
        at = done = p->rstrip ? blanks_after(text, end, len) : end;
    }
    if (done < len && !out->failed)
        ordinary(user, text + done, len - done, !done, out);
}
