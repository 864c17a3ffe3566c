/* generate.h - requests and what comes of them: the part of miniinfer.h that needs a model. */
#ifndef MINIINFER_GENERATE_H
#define MINIINFER_GENERATE_H

#include <miniinfer/miniinfer.h>

#ifdef __cplusplus
extern "C" {
#endif

/* One of text, ids and messages is the prompt.  Everything is copied. */
typedef struct {
    size_t                  struct_size;
    const char             *text;     /* continued as it is, after the model's beginning-of-text token */
    size_t                  text_len; /* 0: up to its NUL */
    const int32_t          *ids;      /* [n_ids] */
    size_t                  n_ids;
    const MiniinferMessage *messages; /* [n_messages] through the model's chat template */
    size_t                  n_messages;
    int32_t                 max_tokens; /* -1: none, only the prompt is looked at */
    int32_t                 min_tokens, priority;
    bool                    ignore_eos, prompt_logprobs;
    int32_t                 logprobs; /* of every token, with the n likeliest: 1 to 20 */
    const char *const      *stop;     /* texts that end the answer; NULL-terminated */
    const int32_t          *stop_ids; /* [n_stop_ids] beside the model's own */
    int32_t                 n_stop_ids;
    const MiniinferPair    *params;   /* of the sampler chain: "temperature", "top_p", "seed", ... */
    /* The engine's thread: there is something new in the answer.  It returns at once; it may call anything but close(),
     * load() and generate(); next() and wait() do not wait there. */
    void (*notify)(void *user);
    void                   *notify_user;
} MiniinferRequest;

typedef enum { MINIINFER_STOP, MINIINFER_LENGTH, MINIINFER_CANCELLED } MiniinferFinish;
typedef struct { int32_t id; float logprob; } MiniinferTop;
typedef struct {
    const char         *text; /* [len] whole characters, terminated */
    size_t              len, n_ids;
    const int32_t      *ids;      /* [n_ids]; a text may come later than the ids it is made of */
    const float        *logprobs; /* [n_ids]; NULL unless asked for */
    const MiniinferTop *tops;     /* [n_ids][n_tops] best first; NULL unless asked for */
    int32_t             n_tops;
} MiniinferTokens;

typedef struct {
    MiniinferCode   code;    /* MINIINFER_OK, also of one that was cancelled */
    const char     *message; /* "" */
    MiniinferFinish finish;
    MiniinferTokens answer;  /* all of it */
    MiniinferTokens prompt;  /* with prompt_logprobs: its ids from the second on, no text */
    int32_t         n_prompt, n_cached, n_drawn;     /* tokens: of the prompt, of it found in the cache, of the answer */
    int64_t         queued_us, prompt_us, decode_us; /* waiting; to the first token; from it on */
} MiniinferResult;

typedef enum { MINIINFER_TEXT, MINIINFER_PROMPT, MINIINFER_DONE } MiniinferEventType;
typedef struct {
    MiniinferEventType     type;
    MiniinferTokens        tokens; /* TEXT: what is new; PROMPT: of the prompt */
    const MiniinferResult *result; /* DONE */
} MiniinferEvent;

/* Answers one request, calling `event` on this thread as it goes; false cancels the rest.  event may be NULL. */
MINIINFER_API bool miniinfer_generate(Miniinfer *, const MiniinferRequest *,
                                      bool (*event)(void *user, const MiniinferEvent *), void *user, MiniinferError *error);

/* The same without waiting: the caller releases the answer. */
MINIINFER_API MiniinferAnswer *miniinfer_submit(Miniinfer *, const MiniinferRequest *, MiniinferError *error);
/* What is new, waiting for it up to timeout_ms, -1: as long as it takes.  NULL: nothing in that time, or nothing after
 * DONE.  Valid until the next call for this answer. */
MINIINFER_API const MiniinferEvent *miniinfer_next(MiniinferAnswer *, int timeout_ms);
/* The whole, when it is done; NULL: not in that time.  Valid until it is released. */
MINIINFER_API const MiniinferResult *miniinfer_wait(MiniinferAnswer *, int timeout_ms);
/* DONE still follows; what is done already stays so. */
MINIINFER_API void miniinfer_cancel(MiniinferAnswer *);
/* Cancels it if it still runs, does not wait, frees it; NULL is ignored. */
MINIINFER_API void miniinfer_release(MiniinferAnswer *);

/* Answers `n` requests, as many at once as "engine.max_seqs" (batch size) says; "engine.prefill_step" and "engine.max_len"
 * bound a step and a request.  answers: [n], in the order of the requests, each the caller's to release whatever comes
 * back.  done: on this thread, as they finish; false cancels the rest; may be NULL.  False: with the first error of any;
 * each answer has its own. */
MINIINFER_API bool miniinfer_batch(Miniinfer *, const MiniinferRequest *requests, size_t n, MiniinferAnswer **answers,
                                   bool (*done)(void *user, size_t i, const MiniinferResult *), void *user,
                                   MiniinferError *error);

#ifdef __cplusplus
}
#endif
#endif
