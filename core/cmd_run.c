/* cmd_run.c - `run`: one prompt; and what `miniinfer` does with a pipe: one answer a line. */
#include "answer.h"
#include "cmd.h"
#include "interrupt.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- the prompt -------------------------------------------------------------- */
typedef struct {
    int32_t *ids; /* g_malloc'ed */
    size_t   n;
} Prompt;

static bool ids_of_chat(MiSession *s, const char *text, size_t len, Prompt *out, GError **error)
{
    const MiMessage user = { "user", text, len };
    return mi_prompt_chat(s->engine, s->settings.generate.system, &user, 1, &out->ids, &out->n, error);
}

static bool prompt_of_flags(MiSession *s, Prompt *out, GError **error)
{
    const MiCommandLine *cl = s->line;
    const char          *list = mi_flag(cl, "ids"), *text = mi_flag(cl, "prompt"), *file = mi_flag(cl, "file");
    const bool           raw = mi_flag(cl, "raw");
    g_autofree char     *read = NULL;
    size_t               len = text ? strlen(text) : 0;

    if (list)
        return mi_cmd_ids(list, &out->ids, &out->n, error);
    if (!text) {
        if (!(text = read = mi_cmd_slurp(file ? file : "-", &len, error)))
            return false;
        if (!raw && len && text[len - 1] == '\n')
            len--; /* the file's end, not the question's */
        if (!len) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "%s is empty; a prompt is -p TEXT, -f FILE, --ids, or standard input",
                        file && strcmp(file, "-") != 0 ? file : "standard input");
            return false;
        }
    }
    return raw ? mi_prompt_text(s->engine, text, len, mi_flag(cl, "special"), &out->ids, &out->n, error)
               : ids_of_chat(s, text, len, out, error);
}

/* ---- one answer --------------------------------------------------------------- */
/* Where a seed is given, those of the n answers follow each other; else each draws its own. */
static bool answer(MiSession *s, MiAnswer *a, const Prompt *p, int i, FILE *out, GError **error)
{
    const MiGenerateSettings *g = &s->settings.generate;
    g_autofree char          *stop = g_strcompress(g->stop);
    const char *const         stops[] = { *stop ? stop : NULL, NULL };
    const char               *said = mi_config_get(s->config, "sampler", "seed");
    const guint64             seed = said ? g_ascii_strtoull(said, NULL, 10) : 0; /* 0: none */
    g_autofree char          *spelled = g_strdup_printf("%" G_GUINT64_FORMAT, seed + (guint64)i);
    const MiParam             params[] = { { seed ? "seed" : NULL, spelled }, { NULL, NULL } };
    int                       logprobs;

    return mi_flag_int(s->line, "logprobs", 1, MI_MAX_TOPS, 0, &logprobs, error) &&
           mi_answer_await(a, s->engine,
                           (MiRequest){ .tokens = p->ids, .n_tokens = p->n, .max_tokens = g->max_tokens,
                                        .min_tokens = g->min_tokens, .stop = stops, .params = params,
                                        .logprobs = logprobs, .ignore_eos = g->ignore_eos,
                                        .prompt_logprobs = mi_flag(s->line, "prompt-logprobs") },
                           out, error);
}

static void print_timings(const MiSession *s, const MiAnswer *a)
{
    if (!s->verbose && !(isatty(STDERR_FILENO) && isatty(STDOUT_FILENO)))
        return;
    if (s->verbose)
        for (guint i = 0; i < s->phases->len; i++) {
            const MiPhase *p = &g_array_index(s->phases, MiPhase, i);
            fprintf(stderr, "%9.1f ms  %s\n", (double)p->us / 1e3, p->what);
        }
    fprintf(stderr, "prompt %d tokens, %.1f tokens/s; answer %d tokens, %.1f tokens/s\n", a->n_prompt,
            a->prompt_us > 0 ? 1e6 * (a->n_prompt - a->n_cached) / (double)a->prompt_us : 0, a->n_drawn,
            a->decode_us > 0 && a->n_drawn > 1 ? 1e6 * (a->n_drawn - 1) / (double)a->decode_us : 0);
}

