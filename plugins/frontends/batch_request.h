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

#endif
