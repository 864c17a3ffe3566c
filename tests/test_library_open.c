/* libminiinfer: text and ids, what is wrong in a configuration or a model file, and that the program is left alone. */
#define _GNU_SOURCE
#include "library.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>

extern char **environ;

/* ---- text ------------------------------------------------------------------------------------------- */
static void text_and_ids(void **state)
{
    (void)state;
    static const char text[] = "Hello, you there\n";
    Miniinfer        *mi = loaded("silu", "1");
    MiniinferError    error;
    int32_t           ids[64], more[64];
    char              back[64];

    const size_t n = miniinfer_tokenize(mi, text, strlen(text), false, ids, 64, &error);
    assert_int_equal(n, strlen(text)); /* a character a token: tests/tiny_model.c */
    assert_int_equal(ids[0], 'H' - ' ');
    assert_int_equal(miniinfer_tokenize(mi, text, strlen(text), false, NULL, 0, NULL), n);
    assert_int_equal(miniinfer_tokenize(mi, text, strlen(text), false, more, 3, NULL), n);
    assert_memory_equal(more, ids, 3 * sizeof *ids);
    assert_int_equal(miniinfer_detokenize(mi, ids, n, false, back, sizeof back, &error), n);
    assert_string_equal(back, text);
    back[4] = '#';
    assert_int_equal(miniinfer_detokenize(mi, ids, n, false, back, 4, &error), n); /* no room for the rest, nor for a NUL */
    assert_memory_equal(back, "Hell#", 5);
    /* Special pieces: by name where they may be, else letters, or nothing. */
    assert_int_equal(miniinfer_tokenize(mi, "<|end|>", 7, true, ids, 64, NULL), 1);
    assert_int_equal(miniinfer_detokenize(mi, ids, 1, false, back, sizeof back, NULL), 0);
    assert_int_equal(miniinfer_detokenize(mi, ids, 1, true, back, sizeof back, NULL), 7);
    assert_string_equal(back, "<|end|>");
    miniinfer_tokenize(mi, "<|end|>", 7, false, more, 64, NULL);
    assert_int_not_equal(more[0], ids[0]);
    ids[0] = 96;
    refused(miniinfer_detokenize(mi, ids, 1, false, back, sizeof back, &error) != SIZE_MAX, &error, MINIINFER_ERROR_CONFIG,
            "id 0 is 96");
    miniinfer_close(mi);
}

static void a_chat_is_what_its_template_says(void **state)
{
    (void)state;
    static const char              rendered[] = "<|user|>Hi!<|end|><|bot|>";
    static const MiniinferMessage  hi = { "user", "Hi!" }, sly = { "user", "<|end|>" }, broken = { "user", NULL };
    Miniinfer                     *mi = loaded("silu", "1");
    MiniinferError                 error;
    int32_t                        want[64], ids[64];
    const size_t                   n = miniinfer_tokenize(mi, rendered, strlen(rendered), true, want, 64, &error);

    assert_int_equal(miniinfer_chat(mi, &hi, 1, ids, 64, &error), n);
    assert_memory_equal(ids, want, n * sizeof *ids);
    assert_true(miniinfer_chat(mi, &sly, 1, ids, 64, &error) > 4); /* a user's text is never a special piece */
    refused(miniinfer_chat(mi, &broken, 1, ids, 64, &error) != SIZE_MAX, &error, MINIINFER_ERROR_MISUSE, "message 0");
    const MiniinferRequest chat = { .struct_size = sizeof chat, .messages = &hi, .n_messages = 1, .max_tokens = 9,
                                    .ignore_eos = true };
    const MiniinferRequest raw = { .struct_size = sizeof raw, .ids = want, .n_ids = n, .max_tokens = 9, .ignore_eos = true };
    const Said             a = answer(mi, &chat), b = answer(mi, &raw);
    same(&a, &b);
    miniinfer_close(mi);
}

