/* batch_answer.h - an answer of a batch, as it comes and as it is written. */
#ifndef BATCH_ANSWER_H
#define BATCH_ANSWER_H

#include "batch_request.h"

typedef struct {
    GArray *ids, *logprobs, *tops; /* int32_t; float; MiTop[n_tops] each */
} BatchTokens;

typedef struct {
    json_t  *id;
    int      index; /* of the answers to its line */
    char     of[BATCH_DIGEST];
    GString *text;
    BatchTokens drawn, prompt; /* prompt: from its second token on, if the request asks for their log probabilities */
    int      n_tops;
    GError  *error; /* NULL: none */
    MiFinish finish;
    int32_t  n_prompt;
} BatchAnswer;

void batch_answer_init(BatchAnswer *, json_t *id, int index, const char *of);
void batch_answer_clear(BatchAnswer *);
void batch_answer_event(BatchAnswer *, const MiEvent *); /* engine thread */

/* As JSON with its end of line; the caller frees it. */
char *batch_answer_line(const BatchAnswer *);

#endif
