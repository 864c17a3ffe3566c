/* batch.c - a file of prompts or JSONL requests in, one JSON object an answer out.
 *
 * A line that begins with { is a request (batch_request.c), any other a prompt
 * whose id is its line number.  Answers are written as they finish, each with
 * one write(), so that a run that was killed leaves whole lines and at most one
 * broken one at the end, which is cut off; a run that finds answers in the
 * output leaves those requests out.  A line that cannot be read or answered is
 * reported and left out of the output, so the next run tries it again.  When the
 * device fails nothing more is tried: one line says so, for all. */
#define _GNU_SOURCE /* pipe2 */
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
    const char *input, *output;
    bool        raw, ignore_eos;
    int32_t     max_tokens, min_tokens, in_flight;
    const char *stop, *system, *seed;
} Options;

typedef struct Batch Batch;

/* One answer on its way.  event() fills it in the engine's thread and hands it over at its end. */
typedef struct {
    Batch   *batch;
    json_t  *id;
    char    *key;
    int64_t  line;
    int      index; /* of the answers to this line */
    uint64_t request;
    GString *text;
    GArray  *ids, *logprobs, *tops; /* int32_t; float; MiTop[n_tops] each */
    int      n_tops;
    GError  *error; /* NULL: none */
    MiFinish finish;
    int32_t  n_prompt;
} Job;

struct Batch {
    MiEngine    *engine;
    Options      options;
    int          out;  /* descriptor */
    int          in;   /* descriptor */
    GString     *read; /* of the input, not taken yet */
    int          wake[2]; /* a pipe: an answer is finished, or stop() was called */
    GHashTable  *seen; /* keys of answers in the output or on their way */
    GHashTable  *jobs; /* Job *, on their way; set */
    GAsyncQueue *finished;
    int64_t      line, answered, skipped, failed, tokens;
    int64_t      began;
    GMutex       lock; /* of jobs, for stop(), and of the last word of event() */
    bool         stopped;
    char        *io_error; /* NULL: none */
    GError      *device_error; /* NULL: none */
};

/* ---- jobs -------------------------------------------------------------------------------- */
static void job_free(Job *j)
{
    json_decref(j->id);
    g_free(j->key);
    g_clear_error(&j->error);
    g_string_free(j->text, TRUE);
    g_array_unref(j->ids);
    g_array_unref(j->logprobs);
    g_array_unref(j->tops);
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

    if (e->type == MI_EVENT_TEXT && e->len)
        g_string_append_len(j->text, e->text, (gssize)e->len);
    if (e->type == MI_EVENT_TEXT && e->n_tokens)
        g_array_append_vals(j->ids, e->tokens, (guint)e->n_tokens);
    if (e->logprobs)
        g_array_append_vals(j->logprobs, e->logprobs, (guint)e->n_tokens);
    if (e->tops) {
        g_array_append_vals(j->tops, e->tops, (guint)(e->n_tokens * e->n_tops));
        j->n_tops = e->n_tops;
    }
    if (e->type == MI_EVENT_ERROR)
        j->error = g_error_new_literal(MI_ERROR, e->code, e->text);
    if (e->type == MI_EVENT_DONE) {
        j->finish = e->finish;
        j->n_prompt = e->n_prompt;
    }
    if (e->type == MI_EVENT_DONE || e->type == MI_EVENT_ERROR) {
        Batch *b = j->batch;
        g_mutex_lock(&b->lock); /* which whoever takes the last answer, and ends the batch, takes too */
        g_async_queue_push(b->finished, j);
        poke(b);
        g_mutex_unlock(&b->lock);
    }
}

static void complain(Batch *b, int64_t line, const char *message)
{
    b->failed++;
    fprintf(stderr, "%sminiinfer: %s:%lld: %s\n", isatty(STDERR_FILENO) ? "\r\033[K" : "", b->options.input,
            (long long)line, message);
}

/* One request's error; one of the device is everybody's. */
static void take_error(Batch *b, int64_t line, const GError *error)
{
    if (!g_error_matches(error, MI_ERROR, MI_ERROR_DEVICE))
        complain(b, line, error->message);
    else if (!b->device_error)
        b->device_error = g_error_copy(error);
}

/* ---- the output -------------------------------------------------------------------------- */
static json_t *logprobs_of(const Job *j)
{
    json_t *list = json_array();

    for (guint i = 0; i < j->logprobs->len; i++) {
        json_t *top = json_array();
        for (int t = 0; t < j->n_tops; t++) {
            const MiTop *at = &g_array_index(j->tops, MiTop, i * (guint)j->n_tops + (guint)t);
            json_array_append_new(top, json_pack("[i, f]", at->id, (double)at->logprob));
        }
        json_array_append_new(list, json_pack("{s:i, s:f, s:o}", "id", g_array_index(j->ids, int32_t, i), "logprob",
                                              (double)g_array_index(j->logprobs, float, i), "top", top));
    }
    return list;
}

