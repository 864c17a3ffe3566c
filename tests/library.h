/* library.h - what the tests of libminiinfer share: two tiny models, and what they answer.
 *
 * These tests are another program's: <miniinfer/miniinfer.h>, the shared object, nothing else of ours. */
#ifndef TESTS_LIBRARY_H
#define TESTS_LIBRARY_H

#include <miniinfer/miniinfer.h>

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static char folder[256]; /* of the models: silu, tanh */

static inline void fine(bool ok, const MiniinferError *error)
{
    if (!ok)
        fail_msg("%d: %s", (int)error->code, error->message);
}

static inline void refused(bool ok, const MiniinferError *error, MiniinferCode code, const char *words)
{
    assert_false(ok);
    if (error->code != code || !strstr(error->message, words))
        fail_msg("%d, not %d: '%s' does not say '%s'", (int)error->code, (int)code, error->message, words);
}

static inline Miniinfer *opened(const MiniinferPair *more)
{
    MiniinferPair  settings[16] = { { "engine.device", "cpu" }, { "threads", "1" } };
    MiniinferError error;

    for (int n = 2; more && more->key; n++)
        settings[n] = *more++;
    Miniinfer *mi = miniinfer_open(NULL, settings, &error);
    fine(mi, &error);
    return mi;
}

/* name: of the model; seqs: at once. */
static inline Miniinfer *loaded(const char *name, const char *seqs)
{
    MiniinferError error;
    char           path[512];

    snprintf(path, sizeof path, "%s/%s", folder, name);
    Miniinfer *mi = opened((MiniinferPair[]){ { "model", path }, { "batch-size", seqs }, { "sampler.chain", "greedy" },
                                              { "engine.dtype", "fp32" }, { "prefill-step", "16" }, { NULL, NULL } });
    fine(miniinfer_load(mi, NULL, NULL, &error), &error);
    return mi;
}

/* ---- requests ------------------------------------------------------------------------- */
enum { PROMPT = 9, PROMPTS = 24 };

static int32_t prompts[PROMPTS][PROMPT]; /* written before any thread begins */

static inline void make_prompts(void)
{
    for (int i = 0; i < PROMPTS; i++)
        for (int k = 0; k < PROMPT; k++)
            prompts[i][k] = (i * 31 + k * 17 + i * k) % 90;
}

static inline MiniinferRequest asked(int i, int tokens)
{
    return (MiniinferRequest){ .struct_size = sizeof(MiniinferRequest), .ids = prompts[i], .n_ids = PROMPT - (size_t)i % 4,
                               .max_tokens = tokens, .ignore_eos = true };
}

/* The engine's thread: a millisecond a token, so that a long answer is never done before somebody looks. */
static inline void dawdle(void *user)
{
    (void)user;
    nanosleep(&(struct timespec){ 0, 1000000 }, NULL);
}

static inline MiniinferRequest asked_long(int i)
{
    MiniinferRequest r = asked(i, 9000);

    r.notify = dawdle;
    return r;
}

typedef struct {
    int32_t ids[256];
    size_t  n;
    char    text[512];
} Said;

static inline Said said(const MiniinferResult *r)
{
    Said s = { .n = r->answer.n_ids };

    if (r->code)
        fail_msg("%s", r->message);
    assert_true(s.n <= 256 && r->answer.len < sizeof s.text);
    if (s.n)
        memcpy(s.ids, r->answer.ids, s.n * sizeof *s.ids);
    memcpy(s.text, r->answer.text, r->answer.len + 1);
    return s;
}

static inline void same(const Said *a, const Said *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->ids, b->ids, a->n * sizeof *a->ids);
    assert_string_equal(a->text, b->text);
}

static inline Said answer(Miniinfer *mi, const MiniinferRequest *r)
{
    MiniinferError   error;
    MiniinferAnswer *a = miniinfer_submit(mi, r, &error);

    fine(a, &error);
    const Said s = said(miniinfer_wait(a, -1));
    miniinfer_release(a);
    return s;
}

/* What each prompt's answer is, alone. */
enum { TOKENS = 20 };
static inline const Said *alone(const char *model, int i)
{
    static Said       all[2][PROMPTS];
    static Miniinfer *mi[2];
    const int         m = strcmp(model, "tanh") == 0;

    if (!all[m][0].n) {
        mi[m] = loaded(model, "1");
        for (int k = 0; k < PROMPTS; k++) {
            const MiniinferRequest r = asked(k, TOKENS);
            all[m][k] = answer(mi[m], &r);
            assert_int_equal(all[m][k].n, TOKENS);
        }
        assert_true(miniinfer_close(mi[m]));
    }
    return &all[m][i];
}

static inline int make_models(void **state)
{
    (void)state;
    const char *build = getenv("MI_BUILDDIR"), *tmp = getenv("TMPDIR");
    char        command[2048];

    make_prompts();
    snprintf(folder, sizeof folder, "%s/miniinfer-library-XXXXXX", tmp ? tmp : "/tmp");
    if (!build || !mkdtemp(folder))
        return -1;
    snprintf(command, sizeof command, "'%s/tests/tiny_model' -t '%s/silu' silu gate && '%s/tests/tiny_model' -t '%s/tanh' tanh gate",
             build, folder, build, folder);
    return system(command);
}

static inline int remove_models(void **state)
{
    char command[512];

    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

#define LIBRARY_MAIN(...)                                                       \
    int main(void)                                                              \
    {                                                                           \
        const struct CMUnitTest tests[] = { __VA_ARGS__ };                      \
        return cmocka_run_group_tests(tests, make_models, remove_models);       \
    }                                                                           \
    extern int library_main_semicolon

#endif
