/* suggest.h - the words of messages: "did you mean ...?", a stranger's text. */
#ifndef MI_CORE_SUGGEST_H
#define MI_CORE_SUGGEST_H

#include <glib.h>

/* How many insertions, deletions, changes of a byte and swaps of neighbours
 * make b of a; words over 64 bytes count as 64 apart. */
unsigned mi_edit_distance(const char *a, const char *b);

/* The candidate closest to `word`, the first of several; NULL when none is close
 * enough to be a slip.  candidates: const char *. */
const char *mi_suggest(const char *word, const GPtrArray *candidates);

/* Appends "; did you mean x?" when there is an x. */
void mi_suggest_append(GString *message, const char *word, const GPtrArray *candidates);

/* At most `max` bytes of a text as a line of a message or a terminal may hold them: bytes that
 * are no UTF-8 and control characters replaced, "..." where it was cut.  The caller frees it. */
char *mi_printable(const char *text, size_t max);

#endif
