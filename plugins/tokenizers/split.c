/* split.c - see split.h.
 *
 * A regular expression comes from the model's file and may be made to run for ever.
 * So it is matched anchored, place by place, without a table of where a match could
 * begin; each match has a limit of steps, and the whole text a limit of CPU time.
 * PCRE checks its subject to be UTF-8 on every call, up to the subject's end: a match
 * sees a window only, and one that touches the end of the window (a "hard partial
 * match") is tried again with a larger one, so that the result is that of the whole. */
#include "split.h"

#include "scan.h"
#include "utf8.h"

#include <time.h>

typedef enum { NONE, GPT2, LLAMA3, QWEN2, SMOLLM, REGEX } Rule;

struct MiSplitter {
    Rule    rule;
    GRegex *regex[MI_MAX_SPLITS];
    int     n_regex;
};

/* GGUF files name the model a rule was first seen with; of many names the rule is one. */
static const struct { const char *name; Rule rule; } rules[] = {
    { "regex", REGEX },
    { "gpt-2", GPT2 }, { "phi-2", GPT2 }, { "mpt", GPT2 }, { "olmo", GPT2 }, { "jais", GPT2 },
    { "llama-bpe", LLAMA3 }, { "llama3", LLAMA3 }, { "llama-v3", LLAMA3 }, { "dbrx", LLAMA3 }, { "smaug-bpe", LLAMA3 },
    { "qwen2", QWEN2 }, { "deepseek-r1-qwen", QWEN2 }, { "stablelm2", QWEN2 },
    { "smollm", SMOLLM }, { "starcoder", SMOLLM }, { "refact", SMOLLM }, { "command-r", SMOLLM },
    { "codeshell", SMOLLM }, { "exaone", SMOLLM },
};

static bool add_regex(MiSplitter *s, const char *pattern, GError **error)
{
    g_autoptr(GError) why = NULL;
    /* PCRE1, of older GLibs, recurses on the C stack: its depth is what must be bounded. */
    const char *limits = glib_check_version(2, 74, 0) ? "(*LIMIT_MATCH=10000000)(*LIMIT_RECURSION=5000)"
                                                      : "(*LIMIT_MATCH=10000000)(*LIMIT_HEAP=262144)";

    if (s->n_regex == MI_MAX_SPLITS) {
        g_set_error(error, MI_ERROR, MI_ERROR_UNSUPPORTED, "tokenizer: more than %d split expressions", MI_MAX_SPLITS);
        return false;
    }
    if (!g_utf8_validate(pattern, -1, NULL)) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: split expression %d is not UTF-8", s->n_regex);
        return false;
    }
    g_autofree char *limited = g_strconcat(limits, pattern, NULL);
    s->regex[s->n_regex] = g_regex_new(limited, G_REGEX_NO_AUTO_CAPTURE, 0, &why);
    if (!s->regex[s->n_regex]) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: split expression %d: %s", s->n_regex, why->message);
        return false;
    }
    s->n_regex++;
    return true;
}

MiSplitter *mi_splitter_new(const char *pre, const char *const *split, GError **error)
{
    MiSplitter *s = g_new0(MiSplitter, 1);
    bool        known = !pre;

    for (size_t i = 0; pre && i < G_N_ELEMENTS(rules); i++)
        if (!strcmp(pre, rules[i].name)) {
            s->rule = rules[i].rule;
            known = true;
        }
    if (!known) {
        g_set_error(
            error, MI_ERROR, MI_ERROR_UNSUPPORTED,
            "tokenizer: no split rule '%.40s'; there are those of gpt-2, llama-bpe, qwen2 and smollm, and regex", pre);
        goto fail;
    }
    if (s->rule == REGEX && (!split || !split[0])) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "tokenizer: split rule 'regex' comes without an expression");
        goto fail;
    }
    for (; s->rule == REGEX && *split; split++)
        if (!add_regex(s, *split, error))
            goto fail;
    return s;
fail:
    mi_splitter_free(s);
    return NULL;
}

void mi_splitter_free(MiSplitter *s)
{
    for (int i = 0; s && i < s->n_regex; i++)
        g_regex_unref(s->regex[i]);
    g_free(s);
}

/* ---- regular expressions --------------------------------------------------- */
static int64_t cpu_time(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return t.tv_sec * (int64_t)1000000 + t.tv_nsec / 1000;
}

/* The budget is 1 s and 20 us a byte: ordinary expressions need less than 2 us. */
static bool in_budget(MiWords *w)
{
    if (!w->deadline)
        w->deadline = cpu_time() + 1000000 + (int64_t)w->len * 20;
    else if (++w->calls % 16 == 0 && cpu_time() > w->deadline)
        w->failed = true;
    return !w->failed;
}

