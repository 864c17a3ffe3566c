/* batch.c - a file of prompts or JSONL requests in, one JSON object an answer out.
 *
 * A line that begins with { is a request (batch_request.c), any other a prompt whose id is its line number.  Answers
 * are written as they finish or in the order of the input (batch_output.c); a run that finds answers in the output
 * leaves those requests out, if each is of the very line, model and settings that this run has.  A line that cannot
 * be read or answered is reported and left out of the output, so the next run tries it again.  When the device fails
 * nothing more is tried: one line says so, for all. */
#define _GNU_SOURCE /* pipe2 */
#include "batch_answer.h"
#include "batch_output.h"
#include "batch_request.h"

#include <errno.h>
#include <fcntl.h>
#include <miniinfer/plugin.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    const char *input, *output, *order;
    bool        raw, ignore_eos;
    int32_t     max_tokens, min_tokens, in_flight;
    const char *stop, *system, *seed;
} Options;

enum { MAX_LINE = 64 << 20 /* bytes of the input's */ };

typedef struct Batch Batch;

/* One answer on its way.  event() fills it in the engine's thread and hands it over at its end. */
typedef struct {
    Batch      *batch;
    int64_t     line, at; /* at: its number in the output */
    uint64_t    request;
    BatchAnswer answer;
} Job;

struct Batch {
    MiEngine    *engine;
    Options      options;
    BatchOutput  out;
    int          in;      /* descriptor */
    GString     *read;    /* of the input, not taken yet */
    int          wake[2]; /* a pipe: an answer is finished, or stop() was called */
    char        *common;  /* the beginning of all digests */
    GHashTable  *seen;    /* keys of the input's answers: int64_t *, the line */
    GHashTable  *jobs;    /* Job *, on their way; set */
    GAsyncQueue *finished;
    int64_t      total;   /* answers that the input wants; -1: it is no file, so nobody knows */
    int64_t      line, numbered, answered, skipped, failed;
    int64_t      began, shown; /* microseconds: the start, the last progress line */
    uint64_t     drawn;        /* tokens of the engine before */
    GMutex       lock; /* of jobs, for stop(), and of the last word of event() */
    bool         stopped, told; /* told: that the output is not in order */
    GError      *ended; /* why no more is answered: the input, the output or the device; NULL: all is well */
};

/* ---- jobs -------------------------------------------------------------------------------- */
static void job_free(Job *j)
{
    batch_answer_clear(&j->answer);
    g_free(j);
}

static void poke(const Batch *b)
{
    while (write(b->wake[1], "", 1) < 0 && errno == EINTR)
        ; /* a full pipe wakes as well */
}

/* Engine thread. */
static void event(void *user, const MiEvent *e)
{
    Job *j = user;

    batch_answer_event(&j->answer, e);
    if (e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR) {
        Batch *b = j->batch;
        g_mutex_lock(&b->lock); /* which whoever takes the last answer, and ends the batch, takes too */
        g_async_queue_push(b->finished, j);
        poke(b);
        g_mutex_unlock(&b->lock);
    }
}

static void complain_of(const Batch *b, int64_t line, const char *message)
{
    fprintf(stderr, "%sminiinfer: %s:%lld: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", b->options.input,
            (long long)line, message);
}

static void complain(Batch *b, int64_t line, const char *message)
{
    b->failed++;
    complain_of(b, line, message);
}

/* One request's error; one of the device is everybody's. */
static void take_error(Batch *b, int64_t line, const GError *error)
{
    if (!g_error_matches(error, MI_ERROR, MI_ERROR_DEVICE))
        complain(b, line, error->message);
    else if (!b->ended)
        g_set_error(&b->ended, MI_ERROR, MI_ERROR_DEVICE, "%s: stopped after %lld answers, the next run goes on there: %s",
                    b->options.input, (long long)b->answered, error->message);
}

/* The end of a job: its answer's turn, or the gap that it leaves. */
static void put(Batch *b, const Job *j, bool answered)
{
    GError *error = NULL;

    b->answered += answered;
    if (b->ended || batch_output_put(&b->out, j->at, answered ? batch_answer_line(&j->answer) : NULL, &error))
        return;
    b->ended = error;
}

/* ---- how far it is ------------------------------------------------------------------------ */
enum { BAR = 24, TICK_US = 200000 };

