/* runner_parts.h - what runner.c and ahead.c share. */
#ifndef MI_CORE_RUNNER_PARTS_H
#define MI_CORE_RUNNER_PARTS_H

#include "constants.h"
#include "runner.h"

typedef struct { int first, n; } MiChanged; /* rows of a link that the device does not have yet */

/* Steps that the next ones may be: of so many rows, an index of the assembly's sizes, and of positions up to so many; soon
 * up to next_kv. */
typedef struct { uint32_t links; bool logprobs; int size; int32_t kv, next_kv; } MiExpected;

struct MiRunner {
    MiAssembly *a;
    void       *cache, *arena, *step_memory, *rows, *drawn;
    char       *host_rows; /* what `rows` holds; rows itself where memory is shared */
    int         sent[MI_MAX_LINKS]; /* of each link the first rows, in which that is so */
    uint64_t   *row_of[MI_MAX_LINKS]; /* [max_out] the request whose parameters are there as it said them; 0: else */
    MiChanged     changed[MI_MAX_LINKS];
    int32_t    *history;
    MiKvView   *views;     /* [n_layers] */
    MiBatch     batch;     /* what ops see */
    MiBatch     host;      /* where the host writes: the same memory where it is shared */
    void       *host_step;
    MiConstants *constants;
    MiFlight    flights[MI_FLIGHTS];
    int         depth, next;
    MiExpected    expected;
    bool        settled; /* all that is expected is made */
    const MiWatch *watch; /* NULL: nobody looks */
};

/* Constants and addresses, once. */
bool mi_runner_place(MiRunner *, MiBucket *, GError **error);
/* Steps that only decode are recorded. */
bool mi_runner_records(const MiRunner *);
/* The bound of so many positions that a recording is made for. */
int32_t mi_runner_kv(const MiRunner *, int32_t n);
/* What those after this step may be. */
void mi_runner_expect(MiRunner *, const MiFlight *, uint32_t links);

#endif
