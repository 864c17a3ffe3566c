/* gpu_engine.c - the whole engine on a card: what it takes is what `plan` says, to the byte; steps
 * allocate nothing and wait for nothing but the step before; twenty times loaded and unloaded nothing
 * is left.  The calls are counted where they reach CUDA's runtime: the plugins' go through here. */
#define _GNU_SOURCE
#include "engine.h"
#include "gpu.h"
#include "parts.h"
#include "registry.h"

#include <malloc.h>
#include <unistd.h>

enum { N_PROMPT = 70, ROUNDS = 20, STEPS = 1000, WARM = 24 };

/* ---- the runtime's calls ------------------------------------------------------------------- */

typedef struct { size_t bytes; bool pinned; } Block;

static GMutex      lock; /* of what follows */
static GHashTable *blocks; /* what is allocated now */
static size_t      on_device, pinned;
static long        n_allocations, n_waits, n_event_waits, n_copies;

static void add(void *p, size_t bytes, bool host)
{
    g_mutex_lock(&lock);
    if (!blocks)
        blocks = g_hash_table_new_full(NULL, NULL, NULL, g_free);
    Block *b = g_new(Block, 1);
    *b = (Block){ bytes, host };
    g_hash_table_insert(blocks, p, b);
    *(host ? &pinned : &on_device) += bytes;
    n_allocations++;
    g_mutex_unlock(&lock);
}

static void take_out(void *p)
{
    g_mutex_lock(&lock);
    const Block *b = blocks ? g_hash_table_lookup(blocks, p) : NULL;
    if (b) {
        *(b->pinned ? &pinned : &on_device) -= b->bytes;
        g_hash_table_remove(blocks, p);
    }
    n_allocations++;
    g_mutex_unlock(&lock);
}

static void count(long *what)
{
    g_mutex_lock(&lock);
    *what += 1;
    g_mutex_unlock(&lock);
}

#define REAL(name)                                                  \
    static __typeof__(&name) real;                                  \
    if (!real)                                                      \
        *(void **)&real = dlsym(RTLD_NEXT, #name)

#pragma GCC visibility push(default) /* plugins find these before the runtime's own */
cudaError_t cudaMalloc(void **p, size_t bytes)
{
    REAL(cudaMalloc);
    const cudaError_t e = real(p, bytes);
    if (e == cudaSuccess)
        add(*p, bytes, false);
    return e;
}

cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags)
{
    REAL(cudaHostAlloc);
    const cudaError_t e = real(p, bytes, flags);
    if (e == cudaSuccess)
        add(*p, bytes, true);
    return e;
}

cudaError_t cudaMallocAsync(void **p, size_t bytes, cudaStream_t stream)
{
    REAL(cudaMallocAsync);
    const cudaError_t e = real(p, bytes, stream);
    if (e == cudaSuccess)
        add(*p, bytes, false);
    return e;
}

cudaError_t cudaFree(void *p)
{
    REAL(cudaFree);
    take_out(p);
    return real(p);
}

cudaError_t cudaFreeHost(void *p)
{
    REAL(cudaFreeHost);
    take_out(p);
    return real(p);
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    REAL(cudaStreamSynchronize);
    count(&n_waits);
    return real(stream);
}

cudaError_t cudaDeviceSynchronize(void)
{
    REAL(cudaDeviceSynchronize);
    count(&n_waits);
    return real();
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    REAL(cudaMemcpy);
    count(&n_waits);
    return real(to, from, bytes, kind);
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    REAL(cudaEventSynchronize);
    count(&n_event_waits);
    return real(event);
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    REAL(cudaMemcpyAsync);
    count(&n_copies);
    return real(to, from, bytes, kind, stream);
}
#pragma GCC visibility pop

/* ---- an engine ------------------------------------------------------------------------------ */

typedef struct {
    MiRegistry *registry;
    MiConfig   *config;
    MiAssembly *assembly;
    MiEngine   *engine;
} Run;

typedef struct {
    GMutex lock;
    GCond  cond;
    int    left;  /* requests that are not done */
    int    drawn; /* of the first of them */
    long   from[4], to[4]; /* the counts when WARM, and WARM + STEPS, tokens were there */
    char  *error;
} Meeting;

typedef struct { Meeting *meeting; bool first; } Asked;

static char *model; /* a folder with a config.json: the widths of Qwen2's 0.5B */

static void must(bool ok, GError *error)
{
    if (ok)
        return;
    printf("Bail out! %s\n", error ? error->message : "?");
    exit(1);
}

static void start(Run *r, const char *const *options)
{
    g_autoptr(GError) error = NULL;

    *r = (Run){ .registry = mi_registry_new(), .config = mi_config_new() };
    mi_plugin_load_dir(r->registry, g_getenv("MI_PLUGINS"));
    must(mi_config_set(r->config, "model.path", model, &error) && mi_config_set(r->config, "model.load", "dummy", &error) &&
             mi_config_set(r->config, "engine.device", "cuda", &error),
         error);
    for (; *options; options += 2)
        must(mi_config_set(r->config, options[0], options[1], &error), error);
    must((r->assembly = mi_assembly_new(r->registry, r->config, &error)) != NULL, error);
    must((r->engine = mi_engine_start(r->assembly, NULL, NULL, &error)) != NULL, error);
}