static void print_left(double seconds)
{
    const int64_t s = (int64_t)seconds;

    if (s >= 3600)
        fprintf(stderr, ", %lld:%02d:%02d left", (long long)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
    else
        fprintf(stderr, ", %d:%02d left", (int)(s / 60), (int)(s % 60));
}

/* Now and then, or `always`. */
static void progress(Batch *b, bool always)
{
    const int64_t now = g_get_monotonic_time(), done = b->skipped + b->answered + b->failed;
    const double  s = (double)(now - b->began) / 1e6, all = (double)MAX(b->total, 1);
    MiStats       is;

    if (!isatty(STDERR_FILENO) || g_strcmp0(g_getenv("TERM"), "dumb") == 0 || (!always && now < b->shown + TICK_US))
        return;
    b->shown = now;
    b->engine->api->stats(b->engine, &is);
    fputs("\r\033[K", stderr);
    if (b->total >= 0) {
        const int full = (int)(BAR * MIN((double)done / all, 1));
        fprintf(stderr, "[%.*s%.*s] %.0f %%, %lld of %lld", full, "########################", BAR - full,
                "------------------------", 100 * (double)done / all, (long long)done, (long long)b->total);
    } else {
        fprintf(stderr, "%lld answered", (long long)done);
    }
    fprintf(stderr, ", %u on their way, %.0f tokens/s", g_hash_table_size(b->jobs),
            s > 0 ? (double)(is.tokens_out - b->drawn) / s : 0);
    if (b->answered && b->total > done)
        print_left((double)(b->total - done) * s / (double)b->answered);
    fflush(stderr);
}

/* ---- what was answered before --------------------------------------------------------------- */

static BatchDefaults defaults_of(const Batch *b)
{
    const Options *o = &b->options;
    return (BatchDefaults){ o->raw, o->max_tokens, o->min_tokens, o->ignore_eos, o->stop, o->system, o->seed };
}

/* Whether the output has the answer; *error: it has one of something else. */
static bool had(Batch *b, const char *key, int64_t line, const char *of, GError **error)
{
    BatchEarlier *e = g_hash_table_lookup(b->out.earlier, key);
    const char   *what = e ? batch_differs(e->of, of) : NULL;

    if (!e)
        return false;
    e->met = true;
    if (what && strcmp(what, "another request") == 0)
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s:%lld: not the request that %s:%lld answered; the input has changed, "
                    "so give another output", b->options.input, (long long)line, b->out.path, (long long)e->line);
    else if (what)
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s:%lld: answered with %s%s; give those, or another output", b->out.path,
                    (long long)e->line, what, strcmp(what, "another model") == 0 ? "" : " of [sampler] or [frontend.batch]");
    return true;
}

/* Remembers whose key it is: 0, or the line that had it before. */
static int64_t claim(GHashTable *seen, const char *key, int64_t line)
{
    const int64_t *before = g_hash_table_lookup(seen, key);

    if (!before)
        g_hash_table_insert(seen, g_strdup(key), g_memdup2(&line, sizeof line));
    return before ? *before : 0;
}

static GHashTable *keys_new(void) { return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, g_free); }

static size_t without_end(const char *line, size_t len)
{
    while (len > 0 && (line[len - 1] == '\n' || line[len - 1] == '\r'))
        len--;
    return len;
}

static bool survey_line(Batch *b, GHashTable *seen, const char *text, size_t len, int64_t number, GError **error)
{
    int     n;
    json_t *id = len && g_utf8_validate(text, (gssize)len, NULL) ? batch_line_id(text, len, number, &n) : NULL;
    GError *why = NULL;
    char    of[BATCH_DIGEST];

    batch_digest(b->common, text, len, of);
    for (int i = 0; id && i < n && !why; i++) {
        g_autofree char *key = batch_key(id, i);
        if (claim(seen, key, number))
            break;
        b->total++;
        (void)had(b, key, number, of, &why);
    }
    json_decref(id);
    if (why)
        g_propagate_error(error, why);
    return !why;
}

