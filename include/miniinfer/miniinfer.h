/* miniinfer.h - the engine as a library, for other people's programs.
 *
 * Link with `pkg-config --cflags --libs miniinfer`; docs/library.md has whole examples.
 *
 * The library keeps nothing outside of its handles: two of them are two engines.  It prints nothing, ends no process, sets
 * no signal handler, locale or environment.  Its threads block all signals but those of faults.  What can fail says so and
 * fills `error`, which may be NULL.  GLib, which it uses inside, ends the process when a small allocation fails; what has
 * the size of a caller's data, a model or a cache is allocated so that it fails with an error instead.
 *
 * Any thread may call any function, but close() and release() while no other call on the same handle begins, and next()
 * and wait() of one answer from one thread at a time.  What a function gives as a pointer to const is the library's.
 * Structs that begin with struct_size are given with it set: { .struct_size = sizeof(MiniinferRequest), .text = ... };
 * members that are left zero mean the configuration's default, or none.
 * Requests and their answers are in miniinfer/generate.h, which this header includes. */
#ifndef MINIINFER_MINIINFER_H
#define MINIINFER_MINIINFER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#define MINIINFER_API __attribute__((visibility("default")))

typedef struct Miniinfer       Miniinfer;       /* a configuration with its plugins, and a model once one is loaded */
typedef struct MiniinferAnswer MiniinferAnswer; /* to one request */

typedef enum {
    MINIINFER_OK,
    MINIINFER_ERROR_PLUGIN,      /* a file that is no plugin, or a part that none brings */
    MINIINFER_ERROR_NOT_FOUND,   /* a file, a model, a part of one */
    MINIINFER_ERROR_CONFIG,      /* a key or value of a configuration, or of a request */
    MINIINFER_ERROR_UNSUPPORTED, /* parts that do not fit each other or what is asked */
    MINIINFER_ERROR_MODEL,       /* a model file that is not what it says */
    MINIINFER_ERROR_DEVICE,      /* of a request: nothing will be answered any more, close and open again */
    MINIINFER_ERROR_NO_MEMORY,
    MINIINFER_ERROR_IO,
    MINIINFER_ERROR_MISUSE,      /* a call that is not possible now: no model is loaded, it is being closed, ... */
} MiniinferCode;
/* The caller's; message: one line of UTF-8. */
typedef struct { MiniinferCode code; char message[2044]; } MiniinferError;
typedef struct { const char *key, *value; } MiniinferPair; /* an array ends with a NULL key; may be NULL */

MINIINFER_API const char *miniinfer_version(void); /* "0.1.0" */

/* ---- open and close ------------------------------------------------------------------------------------------------ */
/* Reads a configuration, `file` (may be NULL) and then `settings`, which replace what it says, and opens the plugins.
 * Keys are those of the command line: "model.path", "engine.max_seqs", "sampler.temperature", or its shorter names without
 * dashes: "model", "threads", "batch-size", "prefill-step", "max-length", "max-tokens", "seed", "system".  Parts can be used
 * from here on.  The caller closes it. */
MINIINFER_API Miniinfer *miniinfer_open(const char *file, const MiniinferPair *settings, MiniinferError *error);
/* Loads the model and starts the engine's thread; once.  progress: on this thread, bytes; false stops it; may be NULL. */
MINIINFER_API bool miniinfer_load(Miniinfer *, bool (*progress)(void *user, uint64_t done, uint64_t total), void *user,
                                  MiniinferError *error);
/* Cancels what runs and frees everything but answers, which stay readable until they are released; NULL is ignored.
 * False, and nothing done: called from a request's notify(). */
MINIINFER_API bool miniinfer_close(Miniinfer *);

/* ---- text ---------------------------------------------------------------------------------------------------------- */
/* The ids of a text, without the model's beginning-of-text token.  special: pieces such as <|im_start|> are recognised,
 * never for what a user wrote.  ids: [max]; gives how many there are, which may be more than max; SIZE_MAX: error. */
MINIINFER_API size_t miniinfer_tokenize(Miniinfer *, const char *text, size_t len, bool special, int32_t *ids, size_t max,
                                        MiniinferError *error);
/* The bytes of ids, which may end in a part of a character.  special: special pieces by their name, else nothing.  text:
 * [max], a NUL behind it if there is room; gives how many bytes there are; SIZE_MAX: error. */
