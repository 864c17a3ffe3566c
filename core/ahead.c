/* ahead.c - schedules and recordings before the steps that need them come. */
#include "graph.h"
#include "runner_parts.h"

enum { NEAR = 64, /* steps before they need it, what holds more positions is made */
       FEW = 8 }; /* sequences: a step of so many is so short that each flight has a recording, whose copies are told once */

/* All sequences of this one, decoding. */
void mi_runner_expect(MiRunner *r, const MiFlight *f, uint32_t links)
{
    const MiExpected *was = &r->expected;
    MiExpected        e = { links, f->logprobs, 0, mi_runner_kv(r, f->shape.max_kv + 1),
                            mi_runner_kv(r, f->shape.max_kv + NEAR) };

    while (e.size < r->a->n_sizes - 2 && r->a->sizes[e.size].n_tokens < f->shape.n_seqs)
        e.size++;
    r->settled = r->settled && was->links == e.links && was->logprobs == e.logprobs && was->size == e.size && was->kv == e.kv &&
                 was->next_kv == e.next_kv;
    r->expected = e;
}

/* The schedule of such steps, then their recording, flight -1: whosever; false: both are there, or cannot be; and of
 * an attention that plans no recording can: what it planned for is the step before. */
static bool make(MiRunner *r, int size, int32_t kv, int flight)
{
    MiAssembly *a = r->a;
    const guint made = a->buckets->len;
    MiBucket   *b;

    if (size < 0 || size > a->n_sizes - 2)
        return false;
    const int32_t n = a->sizes[size].n_tokens;
    const MiShape shape = { n, n, n, MIN(kv, a->max_len), true };
    if (!(b = mi_assembly_bucket(a, r->expected.links, r->expected.logprobs, shape, NULL)) || b->size != size)
        return false;
    if (made != a->buckets->len)
        return true;
    if (b->schedule->bytes > a->arena_bytes || mi_graph_has(b, shape, flight) || !mi_runner_place(r, b, NULL))
        return false;
    r->batch.shape = shape;
    mi_graph_record(a, b, shape, flight);
    return true;
}

static bool can(const MiRunner *r)
{
    return mi_runner_records(r) && !(r->watch && r->watch->nodes) &&
           !MI_HAS((const MiAttention *)r->a->attention->vtable, plan);
}

bool mi_runner_ahead(MiRunner *r)
{
    const MiExpected e = r->expected;
    const bool       few = r->a->sizes[e.size].n_tokens <= FEW;

    if (!r->settled && can(r) &&
        (make(r, e.size, e.kv, few ? 0 : -1) || (few && make(r, e.size, e.kv, MI_FLIGHTS - 1)) ||
         make(r, e.size - 1, e.kv, -1) || make(r, e.size, e.next_kv, -1) || make(r, e.size + 1, e.kv, -1)))
        return true;
    r->settled = true;
    return false;
}

/* ---- all of them, at the start -------------------------------------------------------------- */

/* The links that a request has which says nothing. */
static uint32_t usual_links(const MiAssembly *a)
{
    uint32_t links = 0;

    for (int i = 0; i < a->n_links; i++) {
        const MiSampler *s = a->links[i].sampler;
        if (s->draws || !MI_HAS(s, wants) || s->wants(a->links[i].defaults))
            links |= 1u << i;
    }
    return links;
}

/* Steps with prompts run node by node, but what their kernels are is found out, and loaded, at the first time. */
static void rehearse_prompts(MiRunner *r)
{
    MiAssembly *a = r->a;
    MiBucket   *b = mi_assembly_bucket(a, r->expected.links, false, a->sizes[a->n_sizes - 1], NULL);

    if (!b || b->schedule->bytes > a->arena_bytes || !mi_runner_place(r, b, NULL))
        return;
    for (int n = MIN(32, a->max_seqs); n <= a->max_seqs; n += n < 64 ? n : 64) {
        r->batch.shape = (MiShape){ .n_tokens = MIN(a->max_tokens, a->prefill_step + n - 1), .n_seqs = n, .n_out = n,
                                    .max_kv = mi_runner_kv(r, 1) };
        mi_graph_rehearse(a, b, r->batch.shape);
    }
}

bool mi_runner_rehearse(MiRunner *r)
{
    enum { MOST_KV = 2048 }; /* longer ones are made when they are near */
    const MiAssembly *a = r->a;

    if (!a->settings.engine.rehearse || !can(r))
        return false;
    r->expected.links = usual_links(a);
    for (int size = 0; size < a->n_sizes - 1; size++)
        for (int32_t kv = mi_runner_kv(r, 1); kv; kv = kv < MIN(MOST_KV, a->max_len) ? mi_runner_kv(r, kv + 1) : 0)
            while (make(r, size, kv, -1)) {
            }
    rehearse_prompts(r);
    return true;
}