/* The end of a window: a whole character, if there is one. */
static size_t window_end(const MiWords *w, size_t from, size_t bytes, size_t end)
{
    size_t at;

    if (end - from <= bytes)
        return end;
    for (at = from + bytes; at > from && ((unsigned char)w->text[at] & 0xc0) == 0x80; at--)
        ;
    return at;
}

/* Does expression i match at `at`, before `end`?  [start, end) is valid UTF-8. */
static bool match_at(MiWords *w, const GRegex *regex, size_t start, size_t at, size_t end, size_t *match_end)
{
    for (size_t bytes = 256; in_budget(w); bytes *= 4) {
        const size_t           until = window_end(w, at, bytes, end);
        g_autoptr(GMatchInfo)  info = NULL;
        g_autoptr(GError)      error = NULL;
        const GRegexMatchFlags whole = until < end ? G_REGEX_MATCH_PARTIAL_HARD : 0;
        int                    from, to;

        const bool matched = g_regex_match_full(regex, w->text + start, (gssize)(until - start), (int)(at - start),
                                                G_REGEX_MATCH_ANCHORED | whole, &info, &error);
        if (error) {
            w->failed = true;
            return false;
        }
        if (!matched && g_match_info_is_partial_match(info))
            continue;
        if (!matched || !g_match_info_fetch_pos(info, 0, &from, &to) || (size_t)to <= at - start)
            return false;
        *match_end = start + (size_t)to;
        return true;
    }
    return false;
}

/* The end of the valid UTF-8 that begins at `at`; of bytes that are not, if that is none. */
static size_t validity_end(const MiWords *w, size_t at, bool *valid)
{
    const char *end = w->text + w->len, *p = w->text + at;
    size_t      n;

    *valid = mi_utf8_at(p, end, &n) < MI_INVALID_BYTE;
    while (p < end && (mi_utf8_at(p, end, &n) < MI_INVALID_BYTE) == *valid)
        p += n;
    return (size_t)(p - w->text);
}
/* The end of expression i's next piece, which begins at w->at: of a match, or of what lies before one. */
static size_t piece_end(MiWords *w, int i, size_t limit)
{
    const GRegex *regex = w->splitter->regex[i];
    size_t        n, end;

    if (w->level[i].match_end > w->at && w->level[i].match_start == w->at)
        return w->level[i].match_end;
    for (size_t p = w->at; p < limit && !w->failed; p += n) {
        mi_utf8_at(w->text + p, w->text + limit, &n);
        if (!match_at(w, regex, w->level[i].start, p, limit, &end))
            continue;
        w->level[i].match_start = p;
        w->level[i].match_end = end;
        return p == w->at ? end : p;
    }
    return limit;
}

static size_t next_regex(MiWords *w)
{
    bool renewed = w->at >= w->valid_end;

    if (renewed)
        w->valid_end = validity_end(w, w->at, &w->valid);
    size_t limit = w->valid_end;
    for (int i = 0; w->valid && i < w->splitter->n_regex; i++) {
        if (renewed)
            w->level[i].start = w->at;
        renewed = w->at >= w->level[i].end;
        if (renewed)
            w->level[i].end = piece_end(w, i, limit);
        limit = w->level[i].end;
    }
    return limit;
}

/* ---- words ----------------------------------------------------------------- */
void mi_words_start(MiWords *w, const MiSplitter *s, const char *text, size_t len)
{
    *w = (MiWords){ .splitter = s, .text = text, .len = len };
}

/* Digits are cut off first, each for itself: what lies between two is a text of its own. */
static const char *next_smollm(MiWords *w, const char *p)
{
    if (w->at >= w->segment)
        w->segment = (size_t)(mi_scan_digits(p, w->text + w->len) - w->text);
    return mi_scan_gpt2(p, w->text + w->segment);
}

bool mi_words_next(MiWords *w, const char **word, size_t *len)
{
    const char *p = w->text + w->at, *end = w->text + w->len;

    if (w->at >= w->len || w->failed)
        return false;
    switch (w->splitter->rule) {
    case NONE: break;
    case GPT2: end = mi_scan_gpt2(p, end); break;
    case LLAMA3: end = mi_scan_llama3(p, end); break;
    case QWEN2: end = mi_scan_qwen2(p, end); break;
    case SMOLLM: end = next_smollm(w, p); break;
    case REGEX: end = w->text + next_regex(w); break;
    }
    *word = p;
    *len = (size_t)(end - p);
    w->at += *len;
    return !w->failed;
}