static void stop(Run *r)
{
    mi_engine_stop(r->engine);
    mi_assembly_free(r->assembly);
    mi_config_free(r->config);
    mi_registry_free(r->registry);
}

static void counts(long *out)
{
    g_mutex_lock(&lock);
    out[0] = n_allocations, out[1] = n_waits, out[2] = n_event_waits, out[3] = n_copies;
    g_mutex_unlock(&lock);
}

/* Engine thread. */
static void on_event(void *user, const MiEvent *e)
{
    const Asked *q = user;
    Meeting     *m = q->meeting;

    g_mutex_lock(&m->lock);
    for (int i = 0; e->type == MI_EVENT_TEXT && q->first && i < e->n_tokens; i++) {
        m->drawn++;
        if (m->drawn == WARM || m->drawn == WARM + STEPS)
            counts(m->drawn == WARM ? m->from : m->to);
    }
    if (e->type == MI_EVENT_ERROR && !m->error)
        m->error = g_strdup(e->text);
    if (e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR)
        m->left--;
    g_cond_signal(&m->cond);
    g_mutex_unlock(&m->lock);
}

/* n requests at once, answered. */
static bool ask(Run *r, Meeting *m, int n, int tokens)
{
    g_autofree Asked *asked = g_new0(Asked, n);
    int32_t           prompt[N_PROMPT];

    *m = (Meeting){ .left = n };
    for (int i = 0; i < N_PROMPT; i++)
        prompt[i] = 7 + i * 31 % 1000;
    for (int i = 0; i < n; i++) {
        g_autoptr(GError) error = NULL;
        asked[i] = (Asked){ m, i == 0 };
        must(r->engine->api->submit(r->engine,
                                    &(MiRequest){ .tokens = prompt, .n_tokens = (size_t)(N_PROMPT - i), .max_tokens = tokens,
                                                  .ignore_eos = true, .event = on_event, .user = &asked[i] },
                                    &error) != 0,
             error);
    }
    g_mutex_lock(&m->lock);
    while (m->left)
        g_cond_wait(&m->cond, &m->lock);
    g_mutex_unlock(&m->lock);
    if (m->error)
        printf("# %s\n", m->error);
    g_clear_pointer(&m->error, g_free);
    return m->drawn == tokens;
}

static size_t free_now(void)
{
    size_t free = 0, total;
    gpu_must(cudaMemGetInfo(&free, &total), "asking for the memory");
    return free;
}

/* ---- what is looked at ------------------------------------------------------------------------ */

/* Of the plan, apart: what is on the device, and what is pinned. */
static void memory_is_planned(const char *what, const char *const *options, int n)
{
    const size_t before = free_now();
    Meeting      m;
    Run          r;

    start(&r, options);
    const MiPlan *plan = mi_assembly_plan(r.assembly);
    const size_t  planned = plan->device, host = plan->allocated - plan->device;
    size_t        at_start[2] = { on_device, pinned };
    const bool    ran = ask(&r, &m, n, 40);
    gpu_check(at_start[0] == planned && at_start[1] == host,
              "%s: the engine has taken %zu bytes of the card and %zu pinned, plan says %zu and %zu", what, at_start[0],
              at_start[1], planned, host);
    gpu_check(ran && on_device == planned && pinned == host && mi_engine_allocated(r.engine) == plan->allocated,
              "%s: so it has after %d requests, %zu and %zu", what, n, on_device, pinned);
    const size_t gone = before - free_now();
    printf("# %s: the card has %zu bytes less than before; beyond the plan %.1f MB: pages of 2 MB, code, libraries, graphs\n",
           what, gone, ((double)gone - (double)planned) / 1e6);
    stop(&r);
    gpu_check(on_device == 0 && pinned == 0, "%s: when it is unloaded it has nothing", what);
}

static void steps_are_quiet(const char *what, const char *const *options, int n)
{
    Meeting m;
    Run     r;

    start(&r, options);
    const bool ran = ask(&r, &m, n, WARM + STEPS + WARM);
    stop(&r);
    gpu_check(ran && m.to[0] == m.from[0], "%s: nothing is allocated or freed in %d steps (%ld calls)", what, STEPS,
              m.to[0] - m.from[0]);
    gpu_check(ran && m.to[1] == m.from[1], "%s: no stream, no device and no copy is waited for (%ld calls)", what, m.to[1] - m.from[1]);
    gpu_check(ran && m.to[2] - m.from[2] <= STEPS + 2 && m.to[3] - m.from[3] == 0,
              "%s: the only wait of a step is for the one before it: %ld of %d; the copy engine is not used (%ld)", what,
              m.to[2] - m.from[2], STEPS, m.to[3] - m.from[3]);
}

