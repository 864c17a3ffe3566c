/* api_answer.h - an answer of the library's. */
#ifndef MI_CORE_API_ANSWER_H
#define MI_CORE_API_ANSWER_H

#include "answer.h"
#include "api.h"
#include "prompt.h"

/* Called on the engine's thread when an answer is done. */
typedef struct {
    void (*done)(void *user, size_t i); /* NULL: nobody */
    void  *user;
    size_t i;
} MiApiDone;

struct MiniinferAnswer {
    int        refs;
    Miniinfer *mi; /* a reference */
    MiAnswer   all; /* its lock is the answer's */
    uint64_t   id;  /* 0: not known yet */
    GRecMutex  notifying; /* held while notify() runs, so that release() can wait for it */
    void     (*notify)(void *user); /* NULL: none, or released */
    void      *notify_user;
    MiApiDone  done;
    /* the reader's */
    MiAnswer        news; /* what next() gave: a copy */
    gsize           text_seen;
    guint           ids_seen, prompt_seen;
    bool            ended; /* DONE was given */
    MiniinferEvent  event;
    MiniinferResult result;
};

/* done may be NULL.  NULL with *error. */
MiniinferAnswer *mi_api_submit(Miniinfer *, const MiniinferRequest *, const MiApiDone *done, GError **error);
/* An answer that is done: takes why; NULL: it was cancelled. */
MiniinferAnswer *mi_api_refused(Miniinfer *, GError *why);
/* The caller frees the ids. */
bool mi_api_chat(Miniinfer *, const MiniinferMessage *, size_t n, int32_t **ids, size_t *n_ids, GError **error);

#endif
