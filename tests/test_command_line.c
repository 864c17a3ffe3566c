#include "command_line.h"
#include "common.h"

static MiCommandLine cl;

/* The message of the refusal, "" for none; words: one string, split at '|'. */
static const char *parse(const char *words)
{
    static char       message[512];
    g_autoptr(GError) error = NULL;
    g_auto(GStrv)     argv = g_strsplit(words, "|", 0);

    if (cl.flags)
        mi_command_line_clear(&cl);
    const bool ok = mi_command_line_parse(&cl, (int)g_strv_length(argv), argv, &error);
    assert_int_equal(ok, !error);
    g_strlcpy(message, error ? error->message : "", sizeof message);
    return message;
}

static const char *setting(guint i) { return i < cl.settings->len ? cl.settings->pdata[i] : "none"; }

static void finds_the_command_behind_options(void **state)
{
    (void)state;
    assert_string_equal(parse("miniinfer|--model.path|run|-t|2|run|-p|x"), "");
    assert_string_equal(cl.command->name, "run");
    assert_string_equal(setting(1), "run");
    assert_string_equal(setting(2), "backend.cpu.threads");
    assert_string_equal(parse("miniinfer|--config|x.ini"), "");
    assert_string_equal(cl.command->name, "");
    /* What may stand before it: a setting with and without =, a flag with and without a value, letters. */
    for (const char *const *w = (const char *const[]){ "--model.path=run", "--config=run", "--config|run", "--verbose", "-v",
                                                       "--help", "-h", "-mx", "-m|x", NULL };
         *w; w++) {
        g_autofree char *words = g_strconcat("miniinfer|", *w, "|run", NULL);
        assert_string_equal(parse(words), "");
        assert_string_equal(cl.command->name, "run");
    }
    assert_string_equal(parse("miniinfer|--help|--"), "");
    assert_string_equal(cl.command->name, "");
}

static void takes_values_in_every_spelling(void **state)
{
    (void)state;
    for (const char *const *w = (const char *const[]){ "-n|64", "-n64", "--max-tokens|64", "--max-tokens=64",
                                                       "--generate.max_tokens|64", "--generate.max_tokens=64", NULL };
         *w; w++) {
        g_autofree char *words = g_strconcat("miniinfer|run|-vp|-x|", *w, NULL);
        assert_string_equal(parse(words), "");
        assert_string_equal(mi_flag(&cl, "prompt"), "-x");
        assert_non_null(mi_flag(&cl, "verbose"));
        assert_string_equal(setting(0), "generate.max_tokens");
        assert_string_equal(setting(1), "64");
    }
    assert_string_equal(parse("miniinfer|run|--ignore-eos|--model.path="), "");
    assert_string_equal(setting(1), "true");
    assert_string_equal(setting(3), "");
}

static void two_dashes_end_the_options(void **state)
{
    (void)state;
    assert_string_equal(parse("miniinfer|convert|--|-a|--b"), "");
    assert_string_equal(cl.operands->pdata[0], "-a");
    assert_string_equal(cl.operands->pdata[1], "--b");
}

static void refuses(const char *words, const char *why)
{
    if (!strstr(parse(words), why))
        fail_msg("%s: '%s' lacks '%s'", words, parse(words), why);
}

static void says_what_was_meant(void **state)
{
    (void)state;
    refuses("miniinfer|inspct", "did you mean inspect?");
    refuses("miniinfer|xyzzy", "there is no command 'xyzzy'; `miniinfer --help`");
    refuses("miniinfer|run|--promt|x", "miniinfer run has no option '--promt'; did you mean --prompt?");
    refuses("miniinfer|run|-q", "miniinfer run has no option '-q'");
    refuses("miniinfer|--jsn", "miniinfer has no option '--jsn'");
    refuses("miniinfer|tokenize|--special=1", "--special takes no value");
    refuses("miniinfer|run|-p", "-p wants a value: TEXT");
    refuses("miniinfer|run|--model.path", "--model.path wants a value: --section.key VALUE");
    refuses("miniinfer|run|--prompt", "--prompt wants a value: TEXT");
    refuses("miniinfer|run|-vp", "-p wants a value: TEXT");
    refuses("miniinfer|", "there is no command ''");
    refuses("miniinfer|-", "there is no command '-'");
    refuses("miniinfer|--zebra|run", "has no option '--zebra'");
    refuses("miniinfer|run|-", "'-' is one word too many");
    refuses("miniinfer|run|hello", "'hello' is one word too many");
    refuses("miniinfer|convert|a", "usage: miniinfer convert SRC DST");
}

static void numbers_have_a_range(void **state)
{
    g_autoptr(GError) error = NULL;
    int               n = 7;

    (void)state;
    assert_string_equal(parse("miniinfer|run|--logprobs|5"), "");
    assert_true(mi_flag_int(&cl, "logprobs", 1, 20, 0, &n, &error) && n == 5);
    assert_true(mi_flag_int(&cl, "windows", 1, 20, 3, &n, &error) && n == 3);
    for (const char *const *bad = (const char *const[]){ "0", "21", "x", "1x", "", "99999999999999999999", NULL }; *bad;
         bad++) {
        g_autofree char *words = g_strconcat("miniinfer|run|--logprobs=", *bad, NULL);
        g_clear_error(&error);
        assert_string_equal(parse(words), "");
        assert_false(mi_flag_int(&cl, "logprobs", 1, 20, 0, &n, &error));
        assert_non_null(strstr(error->message, "--logprobs is"));
    }
}

/* No two options of one command may share a letter or a name, the common ones included. */
static void every_option_is_reached(void **state)
{
    (void)state;
    for (const MiCommand *c = mi_commands; c->name; c++)
        for (int common = 0; common < 2; common++)
            for (const MiFlag *f = common ? mi_common_flags : c->flags; f->name; f++) {
                assert_ptr_equal(mi_flag_find(c, f->name, 0), f);
                assert_true(!f->letter || mi_flag_find(c, NULL, f->letter) == f);
            }
}

TEST_MAIN(cmocka_unit_test(finds_the_command_behind_options), cmocka_unit_test(takes_values_in_every_spelling),
          cmocka_unit_test(two_dashes_end_the_options), cmocka_unit_test(says_what_was_meant),
          cmocka_unit_test(numbers_have_a_range), cmocka_unit_test(every_option_is_reached));