/* Of the process, and of it what malloc() gave and did not get back. */
static long resident_kb(long *heap_kb)
{
    g_autofree char *text = NULL;
    long             size = 0, pages = 0;

    (void)malloc_trim(0);
    const struct mallinfo2 m = mallinfo2();
    *heap_kb = (long)((m.uordblks + m.hblkhd) / 1024);
    if (g_file_get_contents("/proc/self/statm", &text, NULL, NULL))
        (void)sscanf(text, "%ld %ld", &size, &pages);
    return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static int entries(const char *path)
{
    GDir *dir = g_dir_open(path, 0, NULL);
    int   n = 0;

    while (dir && g_dir_read_name(dir))
        n++;
    if (dir)
        g_dir_close(dir);
    return n;
}

static int ascending(const void *a, const void *b)
{
    const long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

/* What most rounds add: what the driver keeps on the host grows now and then by some megabytes at once, a leak in
 * every round.  at: [ROUNDS]; the first two load what a process loads once. */
static long usual_growth(const long *at)
{
    long grown[ROUNDS];
    int  n = 0;

    for (int i = 2; i < ROUNDS; i++)
        grown[n++] = at[i] - at[i - 1];
    qsort(grown, (size_t)n, sizeof *grown, ascending);
    return grown[n / 2];
}

static void rounds_leave_nothing(const char *const *const *options, int n_options)
{
    enum { FIRST = 2, USUAL_KB = 16, MOST_KB = 65536 };
    size_t free_first = 0, free_last = 0;
    long   kb[ROUNDS], heap[ROUNDS];
    int    files[2] = { 0 }, threads[2] = { 0 };
    bool   ran = true;

    for (int i = 1; i <= ROUNDS; i++) {
        for (int k = 0; k < n_options; k++) {
            Meeting m;
            Run     r;
            start(&r, options[k]);
            ran = ask(&r, &m, k ? 3 : 1, 20) && ran;
            stop(&r);
        }
        if (i == FIRST || i == ROUNDS) {
            *(i == FIRST ? &free_first : &free_last) = free_now();
            files[i == ROUNDS] = entries("/proc/self/fd");
            threads[i == ROUNDS] = entries("/proc/self/task");
        }
        kb[i - 1] = resident_kb(&heap[i - 1]);
    }
    gpu_check(ran && free_last == free_first, "after %d rounds %zu bytes of the card are free, after %d were %zu", ROUNDS,
              free_last, FIRST, free_first);
    const long grown = heap[ROUNDS - 1] - heap[FIRST - 1], usual = usual_growth(heap);
    gpu_check(usual <= USUAL_KB && grown <= MOST_KB,
              "a round adds %ld KB to what malloc gave, all after the second %ld; the process holds %ld KB, then %ld", usual,
              grown, kb[ROUNDS - 1], kb[FIRST - 1]);
    gpu_check(files[0] == files[1] && threads[0] == threads[1], "%d files and %d threads, as after %d: %d and %d", files[1],
              threads[1], FIRST, files[0], threads[0]);
}

static const char config[] =
    "{\"architectures\": [\"Qwen2ForCausalLM\"], \"model_type\": \"qwen2\", \"num_hidden_layers\": 4, \"hidden_size\": 896,\n"
    " \"num_attention_heads\": 14, \"num_key_value_heads\": 2, \"intermediate_size\": 4864, \"vocab_size\": 30000,\n"
    " \"tie_word_embeddings\": true, \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-06, \"rope_theta\": 1000000.0,\n"
    " \"max_position_embeddings\": 32768}\n";

#define GREEDY "sampler.chain", "greedy"
static const char *const one[] = { GREEDY, NULL };
static const char *const sampled[] = { "engine.max_seqs", "8", "engine.cache", "batch", NULL };
static const char *const exact[] = { "engine.dtype", "fp32", "engine.max_seqs", "3", "engine.cache", "batch", NULL };
static const char *const many[] = { GREEDY, "engine.max_seqs", "32", "engine.cache", "batch", "engine.dtype", "fp16",
                                    "engine.graphs", "false", NULL };

int main(void)
{
    if (!gpu_present())
        return 0;
    model = g_dir_make_tmp("miniinfer-XXXXXX", NULL);
    g_autofree char *file = g_build_filename(model, "config.json", NULL);
    must(g_file_set_contents(file, config, -1, NULL), NULL);
    gpu_must(cudaFree(NULL), "opening the device");
    memory_is_planned("one sequence, bf16", one, 1);
    memory_is_planned("eight sequences, sampled", sampled, 8);
    memory_is_planned("three sequences, fp32", exact, 3);
    memory_is_planned("32 sequences, fp16, no graphs", many, 32);
    steps_are_quiet("one sequence", one, 1);
    steps_are_quiet("eight sequences, sampled", sampled, 8);
    rounds_leave_nothing((const char *const *[]){ one, exact }, 2);
    (void)unlink(file);
    (void)rmdir(model);
    g_free(model);
    return gpu_end();
}
