/* sequence.h - a request on its way through the engine. */
#ifndef MI_CORE_SEQUENCE_H
#define MI_CORE_SEQUENCE_H

#include "parts.h"

#include <miniinfer/frontend.h>

typedef struct {
    MiSequence pub; /* first: what schedulers and caches see; pub.tokens has room for the whole answer */
    void (*event)(void *user, const MiEvent *);
    void    *user;
    char    *client;
    char   **stop;     /* NULL-terminated; may be NULL */
    int32_t *stop_ids; /* [n_stop_ids] the request's and, unless ignore_eos, the model's */
    int32_t  n_stop_ids, min_tokens, logprobs;
    int32_t  n_known;  /* of pub.tokens; what stands behind them is being drawn */
    int32_t  n_told;   /* of them that its slot's history has */
    int32_t  n_flights; /* steps under way that it is part of */
    int32_t  n_asked;  /* like n_scored, counting those of steps under way */
    int32_t  n_scored; /* tokens of the prompt whose log probability was delivered, not counting the first */
    int32_t  n_found; /* positions that the cache had when it was first scheduled */
    bool     placed; /* it was in a step, and nobody has noticed that it lost its place */
    bool     prompt_logprobs, cancelled, finished, gone; /* gone: the engine only waits for its steps */
    uint32_t links;               /* those whose parameters ask for something */
    void    *rows[MI_MAX_LINKS];  /* its parameters, by link; NULL: the link has none */
    GString *held;                /* bytes decoded and not delivered: a part of a character, perhaps of a stop string */
    GString *valid;               /* what is being delivered, where held is no UTF-8 */
    int64_t  arrived_us, started_us, first_us;
} MiRequested;

/* Copies the request.  NULL with *error: an unknown parameter, a prompt that can't fit. */
MiRequested *mi_requested_new(const MiAssembly *, const MiRequest *, uint64_t id, GError **error);
void         mi_requested_free(MiRequested *);

/* One token was drawn: appends it, decodes, looks for stops, tells the front end.
 * logprobs, ids: [1 + MI_MAX_TOPS] of this row, or NULL.  True: the answer is complete. */
bool mi_requested_drawn(MiRequested *, const MiAssembly *, int32_t token, const float *logprobs, const int32_t *ids);
/* The log probabilities of prompt tokens first..first+n, from rows of the same arrays. */
void mi_requested_scored(MiRequested *, int32_t first, int32_t n, const float *logprobs, const int32_t *ids);
/* The last event; the sequence takes no part from then on. */
void mi_requested_finish(MiRequested *, MiFinish finish);
void mi_requested_fail(MiRequested *, const GError *);

#endif