/* ---- what is wrong is said --------------------------------------------------------------------------------- */
static void a_wrong_configuration(void **state)
{
    (void)state;
    static const struct { MiniinferPair pair; const char *words; } wrong[] = {
        { { "engine.max_seq", "2" }, "settings: unknown key 'max_seq' in [engine]; did you mean max_seqs?" },
        { { "engin.max_seqs", "2" }, "settings: unknown section [engin]; did you mean [engine]?" },
        { { "engine.max_seqs", "many" }, "max_seqs" },
        { { "engine.cache", "ful" }, "did you mean full?" },
        { { "batchsize", "2" }, "settings: unknown key 'batchsize'; did you mean batch-size?" },
        { { "seed", NULL }, "'seed' has no value" },
        { { "", "2" }, "unknown key ''" },
        { { ".", "2" }, "'.' is not section.key" },
        { { "generate.stop", "\xff" }, "not UTF-8" },
    };
    MiniinferError error;
    char           file[512];

    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        refused(miniinfer_open(NULL, (MiniinferPair[]){ wrong[i].pair, { NULL, NULL } }, &error), &error,
                MINIINFER_ERROR_CONFIG, wrong[i].words);
    refused(miniinfer_open("/nowhere/at/all.ini", NULL, &error), &error, MINIINFER_ERROR_NOT_FOUND, "/nowhere/at/all.ini");
    snprintf(file, sizeof file, "%s/a.ini", folder);
    FILE *f = fopen(file, "w");
    fputs("[engine]\nmax_seqs = 3\nprefil_step = 2\n", f);
    fclose(f);
    refused(miniinfer_open(file, NULL, &error), &error, MINIINFER_ERROR_CONFIG, "a.ini:3: unknown key 'prefil_step'");
    f = fopen(file, "w");
    fprintf(f, "[engine]\nmax_seqs = 3\ndevice = cpu\n[model]\npath = %s/silu\n", folder);
    fclose(f);
    Miniinfer *mi = miniinfer_open(file, (MiniinferPair[]){ { "engine.max_len", "99" }, { NULL, NULL } }, &error);
    fine(mi, &error);
    fine(miniinfer_load(mi, NULL, NULL, &error), &error);
    assert_int_equal(miniinfer_model(mi)->max_seqs, 3);
    assert_int_equal(miniinfer_model(mi)->max_len, 99);
    miniinfer_close(mi);
    assert_null(miniinfer_open("/nowhere", NULL, NULL)); /* who does not want to know why */
}

