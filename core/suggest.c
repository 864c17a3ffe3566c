#include "suggest.h"

#include <string.h>

enum { LONGEST = 64 };

/* Optimal string alignment (Damerau-Levenshtein without edits inside a swap),
 * three rows of the table at a time. */
unsigned mi_edit_distance(const char *a, const char *b)
{
    const size_t n = strlen(a), m = strlen(b);
    unsigned     table[3][LONGEST + 1], *before = table[0], *above = table[1], *row = table[2];

    if (n > LONGEST || m > LONGEST)
        return LONGEST;
    for (size_t j = 0; j <= m; j++)
        above[j] = (unsigned)j;
    for (size_t i = 1; i <= n; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= m; j++) {
            row[j] = above[j - 1] + (a[i - 1] != b[j - 1]);
            row[j] = MIN(row[j], MIN(above[j], row[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                row[j] = MIN(row[j], before[j - 2] + 1);
        }
        unsigned *old = before;
        before = above, above = row, row = old;
    }
    return above[m];
}

/* A slip is one edit, or one in every three letters. */
const char *mi_suggest(const char *word, const GPtrArray *candidates)
{
    const char *best = NULL;
    unsigned    closest = (unsigned)MIN(MAX(1, strlen(word) / 3), 8) + 1;

    for (guint i = 0; i < candidates->len; i++) {
        const char *name = candidates->pdata[i];
        unsigned    d = mi_edit_distance(word, name);
        if (d < closest && d < strlen(name)) {
            closest = d;
            best = name;
        }
    }
    return best;
}

void mi_suggest_append(GString *message, const char *word, const GPtrArray *candidates)
{
    const char *best = mi_suggest(word, candidates);
    if (best)
        g_string_append_printf(message, "; did you mean %s?", best);
}

char *mi_printable(const char *text, size_t max)
{
    g_autofree char *cut = g_strndup(text, max), *valid = g_utf8_make_valid(cut, -1);
    GString         *out = g_string_new(NULL);

    for (const char *p = valid; *p; p = g_utf8_next_char(p))
        g_string_append_unichar(out, g_unichar_isprint(g_utf8_get_char(p)) ? g_utf8_get_char(p) : '?');
    if (strlen(cut) < strlen(text))
        g_string_append(out, "...");
    return g_string_free(out, FALSE);
}