/* A look at all of the input, where it is a file: how many answers it wants, and whether those of the output are its. */
static bool survey(Batch *b, GError **error)
{
    g_autoptr(GHashTable) seen = keys_new();
    struct stat           is;
    char                 *line = NULL;
    size_t                size = 0;
    int64_t               number = 0;
    ssize_t               n;
    bool                  ok = true;

    b->total = -1;
    if (fstat(b->in, &is) != 0 || !S_ISREG(is.st_mode) || strcmp(b->options.input, "-") == 0)
        return true;
    FILE *f = fopen(b->options.input, "re");
    b->total = 0;
    while (f && ok && (n = getline(&line, &size, f)) > 0) {
        const size_t len = without_end(line, (size_t)n);
        line[len] = 0;
        ok = survey_line(b, seen, line, len, ++number, error);
    }
    free(line);
    if (f)
        fclose(f);
    return ok;
}

/* Of the output's answers, and what became of the rest. */
static void tell_earlier(const Batch *b)
{
    const guint    all = g_hash_table_size(b->out.earlier);
    guint          met = 0;
    GHashTableIter i;
    gpointer       e;

    g_hash_table_iter_init(&i, b->out.earlier);
    while (g_hash_table_iter_next(&i, NULL, &e))
        met += ((const BatchEarlier *)e)->met;
    if (!all && !b->out.torn)
        return;
    fprintf(stderr, "miniinfer: %s: ", b->out.path);
    if (b->total < 0)
        fprintf(stderr, "%u answers are there", all);
    else
        fprintf(stderr, "%u of %lld answers are there", met, (long long)b->total);
    if (b->total >= 0 && all > met)
        fprintf(stderr, " and %u to what %s does not ask", all - met, b->options.input);
    if (b->out.torn)
        fprintf(stderr, ", a broken last line of %lld bytes was cut off", (long long)b->out.torn);
    fputs(b->total < 0 || b->total > met ? "; the others follow\n" : "\n", stderr);
}

/* ---- the loop ---------------------------------------------------------------------------- */

/* Nothing more is submitted. */
static bool stopped(Batch *b)
{
    g_mutex_lock(&b->lock);
    const bool yes = b->stopped;
    g_mutex_unlock(&b->lock);
    return yes || b->ended;
}

/* Submits one answer of the line; false with *error. */
static bool submit(Batch *b, const BatchLine *line, int index, const char *of, GError **error)
{
    Job                *j = g_new0(Job, 1);
    char                seed[24];
    g_autofree MiParam *params = g_new0(MiParam, line->params->len + 2);

    *j = (Job){ .batch = b, .line = b->line, .at = b->numbered++ };
    batch_answer_init(&j->answer, line->id, index, of);
    memcpy(params, line->params->data, line->params->len * sizeof *params);
    if (line->seed) {
        g_snprintf(seed, sizeof seed, "%" G_GUINT64_FORMAT, line->seed + (uint64_t)index);
        params[line->params->len] = (MiParam){ "seed", seed };
    }
    MiRequest r = line->request;
    r.params = params;
    r.event = event;
    r.user = j;
    /* Under the lock stop() either sees the job or has been seen. */
    g_mutex_lock(&b->lock);
    if ((j->request = b->engine->api->submit(b->engine, &r, error)))
        g_hash_table_add(b->jobs, j);
    g_mutex_unlock(&b->lock);
    if (j->request)
        return true;
    put(b, j, false);
    job_free(j);
    return false;
}

static void take(Batch *b, Job *j)
{
    g_mutex_lock(&b->lock);
    g_hash_table_remove(b->jobs, j);
    g_mutex_unlock(&b->lock);
    if (j->answer.error)
        take_error(b, j->line, j->answer.error);
    if (j->answer.finish != MI_FINISH_CANCELLED) /* else its turn never comes, nor that of those behind it */
        put(b, j, !j->answer.error);
    progress(b, false);
    job_free(j);
}

static void take_finished(Batch *b)
{
    Job *j;

    while (!(j = g_async_queue_timeout_pop(b->finished, TICK_US)))
        progress(b, false);
    take(b, j);
}