static char *answer_line(const Job *j)
{
    g_autofree char *text = g_utf8_make_valid(j->text->str, (gssize)j->text->len);
    json_t          *ids = json_array(), *o;

    for (guint i = 0; i < j->ids->len; i++)
        json_array_append_new(ids, json_integer(g_array_index(j->ids, int32_t, i)));
    o = json_pack("{s:O, s:i, s:s, s:o, s:s, s:i}", "id", j->id, "index", j->index, "text", text, "output_ids", ids,
                  "finish_reason", j->finish == MI_FINISH_STOP ? "stop" : "length", "prompt_tokens", j->n_prompt);
    if (j->logprobs->len)
        json_object_set_new(o, "logprobs", logprobs_of(j));
    char *compact = json_dumps(o, JSON_COMPACT | JSON_REAL_PRECISION(9));
    char *line = g_strconcat(compact, "\n", NULL);
    free(compact);
    json_decref(o);
    return line;
}

static void write_answer(Batch *b, const Job *j)
{
    g_autofree char *line = answer_line(j);
    const size_t     len = strlen(line);

    for (size_t done = 0; done < len && !b->io_error;) {
        const ssize_t n = write(b->out, line + done, len - done);
        if (n < 0 && errno != EINTR)
            b->io_error = g_strdup_printf("%s: %s", b->options.output, g_strerror(errno));
        done += n > 0 ? (size_t)n : 0;
    }
    b->answered++;
    b->tokens += j->ids->len;
}

/* The key of a line of the output; NULL: it is none of ours. */
static char *key_of_output(const char *line, size_t len)
{
    json_error_t why;
    json_t      *o = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    json_t      *id = json_object_get(o, "id"), *index = json_object_get(o, "index");
    char        *key = (json_is_string(id) || json_is_integer(id)) && json_is_integer(index)
                           ? batch_key(id, json_integer_value(index)) : NULL;
    json_decref(o);
    return key;
}

/* What an earlier run answered; its broken last line is cut off.  False: the file is somebody else's. */
static bool read_output(Batch *b, GError **error)
{
    FILE   *f = fdopen(dup(b->out), "r");
    char   *line = NULL;
    size_t  size = 0;
    int64_t number = 0, whole = 0; /* bytes of whole lines */
    ssize_t n;
    bool    ok = f;

    while (ok && (n = getline(&line, &size, f)) > 0) {
        number++;
        if (line[n - 1] != '\n')
            break;
        char *key = key_of_output(line, (size_t)n - 1);
        ok = key;
        if (key)
            g_hash_table_add(b->seen, key);
        else
            g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s:%lld: no answer of an earlier batch; nothing is added to it",
                        b->options.output, (long long)number);
        whole += n;
    }
    free(line);
    if (f)
        fclose(f);
    if (ok && ftruncate(b->out, whole) != 0)
        ok = (g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s: %s", b->options.output, g_strerror(errno)), false);
    return ok;
}

static bool open_output(Batch *b, GError **error)
{
    struct stat is;

    if (strcmp(b->options.output, "-") == 0) {
        b->out = dup(STDOUT_FILENO);
        return true;
    }
    b->out = open(b->options.output, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    /* A device or a pipe holds no answers; reading some of them never ends. */
    if (b->out >= 0 && fstat(b->out, &is) == 0)
        return !S_ISREG(is.st_mode) || read_output(b, error);
    g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno), "%s: %s", b->options.output,
                g_strerror(errno));
    return false;
}

/* ---- the loop ---------------------------------------------------------------------------- */
static void progress(const Batch *b)
{
    const double s = (double)(g_get_monotonic_time() - b->began) / 1e6;

    if (isatty(STDERR_FILENO) && g_strcmp0(g_getenv("TERM"), "dumb") != 0)
        fprintf(stderr, "\r\033[K%lld answered, %u on their way, %.1f tokens/s", (long long)b->answered,
                g_hash_table_size(b->jobs), s > 0 ? (double)b->tokens / s : 0);
}

/* Nothing more is submitted. */
static bool stopped(Batch *b)
{
    g_mutex_lock(&b->lock);
    const bool yes = b->stopped;
    g_mutex_unlock(&b->lock);
    return yes || b->io_error || b->device_error;
}

/* Submits one answer of the line; false with *error. */
static bool submit(Batch *b, BatchLine *line, int index, char *key /* taken */, GError **error)
{
    Job     *j = g_new0(Job, 1);
    char     seed[24];
    MiParam *params = g_new0(MiParam, line->params->len + 2);

    *j = (Job){ .batch = b, .id = json_incref(line->id), .key = key, .line = b->line, .index = index,
                .text = g_string_new(NULL), .ids = g_array_new(FALSE, FALSE, sizeof(int32_t)),
                .logprobs = g_array_new(FALSE, FALSE, sizeof(float)), .tops = g_array_new(FALSE, FALSE, sizeof(MiTop)) };
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
    g_free(params);
    if (j->request)
        return true;
    g_hash_table_remove(b->seen, j->key);
    job_free(j);
    return false;
}

static void take(Batch *b, Job *j)
{
    g_mutex_lock(&b->lock);
    g_hash_table_remove(b->jobs, j);
    g_mutex_unlock(&b->lock);
    if (j->error)
        take_error(b, j->line, j->error);
    else if (j->finish != MI_FINISH_CANCELLED)
        write_answer(b, j);
    progress(b);
    job_free(j);
}

