/* frontend.h - a way in.  A front end submits requests and is told what comes
 * of them; all of MiEngineApi may be called from any thread. */
#ifndef MINIINFER_FRONTEND_H
#define MINIINFER_FRONTEND_H

#include <miniinfer/context.h>

typedef struct { const char *key, *value; } MiParam;       /* "top_p", "0.9": as samplers declare them */

/* What a chat template is given: all that JSON can say.  Borrowed during the call. */
typedef enum { MI_VAR_NULL, MI_VAR_BOOL, MI_VAR_INT, MI_VAR_FLOAT, MI_VAR_TEXT, MI_VAR_LIST, MI_VAR_MAP } MiVarType;
typedef struct MiVar MiVar;
struct MiVar {
    MiVarType    type;
    size_t       n;       /* bytes of a text, items of a list, pairs of a map */
    int64_t      integer; /* INT; BOOL: 0 or 1 */
    double       number;  /* FLOAT */
    const char  *text;    /* TEXT: [n] UTF-8, not terminated */
    const MiVar *items;   /* LIST, MAP: [n] */
    const char *const *keys; /* MAP: [n], terminated */
};

enum { MI_MAX_TOPS = 20 };
typedef struct { int32_t id; float logprob; } MiTop;

/* PROMPT: the prompt's own log probabilities, in order, in one or more events; `tokens`,
 * `logprobs` and `tops` are of the prompt's ids from the second on; no text. */
typedef enum { MI_EVENT_PROMPT, MI_EVENT_TEXT, MI_EVENT_DONE, MI_EVENT_ERROR } MiEventType;
typedef enum { MI_FINISH_STOP, MI_FINISH_LENGTH, MI_FINISH_CANCELLED } MiFinish;

/* Valid during the call. */
typedef struct {
    MiEventType    type;
    int32_t        code; /* ERROR: an MiErrorCode; MI_ERROR_DEVICE: nothing will be answered any more */
    uint64_t       id;
    const char    *text; /* TEXT: [len] whole characters; ERROR: the message, terminated */
    size_t         len;
    const int32_t *tokens;   /* [n_tokens] those of the text; may be 0 */
    const float   *logprobs; /* [n_tokens] of the tokens; NULL unless asked for */
    const MiTop   *tops;     /* [n_tokens][n_tops] the likeliest, best first; NULL unless asked for */
    int32_t        n_tops;
    int32_t        n_tokens;
    MiFinish       finish;                     /* DONE */
    int32_t        n_prompt, n_cached, n_drawn; /* DONE: usage */
    int64_t        queued_us, prompt_us, decode_us; /* DONE: waiting; to the first token; from it on */
} MiEvent;

/* Copied by submit(). */
typedef struct {
    const int32_t     *tokens; /* [n_tokens] the prompt */
    size_t             n_tokens;
    int32_t            max_tokens, min_tokens; /* max_tokens 0: to the model's end; -1: none at all */
    int32_t            priority; /* larger is more urgent, for schedulers that look at it */
    const char        *client;   /* who asks, for those that share fairly; NULL: nobody in particular */
    const char *const *stop;     /* NULL-terminated; may be NULL */
    const int32_t     *stop_ids; /* [n_stop_ids] beside the model's own; may be NULL */
    int32_t            n_stop_ids;
    const MiParam     *params;   /* ends with a NULL key; may be NULL */
    int32_t            logprobs; /* 0: none; n: of each token, with the n likeliest (1 to MI_MAX_TOPS) */
    bool               prompt_logprobs, ignore_eos;
    /* Engine thread: returns at once and copies what it keeps. */
    void (*event)(void *user, const MiEvent *);
    void *user;
} MiRequest;

typedef struct {
    int32_t  running, waiting; /* sequences: that take part in steps; that do not yet */
    uint64_t requests, tokens_in, tokens_out, steps;
    int64_t  kv_used, kv_room; /* positions; those that nobody needs but are kept, in case, count as room */
    int64_t  host_us; /* that the engine's thread spent on steps, its waiting for the device left out */
    uint64_t prompt_tokens, found_tokens; /* of all that were started; of them those that the cache had already */
    uint64_t preemptions; /* sequences that lost their place for others */
    int64_t  kv_most; /* the largest kv_used so far */
} MiStats;

typedef struct MiEngine MiEngine;

typedef struct {
    size_t struct_size;
    /* The request's id, 0 with *error for a parameter nobody knows, a prompt too long, a full
     * queue, and MI_ERROR_DEVICE once the device failed.  After DONE or ERROR its event() is not
     * called again. */
    uint64_t (*submit)(MiEngine *, const MiRequest *, GError **error);
    /* Unknown ids are ignored; DONE still follows. */
    void (*cancel)(MiEngine *, uint64_t id);
    void (*stats)(MiEngine *, MiStats *out);
    /* The model's name and its limit of tokens; the string is the engine's. */
    const char *(*model)(MiEngine *, int32_t *max_len);
    /* As MiTokenizer.encode; SIZE_MAX as well when the model has no tokenizer. */
    size_t (*encode)(MiEngine *, const char *text, size_t len, bool special, int32_t *out, size_t max);
    /* As MiTokenizer.piece. */
    const char *(*piece)(MiEngine *, int32_t previous, int32_t id, size_t *len);
    /* A conversation as the model's template puts it, as ids: `vars` is a map with `messages`,
     * `add_generation_prompt`, perhaps `tools`.  Text out of vars never becomes a special token.
     * The caller frees the ids with g_free(); NULL with *error. */
    int32_t *(*encode_chat)(MiEngine *, const MiVar *vars, size_t *n_ids, GError **error);
    /* The id that the model begins a text with; encode() adds none.  -1: it begins with nothing. */
    int32_t (*bos)(MiEngine *);
    /* Optional.  What answers depend on beside what requests say: the model (its tables and settings, the beginning of
     * each weight, dtype, template), and what the sampler chain does by default.  Texts of which only equality
     * means something; the caller frees both. */
    void (*identity)(MiEngine *, char **model, char **sampling);
} MiEngineApi;

struct MiEngine {
    const MiEngineApi *api;
};

typedef struct {
    size_t struct_size;
    /* LOAD.  Opens its socket, say; options may be NULL.  NULL with *error. */
    void *(*create)(MiEngine *, const void *options, GError **error);
    /* A thread of its own.  Returns when it is done or stop() was called, and false with
     * MI_ERROR_DEVICE when the device failed: the process ends for its supervisor. */
    bool (*serve)(void *self, GError **error);
    /* Any thread, perhaps of a signal: no new requests; serve() returns soon. */
    void (*stop)(void *self);
    void (*destroy)(void *self);
} MiFrontend;

#endif