MINIINFER_API size_t miniinfer_detokenize(Miniinfer *, const int32_t *ids, size_t n, bool special, char *text, size_t max,
                                          MiniinferError *error);

typedef struct { const char *role, *content; } MiniinferMessage; /* "user", "Why is the sky blue?" */
/* The ids of a conversation as the model's chat template puts it, up to where the answer begins; "generate.system" comes
 * first unless the messages begin with one of role "system".  Like tokenize(). */
MINIINFER_API size_t miniinfer_chat(Miniinfer *, const MiniinferMessage *, size_t n, int32_t *ids, size_t max,
                                    MiniinferError *error);

/* ---- facts --------------------------------------------------------------------------------------------------------- */
typedef struct {
    const char *name, *architecture;   /* "SmolLM2-135M", "LlamaForCausalLM" */
    const char *device, *dtype, *kv_dtype, *attention, *cache, *scheduler; /* what was chosen */
    int32_t     max_len, max_seqs, prefill_step;
    int32_t     n_layers, n_vocab, bos; /* bos -1: it begins a text with nothing */
    bool        has_tokenizer, has_template;
    size_t      bytes_mapped, bytes_allocated; /* weights used where the file lies; all else */
} MiniinferModel;
/* NULL: no model is loaded.  Valid until close(). */
MINIINFER_API const MiniinferModel *miniinfer_model(Miniinfer *);

typedef struct {
    size_t   struct_size;
    int32_t  running, waiting;
    uint64_t requests, tokens_in, tokens_out, steps;
    int64_t  kv_used, kv_room; /* positions of the cache */
    int64_t  host_us; /* that the engine's thread spent on steps, its waiting for the device left out */
} MiniinferStats;
/* False: no model is loaded, or struct_size is not set. */
MINIINFER_API bool miniinfer_stats(Miniinfer *, MiniinferStats *out);

/* ---- parts by name, without a model, on arrays of the caller's ------------------------------------------------------- */
/* Calls `part` with "op:silu@cpu", "attention:gqa@cpu" and so on, ordered; kind: "op", "attention", ...; NULL: all. */
MINIINFER_API bool miniinfer_parts(Miniinfer *, const char *kind, void (*part)(void *user, const char *name), void *user,
                                   MiniinferError *error);

/* They run on "engine.device", one after the other, f32 as the caller's arrays are; rows are contiguous. */
/* y = f(x), element by element: "silu", "gelu", "leaky_relu" with params "negative_slope".  y may be x. */
MINIINFER_API bool miniinfer_activation(Miniinfer *, const char *name, const MiniinferPair *params, const float *x, float *y,
                                        int64_t rows, int64_t columns, MiniinferError *error);

enum { MINIINFER_MAX_OPERANDS = 4 };
typedef struct {
    size_t       struct_size;
    const float *in[MINIINFER_MAX_OPERANDS];     /* [rows][columns] each, as many as the operation takes */
    const float *weight[MINIINFER_MAX_OPERANDS]; /* [columns] each: of "rmsnorm", "layernorm" (and its bias) */
    float       *out;                            /* [rows][columns] */
    int64_t      rows, columns;
} MiniinferRows;
/* An operation on rows: "add", "mul", "softmax", "rmsnorm" with params "eps", an activation, one of a plugin of yours. */
MINIINFER_API bool miniinfer_op(Miniinfer *, const char *name, const MiniinferPair *params, const MiniinferRows *,
                                MiniinferError *error);

typedef struct {
    size_t       struct_size;
    const float *q, *k, *v; /* [n_queries][n_heads][head_dim]; k, v: [n_keys][n_kv_heads][head_dim] */
    float       *out;       /* like q */
    int32_t      n_queries, n_keys, n_heads, n_kv_heads, head_dim;
    bool         causal;  /* the queries are the last of n_keys positions, and see none behind their own */
    float        scale;   /* 0: 1 / sqrt(head_dim) */
    float        softcap; /* 0: none */
    int32_t      window;  /* keys that a causal query sees at most; 0: all */
} MiniinferAttention;
/* softmax(scale q k') v by the attention of that name: "gqa", "simple". */
MINIINFER_API bool miniinfer_attention(Miniinfer *, const char *name, const MiniinferAttention *, MiniinferError *error);

#include <miniinfer/generate.h>

#ifdef __cplusplus
}
#endif
#endif