/* More of the input, and meanwhile the answers that are finished.  False: there is no more, or nobody wants it. */
static bool read_more(Batch *b)
{
    struct pollfd at[] = { { b->in, POLLIN, 0 }, { b->wake[0], POLLIN, 0 } };
    char          bytes[65536];

    while (!stopped(b)) {
        Job    *j;
        ssize_t n;
        poll(at, 2, g_hash_table_size(b->jobs) ? TICK_US / 1000 : -1);
        while (read(b->wake[0], bytes, sizeof bytes) > 0)
            ;
        while ((j = g_async_queue_try_pop(b->finished)))
            take(b, j);
        progress(b, false);
        if (!at[0].revents || stopped(b))
            continue;
        if ((n = read(b->in, bytes, sizeof bytes)) > 0)
            g_string_append_len(b->read, bytes, n);
        if (n < 0 && errno != EINTR)
            g_set_error(&b->ended, MI_ERROR, MI_ERROR_IO, "%s: %s", b->options.input, g_strerror(errno));
        if (n >= 0)
            return n > 0;
    }
    return false;
}

/* The next line of the input without its end; the caller frees it.  NULL: none, or nobody wants it. */
static char *next_line(Batch *b, size_t *len)
{
    const char *end = NULL;
    size_t      seen = 0;

    while (!(end = memchr(b->read->str + seen, '\n', b->read->len - seen))) {
        seen = b->read->len;
        if (seen > MAX_LINE && !b->ended)
            g_set_error(&b->ended, MI_ERROR, MI_ERROR_MODEL, "%s:%lld: longer than %d MiB", b->options.input,
                        (long long)b->line + 1, MAX_LINE >> 20);
        if (!read_more(b))
            break;
    }
    if (stopped(b) || (!end && !b->read->len))
        return NULL;
    const size_t taken = end ? (size_t)(end - b->read->str) + 1 : b->read->len;
    char        *line = g_memdup2(b->read->str, taken + 1); /* its end is 0 */
    *len = without_end(line, taken);
    line[*len] = 0;
    g_string_erase(b->read, 0, (gssize)taken);
    return line;
}

/* One answer that the line wants: unless it is there, it is asked for. */
static bool ask(Batch *b, const BatchLine *line, int index, const char *of, GError **error)
{
    g_autofree char *key = batch_key(line->id, index);
    const int64_t    other = claim(b->seen, key, b->line);
    GError          *why = NULL;

    if (other) {
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "its id is that of line %lld, too", (long long)other);
        return false;
    }
    if (had(b, key, b->line, of, &why)) {
        b->ended = why;
        b->skipped++;
        if (b->out.held && b->numbered && !b->told)
            complain_of(b, b->line, "is answered already, so the answers to lines before it that were not are written behind it");
        b->told = b->numbered > 0;
        return true;
    }
    while (g_hash_table_size(b->jobs) >= (guint)b->options.in_flight)
        take_finished(b);
    return stopped(b) || submit(b, line, index, of, error);
}

static void answer_line_of_input(Batch *b, const char *text, size_t len)
{
    const BatchDefaults d = defaults_of(b);
    g_autoptr(GError)   error = NULL;
    BatchLine           line;
    char                of[BATCH_DIGEST];

    batch_digest(b->common, text, len, of);
    if (!batch_line_read(&line, b->engine, text, len, b->line, &d, &error))
        complain(b, b->line, error->message);
    for (int i = 0; !error && i < line.n && !stopped(b); i++)
        if (!ask(b, &line, i, of, &error))
            take_error(b, b->line, error);
    batch_line_clear(&line);
}

static bool verdict(Batch *b, GError **error)
{
    const int64_t there = b->skipped + b->answered;

    if (isatty(STDERR_FILENO)) {
        progress(b, true);
        fputc('\n', stderr);
    }
    if (b->ended)
        g_propagate_error(error, g_steal_pointer(&b->ended));
    else if (b->stopped && b->total >= 0)
        fprintf(stderr, "miniinfer: stopped: %lld of %lld answers are in %s; the same command goes on there\n", (long long)there,
                (long long)b->total, b->out.path);
    else if (b->stopped)
        fprintf(stderr, "miniinfer: stopped after %lld answers\n", (long long)there);
    else if (b->failed)
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: %lld requests could not be answered, as reported above; %lld were",
                    b->options.input, (long long)b->failed, (long long)there);
    return !*error;
}