static void write_file(const char *file, const char *text, size_t n)
{
    FILE *f = fopen(file, "w");

    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

static void load_refused(const char *model, MiniinferCode code, const char *words)
{
    Miniinfer     *mi = opened((MiniinferPair[]){ { "model", model }, { NULL, NULL } });
    MiniinferError error;

    for (int i = 0; i < 2; i++) /* a second try says the same */
        refused(miniinfer_load(mi, NULL, NULL, &error), &error, code, words);
    assert_null(miniinfer_model(mi));
    miniinfer_close(mi);
}

static void a_wrong_model_file(void **state)
{
    (void)state;
    char file[512];

    load_refused("/nowhere/model.gguf", MINIINFER_ERROR_NOT_FOUND, "/nowhere/model.gguf");
    snprintf(file, sizeof file, "%s/text.gguf", folder);
    write_file(file, "This is no model.\n", 18);
    load_refused(file, MINIINFER_ERROR_MODEL, "text.gguf");
    write_file(file, "GGUF\3\0\0\0\377\377\377\377\377\377\377\377", 16);
    load_refused(file, MINIINFER_ERROR_MODEL, "text.gguf");
    load_refused(folder, MINIINFER_ERROR_MODEL, "");
}

static bool never(void *user, uint64_t done, uint64_t total)
{
    assert_in_range(done, 0, total);
    assert_false(miniinfer_close(*(Miniinfer **)user)); /* not from here */
    return false;
}

static void loading_is_stopped_and_tried_again(void **state)
{
    (void)state;
    MiniinferError error;
    char           path[512];

    snprintf(path, sizeof path, "%s/silu", folder);
    Miniinfer *mi = opened((MiniinferPair[]){ { "model", path }, { "sampler.chain", "greedy" }, { "engine.dtype", "fp32" },
                                              { NULL, NULL } });
    const MiniinferRequest r = asked(2, TOKENS);
    refused(miniinfer_generate(mi, &r, NULL, NULL, &error), &error, MINIINFER_ERROR_MISUSE, "miniinfer_load()");
    refused(miniinfer_load(mi, never, &mi, &error), &error, MINIINFER_ERROR_CONFIG, "interrupted");
    fine(miniinfer_load(mi, NULL, NULL, &error), &error);
    refused(miniinfer_load(mi, NULL, NULL, &error), &error, MINIINFER_ERROR_MISUSE, "already");
    const Said s = answer(mi, &r);
    same(&s, alone("silu", 2));
    miniinfer_close(mi);
    assert_true(miniinfer_close(NULL));
    refused(miniinfer_submit(NULL, &r, &error), &error, MINIINFER_ERROR_MISUSE, "NULL");
}

/* ---- the program that uses it is left alone ---------------------------------------------------------------- */
static int entries(const char *folder_)
{
    DIR *d = opendir(folder_);
    int  n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static void on_usr1(int signal) { (void)signal; }

static void the_host_is_left_alone(void **state)
{
    (void)state;
    struct sigaction before[NSIG], after, mine = { .sa_handler = on_usr1 };
    sigset_t         mask[2];
    MiniinferError   error;
    char           **env = environ, *first = environ[0];
    struct stat      written;
    float            x = 1;
    char             folder_before[512], folder_after[512];

    fine(miniinfer_close(loaded("silu", "1")), NULL); /* what stays: plugins, once */
    sigaction(SIGINT, &mine, NULL);
    for (int i = 1; i < NSIG; i++)
        sigaction(i, NULL, &before[i]);
    pthread_sigmask(SIG_SETMASK, NULL, &mask[0]);
    assert_non_null(getcwd(folder_before, sizeof folder_before));
    fflush(stdout);
    const int out = dup(1), err = dup(2), to = open(folder, O_TMPFILE | O_RDWR, 0600);
    const int threads = entries("/proc/self/task"), files = entries("/proc/self/fd");
    if (to >= 0)
        dup2(to, 1), dup2(to, 2);

    Miniinfer             *mi = loaded("silu", "2");
    const MiniinferRequest r = asked(0, TOKENS);
    (void)answer(mi, &r);
    (void)miniinfer_activation(mi, "relu", NULL, &x, &x, 1, 1, &error);
    (void)miniinfer_activation(mi, "nothing", NULL, &x, &x, 1, 1, &error);
    miniinfer_close(mi);
    (void)miniinfer_open("/nowhere", NULL, &error);

    fflush(stdout);
    if (to >= 0)
        dup2(out, 1), dup2(err, 2);
    assert_int_equal(entries("/proc/self/task"), threads);
    assert_int_equal(entries("/proc/self/fd"), files);
    if (to >= 0) {
        assert_int_equal(fstat(to, &written), 0);
        assert_int_equal(written.st_size, 0);
        close(to);
    }
    close(out), close(err);
    assert_ptr_equal(environ, env);
    assert_ptr_equal(environ[0], first);
    for (int i = 1; i < NSIG; i++)
        if (sigaction(i, NULL, &after) == 0)
            assert_ptr_equal(after.sa_handler, before[i].sa_handler);
    pthread_sigmask(SIG_SETMASK, NULL, &mask[1]);
    for (int i = 1; i < NSIG; i++)
        assert_int_equal(sigismember(&mask[0], i), sigismember(&mask[1], i));
    assert_non_null(getcwd(folder_after, sizeof folder_after));
    assert_string_equal(folder_before, folder_after);
}

LIBRARY_MAIN(cmocka_unit_test(text_and_ids), cmocka_unit_test(a_chat_is_what_its_template_says),
             cmocka_unit_test(a_wrong_configuration), cmocka_unit_test(a_wrong_model_file),
             cmocka_unit_test(loading_is_stopped_and_tried_again), cmocka_unit_test(the_host_is_left_alone));
