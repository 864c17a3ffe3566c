/* determinism.h - requests made of a text, and whether two answers to each are the same bit for bit. */
#ifndef MI_CORE_DETERMINISM_H
#define MI_CORE_DETERMINISM_H

#include "answer.h"

/* Made of n_ids ids: every other one begins with them, each a little shorter than the one before; the others begin
 * within them.  Half are sampled, with seeds of their own, unless all are greedy; the last one's prompt is scored. */
typedef struct {
    int32_t *ids;
    size_t   n_ids;
    int      n, tokens; /* how many requests; tokens of an answer */
    bool     greedy;    /* a seed or a temperature is nothing that the chain knows */
} MiAsked;

size_t mi_asked_length(const MiAsked *, int which); /* of its prompt */

/* at_once: how many of them, before the first of those is waited for.  *out: [n], to be freed whatever comes.  Tokens a
 * second, of all; below 0: *error, or it was interrupted. */
double mi_asked_run(const MiAsked *, MiEngine *, int at_once, MiAnswer **out, GError **error);
void   mi_asked_free(const MiAsked *, MiAnswer *); /* takes NULL */

/* The first difference of all answers, in words; NULL: none.  *token: of the answer to *request, -1: of its prompt. */
char *mi_asked_difference(const MiAsked *, const MiAnswer *alone, const MiAnswer *there, int *request, int *token);

#endif