static void take_finished(Batch *b) { take(b, g_async_queue_pop(b->finished)); }

/* More of the input, and meanwhile the answers that are finished.  False: there is no more, or nobody wants it. */
static bool read_more(Batch *b)
{
    struct pollfd at[] = { { b->in, POLLIN, 0 }, { b->wake[0], POLLIN, 0 } };
    char          bytes[65536];

    while (!stopped(b)) {
        Job    *j;
        ssize_t n;
        poll(at, 2, -1);
        while (read(b->wake[0], bytes, sizeof bytes) > 0)
            ;
        while ((j = g_async_queue_try_pop(b->finished)))
            take(b, j);
        if (!at[0].revents || stopped(b))
            continue;
        if ((n = read(b->in, bytes, sizeof bytes)) > 0)
            g_string_append_len(b->read, bytes, n);
        if (n < 0 && errno != EINTR)
            b->io_error = g_strdup_printf("%s: %s", b->options.input, g_strerror(errno));
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
        if (!read_more(b))
            break;
    }
    if (stopped(b) || (!end && !b->read->len))
        return NULL;
    const size_t taken = end ? (size_t)(end - b->read->str) + 1 : b->read->len;
    char        *line = g_memdup2(b->read->str, taken + 1); /* its end is 0 */
    line[taken] = 0;
    *len = taken;
    while (*len > 0 && (line[*len - 1] == '\n' || line[*len - 1] == '\r'))
        line[--*len] = 0;
    g_string_erase(b->read, 0, (gssize)taken);
    return line;
}

static void answer_line_of_input(Batch *b, const char *text, size_t len)
{
    const BatchDefaults d = { b->options.raw, b->options.max_tokens, b->options.min_tokens, b->options.ignore_eos,
                              b->options.stop, b->options.system, b->options.seed };
    g_autoptr(GError)   error = NULL;
    BatchLine           line;

    if (!batch_line_read(&line, b->engine, text, len, b->line, &d, &error))
        complain(b, b->line, error->message);
    for (int i = 0; !error && i < line.n && !stopped(b); i++) {
        char *key = batch_key(line.id, i);
        if (!g_hash_table_add(b->seen, g_strdup(key))) {
            b->skipped++;
            g_free(key);
            continue;
        }
        while (g_hash_table_size(b->jobs) >= (guint)b->options.in_flight)
            take_finished(b);
        if (!submit(b, &line, i, key, &error))
            take_error(b, b->line, error);
    }
    batch_line_clear(&line);
}

static bool verdict(Batch *b, GError **error)
{
    if (isatty(STDERR_FILENO)) {
        progress(b);
        fprintf(stderr, "; %lld were there already\n", (long long)b->skipped);
    }
    if (b->io_error)
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s", b->io_error);
    else if (b->device_error)
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "%s: stopped after %lld answers, the next run goes on there: %s",
                    b->options.input, (long long)b->answered, b->device_error->message);
    else if (b->failed)
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s: %lld requests could not be answered, as reported above; %lld were",
                    b->options.input, (long long)b->failed, (long long)b->answered);
    return !b->io_error && !b->device_error && !b->failed;
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
    if (b->out >= 0)
        close(b->out);
    g_hash_table_unref(b->seen);
    g_hash_table_unref(b->jobs);
    g_async_queue_unref(b->finished);
    g_mutex_clear(&b->lock);
    g_free(b->io_error);
    g_clear_error(&b->device_error);
    g_free(b);
}

static void *create(MiEngine *engine, const void *options, GError **error)
{
    Batch *b = g_new0(Batch, 1);

    b->engine = engine;
    b->options = *(const Options *)options;
    b->out = b->in = b->wake[0] = b->wake[1] = -1;
    b->read = g_string_new(NULL);
    b->seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
    b->jobs = g_hash_table_new(NULL, NULL);
    b->finished = g_async_queue_new();
    g_mutex_init(&b->lock);
    b->in = strcmp(b->options.input, "-") == 0 ? dup(STDIN_FILENO) : open(b->options.input, O_RDONLY | O_CLOEXEC);
    if (b->in < 0)
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno), "%s: %s", b->options.input,
                    g_strerror(errno));
    else if (pipe2(b->wake, O_NONBLOCK | O_CLOEXEC) != 0)
        g_set_error(error, MI_ERROR, MI_ERROR_IO, "no pipe: %s", g_strerror(errno));
    else if (open_output(b, error))
        return b;
    destroy(b);
    return NULL;
}

static bool serve(void *self, GError **error)
{
    Batch  *b = self;
    char   *line;
    size_t  n;

    b->began = g_get_monotonic_time();
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
    MI_OPTION(Options, in_flight, "64", 1, 4096, "requests that the engine is given at once"),
    MI_OPTION_END,
};

MI_PLUGIN("batch", "0.1", "Files of prompts and requests", MI_FEATURE_FRONTEND("batch", "*", &batch, options));
