/* answer.h - what comes of one request. */
#ifndef MI_CORE_ANSWER_H
#define MI_CORE_ANSWER_H

#include "json_out.h"
#include "session.h"

#include <stdio.h>

/* Filled by the engine's thread under the lock until `done`, the waiter's then. */
typedef struct {
    GMutex   lock;
    GCond    more;
    GString *text;
    GArray  *ids, *logprobs, *tops;                      /* int32_t; float; MiTop[n_tops] each */
    GArray  *prompt_ids, *prompt_logprobs, *prompt_tops; /* of the prompt's second id on */
    int      n_tops;
    bool     done;
    GError  *error; /* NULL: none */
    MiFinish finish;
    int32_t  n_prompt, n_cached, n_drawn;
    int64_t  queued_us, prompt_us, decode_us;
} MiAnswer;

void mi_answer_init(MiAnswer *);
void mi_answer_clear(MiAnswer *);
/* An event of its request: engine thread. */
void mi_answer_take(MiAnswer *, const MiEvent *);
const char *mi_finish_name(MiFinish);

/* ---- the commands' (cmd_answer.c) */
/* Submits the request, with event and user set to the answer, and waits until it is done; text goes to `out` as it
 * comes, unless out is NULL.  Ctrl-C cancels it, which is no error. */
bool mi_answer_await(MiAnswer *, MiEngine *, MiRequest, FILE *out, GError **error);

/* output_ids, text, finish_reason and, if asked for, logprobs, as members of an open object. */
void mi_answer_write(const MiAnswer *, MiJson *);
/* prompt_tokens, prompt_ms, prompt_tokens_per_s and so on, as members. */
void mi_answer_write_timings(const MiAnswer *, MiJson *);

#endif