/* ---- the vtable -------------------------------------------------------------------------- */
static void destroy(void *self)
{
    Batch *b = self;

    if (b->in >= 0)
        close(b->in);
    for (int i = 0; i < 2; i++)
        if (b->wake[i] >= 0)
            close(b->wake[i]);
    g_string_free(b->read, TRUE);
    batch_output_close(&b->out);
    g_hash_table_unref(b->seen);
    g_hash_table_unref(b->jobs);
    g_async_queue_unref(b->finished);
    g_mutex_clear(&b->lock);
    g_clear_error(&b->ended);
    g_free(b->common);
    g_free(b);
}

static void *create(MiEngine *engine, const void *options, GError **error)
{
    Batch *b = g_new0(Batch, 1);

    b->engine = engine;
    b->options = *(const Options *)options;
    b->out.fd = b->in = b->wake[0] = b->wake[1] = -1;
    b->read = g_string_new(NULL);
    b->seen = keys_new();
    b->jobs = g_hash_table_new(NULL, NULL);
    b->finished = g_async_queue_new();
    g_mutex_init(&b->lock);
    const BatchDefaults d = defaults_of(b);
    b->common = batch_common_digest(engine, &d);
    b->in = strcmp(b->options.input, "-") == 0 ? dup(STDIN_FILENO) : open(b->options.input, O_RDONLY | O_CLOEXEC);
    if (b->in < 0)
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno), "%s: %s", b->options.input,
                    g_strerror(errno));
    else if (pipe2(b->wake, O_NONBLOCK | O_CLOEXEC) != 0)
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "no pipe: %s", g_strerror(errno));
    else if (batch_output_open(&b->out, b->options.output, strcmp(b->options.order, "input") == 0, error) && survey(b, error))
        return b;
    destroy(b);
    return NULL;
}

static bool serve(void *self, GError **error)
{
    Batch  *b = self;
    char   *line;
    size_t  n;

    MiStats is;
    b->engine->api->stats(b->engine, &is);
    b->drawn = is.tokens_out;
    b->began = g_get_monotonic_time();
    tell_earlier(b);
    while ((line = next_line(b, &n))) {
        b->line++;
        if (n > 0)
            answer_line_of_input(b, line, n);
        g_free(line);
    }
    while (g_hash_table_size(b->jobs))
        take_finished(b);
    return verdict(b, error);
}

static void stop(void *self)
{
    Batch         *b = self;
    GHashTableIter i;
    gpointer       job;

    g_mutex_lock(&b->lock);
    b->stopped = true;
    g_hash_table_iter_init(&i, b->jobs);
    while (g_hash_table_iter_next(&i, &job, NULL))
        b->engine->api->cancel(b->engine, ((const Job *)job)->request);
    g_mutex_unlock(&b->lock);
    poke(b);
}

static const MiFrontend batch = {
    .struct_size = sizeof batch, .create = create, .serve = serve, .stop = stop, .destroy = destroy,
};

static const MiOption options[] = {
    MI_OPTION(Options, input, "-", 0, 0, "a file of prompts or JSONL requests, one a line; -: standard input"),
    MI_OPTION(Options, output, "-", 0, 0, "where answers go, as JSONL; -: standard output"),
    MI_OPTION(Options, raw, "false", 0, 0, "no chat template around a plain prompt"),
    MI_OPTION(Options, max_tokens, "0", 0, 1 << 24, "tokens of an answer that does not say; 0: where the model ends"),
    MI_OPTION(Options, min_tokens, "0", 0, 1 << 24, "no end before so many tokens"),
    MI_OPTION(Options, ignore_eos, "false", 0, 0, "go on where the model would end"),
    MI_OPTION(Options, stop, "", 0, 0, "a text that ends an answer; \\n, \\t and \\\\ are read as in C"),
    MI_OPTION(Options, system, "", 0, 0, "the system message around a plain prompt; empty: the template's own"),
    MI_OPTION(Options, seed, "", 0, 0, "of the first of several answers to one line, those of the others follow; empty: "
                                       "[sampler] seed, or each draws its own"),
    MI_OPTION(Options, in_flight, "512", 1, 65536, "requests that the engine is given at once, to run or to wait"),
    MI_CHOICE(Options, order, "finish", "finish, input", "answers are written as they finish, or in the order of the input"),
    MI_OPTION_END,
};

MI_PLUGIN("batch", "0.1", "Files of prompts and requests", MI_FEATURE_FRONTEND("batch", "*", &batch, options));
