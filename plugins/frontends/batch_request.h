/* batch_request.h - one line of a batch as what the engine is asked. */
#ifndef BATCH_REQUEST_H
#define BATCH_REQUEST_H

#include <jansson.h>
#include <miniinfer/frontend.h>

/* What a line leaves open. */
typedef struct {
    bool        raw;
    int32_t     max_tokens, min_tokens;
    bool        ignore_eos;
    const char *stop, *system; /* "": none */
    const char *seed;          /* "", 0: each answer draws its own */
} BatchDefaults;

typedef struct {
    json_t    *id;      /* a string or an integer, owned */
    json_t    *json;    /* the line, which request points into; NULL: a plain prompt */
    MiRequest  request; /* but for event and user */
    int        n;       /* answers wanted */
    uint64_t   seed;    /* of the first one, the others' follow; 0: each draws its own */
    GPtrArray *owned;   /* what request points into */
    GArray    *params;  /* MiParam, ends with a NULL key */
} BatchLine;

/* line: [len] without its newline, number: counted from 1, the id of a plain prompt.  A line that begins with { is a
 * JSON object; any other is a prompt. */
bool batch_line_read(BatchLine *, MiEngine *, const char *line, size_t len, int64_t number, const BatchDefaults *,
                     GError **error);
void batch_line_clear(BatchLine *);

/* The key of an answer, equal for equal ids only; the caller frees it. */
char *batch_key(const json_t *id, int64_t index);
/* The same line's id, to be given up, and how many answers it wants, without a look at its prompt; NULL: it cannot
 * be read. */
json_t *batch_line_id(const char *line, size_t len, int64_t number, int *n);

/* What answers depend on beside their lines, "model-settings": of two that differ batch_differs() says in what. */
char *batch_common_digest(MiEngine *, const BatchDefaults *);
/* The same with the line: what an answer keeps of its request, [17 + 1 + 16 and a 0]. */
enum { BATCH_DIGEST = 35 };
void batch_digest(const char *common, const char *line, size_t len, char out[BATCH_DIGEST]);
/* NULL: in nothing. */
const char *batch_differs(const char *digest, const char *wanted);

#endif
