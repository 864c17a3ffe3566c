/* cmd_perplexity.c - how well a model predicts a text: windows of equal length,
 * each alone from position 0; exp of the mean negative log probability. */
#include "answer.h"
#include "cmd.h"
#include "interrupt.h"

#include <math.h>
#include <string.h>

typedef struct {
    int    window, windows; /* tokens of a window, how many of them */
    int    done;
    double nll, nll_second_half; /* sums over the windows done */
} Tally;

/* tokens 1 .. window-1, and those past the middle: window/2+1 .. window-1 */
static int64_t counted(const Tally *t) { return (int64_t)t->done * (t->window - 1); }
static int64_t counted_second_half(const Tally *t) { return (int64_t)t->done * (t->window - t->window / 2 - 1); }
static double ppl(double nll, int64_t n) { return n ? exp(nll / (double)n) : NAN; }

static bool window(MiEngine *engine, const int32_t *ids, Tally *t, GError **error)
{
    MiAnswer a;

    mi_answer_init(&a);
    bool ok = mi_answer_await(&a, engine, (MiRequest){ .tokens = ids, .n_tokens = (size_t)t->window, .max_tokens = -1,
                                                       .logprobs = 1, .prompt_logprobs = true }, NULL, error);
    if (ok && !mi_interrupted() && a.prompt_logprobs->len != (guint)t->window - 1) {
        g_set_error(error, MI_ERROR, MI_ERROR_DEVICE, "the engine gave %u log probabilities for a window of %d tokens",
                    a.prompt_logprobs->len, t->window);
        ok = false;
    }
    if (ok && !mi_interrupted()) {
        for (int i = 1; i < t->window; i++) {
            const double nll = -(double)g_array_index(a.prompt_logprobs, float, i - 1);
            t->nll += nll;
            t->nll_second_half += i > t->window / 2 ? nll : 0;
        }
        t->done++;
    }
    mi_answer_clear(&a);
    return ok;
}

static int32_t *encode(MiEngine *engine, const char *text, size_t len, size_t *n, GError **error)
{
    int32_t *ids;

    *n = engine->api->encode(engine, text, len, false, NULL, 0);
    if (*n == SIZE_MAX) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "the model's tokenizer gave up on a text of %zu bytes", len);
        return NULL;
    }
    if ((ids = g_try_new(int32_t, *n + 1)))
        engine->api->encode(engine, text, len, false, ids, *n);
    else
        g_set_error(error, MI_ERROR, MI_ERROR_NO_MEMORY, "no memory for %zu token ids", *n);
    return ids;
}

static void print(const MiCommandLine *cl, const Tally *t)
{
    const double all = ppl(t->nll, counted(t)), second = ppl(t->nll_second_half, counted_second_half(t));
    MiJson       j;

    if (!mi_flag(cl, "json")) {
        printf("perplexity %.4f, %.4f over the second halves; %d windows of %d tokens\n", all, second, t->done, t->window);
        return;
    }
    j = mi_json_new();
    mi_json_open(&j, NULL, '{');
    mi_json_float(&j, "ppl", all);
    mi_json_float(&j, "ppl_second_half", second);
    mi_json_int(&j, "tokens", counted(t));
    mi_json_int(&j, "window", t->window);
    mi_json_int(&j, "windows", t->done);
    mi_json_close(&j, '}');
    mi_json_print(&j);
}

static bool measure(MiSession *s, Tally *t, int limit, GError **error)
{
    size_t              len, n;
    g_autofree char    *text = mi_cmd_slurp(mi_flag(s->line, "file"), &len, error);
    g_autofree int32_t *ids = text ? encode(s->engine, text, len, &n, error) : NULL;

    if (!ids)
        return false;
    t->windows = (int)MIN(n / (size_t)t->window, (size_t)limit);
    if (!t->windows) {
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s has %zu tokens; one window takes %d", mi_flag(s->line, "file"), n,
                    t->window);
        return false;
    }
    while (t->done < t->windows && !mi_interrupted()) {
        if (!window(s->engine, ids + (size_t)t->done * (size_t)t->window, t, error))
            return false;
        mi_progress_line("window %d of %d: perplexity %.3f", t->done, t->windows, ppl(t->nll, counted(t)));
    }
    mi_progress_clear();
    return true;
}

int mi_cmd_perplexity(MiCommandLine *cl)
{
    Tally     t = { 0 };
    int       limit;
    GError   *error = NULL;
    MiSession s;

    if (!mi_flag(cl, "file"))
        g_set_error(&error, MI_ERROR, MI_ERROR_CONFIG, "miniinfer perplexity wants a text: -f FILE");
    if (error || !mi_flag_int(cl, "window", 4, 1 << 20, 512, &t.window, &error) ||
        !mi_flag_int(cl, "windows", 1, G_MAXINT32, G_MAXINT32, &limit, &error))
        return mi_cmd_usage(error);
    mi_interrupt_start();
    if (mi_session_open(&s, cl, MI_WITH_ENGINE, &error) && measure(&s, &t, limit, &error))
        print(cl, &t);
    mi_session_close(&s);
    const int status = mi_cmd_report(error);
    return status ? status : mi_interrupted() ? 130 : 0;
}