/* The first answer's members stand at the top; with n > 1 all of them are in `answers`, too. */
static void print_json(MiSession *s, const Prompt *p, const MiAnswer *answers, int n)
{
    MiJson j = mi_json_new();

    mi_json_open(&j, NULL, '{');
    mi_json_string(&j, "model", s->engine->api->model(s->engine, &(int32_t){ 0 }));
    mi_json_ints(&j, "prompt_ids", p->ids, p->n);
    mi_answer_write(&answers[0], &j);
    if (n > 1) {
        mi_json_open(&j, "answers", '[');
        for (int i = 0; i < n; i++) {
            mi_json_open(&j, NULL, '{');
            mi_answer_write(&answers[i], &j);
            mi_json_close(&j, '}');
        }
        mi_json_close(&j, ']');
    }
    mi_json_open(&j, "timings", '{');
    mi_answer_write_timings(&answers[0], &j);
    mi_json_open(&j, "start_ms", '{');
    for (guint i = 0; i < s->phases->len; i++) {
        const MiPhase *phase = &g_array_index(s->phases, MiPhase, i);
        mi_json_float(&j, phase->what, (double)phase->us / 1e3);
    }
    mi_json_close(&j, '}');
    mi_json_close(&j, '}');
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

/* An answer on a terminal or in a pipe ends its line. */
static void end_line(const MiAnswer *a)
{
    if (!a->text->len || a->text->str[a->text->len - 1] != '\n')
        putchar('\n');
    fflush(stdout);
}

static bool run(MiSession *s, GError **error)
{
    const bool          json = mi_flag(s->line, "json");
    const int           n = s->settings.generate.n;
    g_autofree int32_t *ids = NULL;
    g_autofree MiAnswer *answers = g_new(MiAnswer, (gsize)n); /* n is an option with a range */
    Prompt              p = { 0 };
    bool                ok = prompt_of_flags(s, &p, error);
    int                 made = 0;

    ids = p.ids;
    while (ok && made < n && !mi_interrupted()) {
        mi_answer_init(&answers[made]);
        ok = answer(s, &answers[made], &p, made, json ? NULL : stdout, error);
        if (!json && (ok || answers[made].text->len))
            end_line(&answers[made]);
        made++;
    }
    if (ok && json)
        print_json(s, &p, answers, made);
    if (ok)
        print_timings(s, &answers[made - 1]);
    for (int i = 0; i < made; i++)
        mi_answer_clear(&answers[i]);
    return ok;
}

/* What is checked before anything is loaded. */
static bool flags_fit(const MiCommandLine *cl, GError **error)
{
    Prompt     listed = { 0 };
    const bool ids = mi_flag(cl, "ids"), text = mi_flag(cl, "prompt"), file = mi_flag(cl, "file");
    int        n;

    if (ids + text + file > 1)
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "one of -p, -f and --ids is enough");
    else if (mi_flag(cl, "special") && !mi_flag(cl, "raw"))
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--special needs --raw: a chat template brings its own");
    else if ((mi_flag(cl, "logprobs") || mi_flag(cl, "prompt-logprobs")) && !mi_flag(cl, "json"))
        g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "log probabilities are printed with --json only");
    else if (!ids || mi_cmd_ids(mi_flag(cl, "ids"), &listed.ids, &listed.n, error)) {
        g_free(listed.ids);
        return mi_flag_int(cl, "logprobs", 1, MI_MAX_TOPS, 0, &n, error);
    }
    return false;
}

int mi_cmd_run(MiCommandLine *cl)
{
    GError   *error = NULL;
    MiSession s;

    if (!flags_fit(cl, &error))
        return mi_cmd_usage(error);
    mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_ENGINE, &error))
        run(&s, &error);
    mi_session_close(&s);
    const int status = mi_cmd_report(error);
    return status ? status : mi_interrupted() ? 130 : 0;
}

/* ---- a pipe -------------------------------------------------------------------- */
static bool answer_line(MiSession *s, const char *line, size_t len, GError **error)
{
    Prompt   p = { 0 };
    MiAnswer a;
    bool     ok = ids_of_chat(s, line, len, &p, error);

    if (!ok)
        return false;
    mi_answer_init(&a);
    ok = answer(s, &a, &p, 0, stdout, error);
    if (ok || a.text->len)
        end_line(&a);
    if (ok)
        print_timings(s, &a);
    mi_answer_clear(&a);
    g_free(p.ids);
    return ok;
}

static bool answer_lines(MiSession *s, GError **error)
{
    char   *line = NULL;
    size_t  size = 0;
    ssize_t n;
    bool    ok = true;

    while (ok && !mi_interrupted() && (n = getline(&line, &size, stdin)) >= 0) {
        n -= n > 0 && line[n - 1] == '\n';
        if (n > 0)
            ok = answer_line(s, line, (size_t)n, error);
    }
    free(line);
    return ok;
}

int mi_cmd_bare(MiCommandLine *cl)
{
    GError   *error = NULL;
    MiSession s;

    if (isatty(STDIN_FILENO))
        return mi_cmd_chat(cl);
    mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_ENGINE, &error))
        answer_lines(&s, &error);
    mi_session_close(&s);
    const int status = mi_cmd_report(error);
    return status ? status : mi_interrupted() ? 130 : 0;
}
