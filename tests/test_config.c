/* Every line of a configuration that is wrong is named by file and line; what is right arrives as written. */
#include "common.h"
#include "exit.h"
#include "settings.h"

#include <unistd.h>

static void add(MiConfig *c, const char *text)
{
    g_autoptr(GError) error = NULL;
    if (!mi_config_parse(c, "x.ini", text, strlen(text), &error))
        fail_msg("%s", error->message);
}

static MiConfig *parsed(const char *text)
{
    MiConfig *c = mi_config_new();
    add(c, text);
    return c;
}

static void refuses(const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;
    MiConfig         *c = mi_config_new();

    assert_false(mi_config_parse(c, "x.ini", text, strlen(text), &error));
    assert_string_equal(error->message, message);
    assert_int_equal(error->code, MI_ERROR_CONFIG);
    assert_null(mi_config_get(c, "a", "k")); /* nothing of it counts */
    mi_config_free(c);
}

static void reads_pairs_as_they_are_written(void **state)
{
    (void)state;
    MiConfig *c = parsed("\xef\xbb\xbf; comment\n# another\n\n[model]\r\npath = /a b/c.gguf \r\n  [engine]\n"
                         "\tmax_seqs=4 ; four\n  dtype : fp32\n[generate]\nsystem = \"a # b\" ${HOME} ; c\nstop=\n"
                         "[model] ; once more\nformat = x=y:z");

    assert_string_equal(mi_config_get(c, "model", "path"), "/a b/c.gguf");
    assert_string_equal(mi_config_get(c, "engine", "max_seqs"), "4");
    assert_string_equal(mi_config_get(c, "engine", "dtype"), "fp32");
    assert_string_equal(mi_config_get(c, "generate", "system"), "\"a # b\" ${HOME}");
    assert_string_equal(mi_config_get(c, "generate", "stop"), "");
    assert_string_equal(mi_config_get(c, "model", "format"), "x=y:z");
    assert_null(mi_config_get(c, "model", "tokenizer"));
    mi_config_free(c);
}

static void names_the_line_that_is_wrong(void **state)
{
    (void)state;
    g_autofree char *long_line = g_strdup_printf("[a]\nk = 1\nlong = %0200d\n", 1);
    g_autofree char *long_key = g_strdup_printf("[a]\nk = 1\n%050d = 1\n", 1);

    refuses("k = 1\n", "x.ini:1: 'k' stands before any [section]");
    refuses("[a]\nk = 1\n\nK2 = 2\n", "x.ini:4: 'K2' is no key; a name is up to 49 of a-z 0-9 _ -");
    refuses("[a]\nk = 1\nk.b = 2\n", "x.ini:3: 'k.b' is no key; a name is up to 49 of a-z 0-9 _ -");
    refuses("[a]\nk = 1\n = 2\n", "x.ini:3: '' is no key; a name is up to 49 of a-z 0-9 _ -");
    refuses("[a]\nk = 1\n[b]\n[a]\nk = 1\n", "x.ini:5: [a] k was given in line 2 already");
    refuses("[a]\nk = 1\n  and more\nl = 2\n", "x.ini:3: 'and more' is neither [section] nor key = value");
    refuses("[a]\nk = 1\nnothing ; = 1\n", "x.ini:3: 'nothing ; = 1' is neither [section] nor key = value");
    refuses("[a]\nk = 1\n[b] c = 1\n", "x.ini:3: text behind [b]; a key begins a line of its own");
    refuses("[a]\nk = 1\n[b\n", "x.ini:3: '[b' lacks its ']'");
    refuses("[a]\nk = 1\n[]\n", "x.ini:3: '[]' is no section; its name is up to 49 of a-z 0-9 _ . -");
    refuses("[a]\nk = 1\n[Engine]\n", "x.ini:3: '[Engine]' is no section; its name is up to 49 of a-z 0-9 _ . -");
    refuses(" \xef\xbb\xbf[a] k = 1\n", "x.ini:1: a byte order mark that does not begin the file");
    refuses("[a]\nk = \x01\n", "x.ini:2: byte 0x01 is no text");
    refuses("[a]\nk = 1\nl = \xff\n", "x.ini:3: bytes that are not UTF-8");
    refuses(long_line, "x.ini:3: the line is 207 bytes long; 198 are possible");
    refuses(long_key, "x.ini:3: '00000000000000000000000000000000000000000000000001' is no key; a name is up to 49 of "
                      "a-z 0-9 _ -");
}

/* inih cuts at 199 bytes; the longest line that is possible arrives whole. */
static void a_line_of_198_bytes_arrives_whole(void **state)
{
    (void)state;
    for (int digits = 180; digits <= 194; digits++) {
        g_autofree char *value = g_strdup_printf("%0*d", digits, 7);
        g_autofree char *text = g_strdup_printf("[a]\n    k = %s\nl = 2\n", value);
        MiConfig        *c = parsed(text);
        assert_string_equal(mi_config_get(c, "a", "k"), value);
        assert_string_equal(mi_config_get(c, "a", "l"), "2");
        mi_config_free(c);
    }
}

static void the_command_line_wins(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    MiConfig         *c = mi_config_new();

    assert_true(mi_config_set(c, "cache.paged.block_size", "8", &error));
    assert_true(mi_config_set(c, "engine.dtype", "fp16", &error));
    add(c, "[cache.paged]\nblock_size = 16\n[engine]\ncache = paged\ndtype = bf16\n");
    add(c, "[engine]\ncache = full\n");
    assert_true(mi_config_set(c, "engine.dtype", "fp32", &error));
    assert_string_equal(mi_config_get(c, "cache.paged", "block_size"), "8");
    assert_string_equal(mi_config_get(c, "engine", "dtype"), "fp32");
    assert_string_equal(mi_config_get(c, "engine", "cache"), "full");
    assert_false(mi_config_set(c, "dtype", "fp32", &error));
    assert_string_equal(error->message, "command line: '--dtype' is not --section.key");
    static const char *const bad[] = { ".dtype", "engine.", "Engine.dtype", "engine.Dtype", "." };
    for (size_t i = 0; i < G_N_ELEMENTS(bad); i++) {
        g_autofree char *message = g_strdup_printf("command line: '--%s' is not --section.key", bad[i]);
        g_clear_error(&error);
        assert_false(mi_config_set(c, bad[i], "1", &error));
        assert_string_equal(error->message, message);
    }
    g_clear_error(&error);
    assert_false(mi_config_set(c, "generate.stop", "\xff", &error));
    assert_string_equal(error->message, "command line: --generate.stop: its value is not UTF-8");
    mi_config_free(c);
}

static void files_that_are_none(void **state)
{
    (void)state;
    g_autoptr(GError) missing = NULL, directory = NULL, device = NULL;
    MiConfig         *c = mi_config_new();

    assert_false(mi_config_read(c, "/nowhere/x.ini", &missing));
    assert_string_equal(missing->message, "/nowhere/x.ini: No such file or directory");
    assert_false(mi_config_read(c, "/", &directory));
    assert_string_equal(directory->message, "/ is a directory; a configuration is a regular file");
    assert_false(mi_config_read(c, "/dev/zero", &device));
    assert_string_equal(device->message, "/dev/zero is a device, socket or pipe; a configuration is a regular file");

    g_autoptr(GError) huge = NULL, fine = NULL;
    g_autofree char  *file = NULL, *expected = NULL;
    const int         fd = g_file_open_tmp("mi-config-XXXXXX", &file, NULL);
    assert_int_equal(write(fd, "[a]\nk = 1\n", 10), 10);
    if (!mi_config_read(c, file, &fine))
        fail_msg("%s", fine->message);
    assert_string_equal(mi_config_get(c, "a", "k"), "1");
    g_autoptr(GError) broken = NULL;
    assert_int_equal(pwrite(fd, "[", 1, 10), 1);
    assert_false(mi_config_read(c, file, &broken));
    assert_non_null(strstr(broken->message, ":3: '[' lacks its ']'"));
    assert_int_equal(ftruncate(fd, 1048577), 0);
    assert_false(mi_config_read(c, file, &huge));
    expected = g_strdup_printf("%s: 1048577 bytes are no configuration; 1048576 are possible", file);
    assert_string_equal(huge->message, expected);
    close(fd);
    unlink(file);
    mi_config_free(c);
}

static void settings_have_defaults_and_ranges(void **state)
{
    (void)state;
    g_autoptr(GError) error = NULL;
    MiConfig         *c = parsed("[engine]\nmax_seqs = 4\ndtype = fp32\n");
    MiSettings        s;

    assert_true(mi_settings_read(c, &s, &error));
    assert_int_equal(s.engine.max_seqs, 4);
    assert_string_equal(s.engine.dtype, "fp32");
    assert_string_equal(s.engine.kv_dtype, "auto");
    assert_int_equal(s.engine.prefill_step, 512);
    assert_string_equal(s.model.path, "");
    assert_int_equal(s.generate.max_tokens, 0);
    assert_true(g_str_has_suffix(s.chain, "multinomial"));
    mi_config_free(c);

    c = parsed("[engine]\n\nmax_seqs = many\n");
    assert_false(mi_settings_read(c, &s, &error));
    assert_string_equal(error->message, "x.ini:3: [engine] max_seqs = 'many' is no number; 1 to 4096 are possible");
    g_clear_error(&error);
    assert_true(mi_config_set(c, "engine.max_seqs", "0", NULL));
    assert_false(mi_settings_read(c, &s, &error));
    assert_string_equal(error->message,
                        "command line: [engine] max_seqs = '0' is out of range; 1 to 4096 are possible");
    mi_config_free(c);
}

static void a_feature_gets_its_section(void **state)
{
    (void)state;
    typedef struct { int32_t pages; const char *mode; } Options;
    static const MiOption options[] = {
        MI_OPTION(Options, pages, "16", 1, 64, "how many"), MI_OPTION(Options, mode, NULL, 0, 0, "how it works"),
        MI_OPTION_END,
    };
    const MiFeature   with = { MI_KIND_CACHE, "acme.ring", "*", NULL, options }, without = { .name = "x" };
    g_autoptr(GError) error = NULL, missing = NULL, bad = NULL;
    MiConfig         *c = parsed("[cache.acme.ring]\nmode = round\n");
    g_autofree void  *filled = NULL;
    void             *none = c;

    assert_true(mi_config_feature(c, &with, &filled, &error));
    assert_int_equal(((const Options *)filled)->pages, 16);
    assert_string_equal(((const Options *)filled)->mode, "round");
    assert_true(mi_config_feature(c, &without, &none, &error));
    assert_null(none);
    assert_true(mi_config_set(c, "cache.acme.ring.pages", "65", NULL));
    none = c;
    assert_false(mi_config_feature(c, &with, &none, &bad));
    assert_null(none);
    assert_string_equal(bad->message,
                        "command line: [cache.acme.ring] pages = '65' is out of range; 1 to 64 are possible");
    mi_config_free(c);

    c = mi_config_new();
    assert_false(mi_config_feature(c, &with, &none, &missing));
    assert_string_equal(missing->message, "[cache.acme.ring] mode must be given: how it works");
    assert_int_equal(missing->code, MI_ERROR_CONFIG);
    mi_config_free(c);
    mi_config_free(NULL);
}

static void a_default_must_fit_its_option(void **state)
{
    (void)state;
    static const MiOption options[] = { { "n", MI_INT, 0, "many", 0, 0, "", NULL }, MI_OPTION_END };
    const MiFeature       f = { MI_KIND_CACHE, "x", "*", NULL, options };
    g_autoptr(GError)     error = NULL;
    MiConfig             *c = mi_config_new();
    void                 *none;

    assert_false(mi_config_feature(c, &f, &none, &error));
    assert_string_equal(error->message, "the default of [cache.x] n = 'many' is no number");
    assert_null(mi_settings_table("zebra"));
    mi_config_free(c);
}

static void exit_statuses_tell_what_to_do(void **state)
{
    (void)state;
    const struct { GQuark domain; int code, status; } cases[] = {
        { MI_ERROR, MI_ERROR_PLUGIN, 78 },      { MI_ERROR, MI_ERROR_NOT_FOUND, 66 },
        { MI_ERROR, MI_ERROR_CONFIG, 78 },      { MI_ERROR, MI_ERROR_UNSUPPORTED, 78 },
        { MI_ERROR, MI_ERROR_MODEL, 65 },       { MI_ERROR, MI_ERROR_DEVICE, 69 },
        { MI_ERROR, MI_ERROR_NO_MEMORY, 71 },   { MI_ERROR, MI_ERROR_IO, 74 },
        { MI_ERROR, 99, 70 },                   { G_FILE_ERROR, G_FILE_ERROR_NOENT, 66 },
        { G_FILE_ERROR, G_FILE_ERROR_ACCES, 77 }, { G_FILE_ERROR, G_FILE_ERROR_IO, 74 },
        { G_CONVERT_ERROR, 0, 70 },
    };
    assert_int_equal(mi_exit_status(NULL), 0);
    for (size_t i = 0; i < G_N_ELEMENTS(cases); i++)
        assert_int_equal(mi_exit_status(&(GError){ cases[i].domain, cases[i].code, NULL }), cases[i].status);
}

/* message: NULL: there is none; ended by "...": how it begins, for what depends on what was built. */
static void check_says(const char *text, const char *message)
{
    g_autoptr(GError) error = NULL;
    MiRegistry       *r = load((const char *[]){ "tests/plugins/stubs.so", NULL });
    MiConfig         *c = parsed(text);
    bool              ok = mi_config_check(c, r, &error);

    if (message && g_str_has_suffix(message, "...")) {
        g_autofree char *said = g_strndup(ok ? "fine" : error->message, strlen(message) - 3);
        g_autofree char *wanted = g_strndup(message, strlen(message) - 3);
        assert_string_equal(said, wanted);
    } else if (message)
        assert_string_equal(ok ? "fine" : error->message, message);
    else if (!ok)
        fail_msg("%s", error->message);
    mi_config_free(c);
    mi_registry_free(r);
}

static void every_key_is_somebodys(void **state)
{
    (void)state;
    check_says("[engine]\nmax_seqs = 2\n[sampler]\nchain = greedy\ntop_p = 0.5\n[plugins]\ndisable = , stubs\n", NULL);
    check_says("[engin]\n", "x.ini:1: unknown section [engin]; did you mean [engine]?");
    check_says("[zebra]\nstripes = 1\n", "x.ini:1: unknown section [zebra]");
    check_says("[engine]\nmaxseqs = 2\n", "x.ini:2: unknown key 'maxseqs' in [engine]; did you mean max_seqs?");
    check_says("[engine]\nmax_seqs = 9999\n",
               "x.ini:2: [engine] max_seqs = '9999' is out of range; 1 to 4096 are possible");
    check_says("[sampler]\ntop_pp = 0.5\n", "x.ini:2: unknown key 'top_pp' in [sampler]; did you mean top_p?");
    check_says("[sampler]\ntop_p = 1.5\n", "x.ini:2: [sampler] top_p = '1.5' is out of range; 0 to 1 are possible");
    check_says("[attention.smiple]\n", "x.ini:1: unknown section [attention.smiple]; did you mean [attention.simple]?");
    check_says("[attention.simple]\nblock = 1\n", "x.ini:2: unknown key 'block' in [attention.simple]; it takes none");
    check_says("[engine]\ndevice = auto\ncache = \nattention = simple\n[sampler]\nchain = top_p,\tgreedy ,\n", NULL);
    check_says("[engine]\ndevice = zebra:1\n", "x.ini:2: [engine] device: no backend 'zebra'; loaded: cpu@*...");
    check_says("[engine]\nscheduler = fcsf\n",
               "x.ini:2: [engine] scheduler: no scheduler 'fcsf'; loaded: fair@* fcfs@* mlfq@* priority@* sjf@*; did you mean fcfs?");
    check_says("[plugins]\ndisable = stubs, stbus\n",
               "x.ini:2: [plugins] disable: there is no plugin file stbus.so; did you mean stubs?");
}

TEST_MAIN(cmocka_unit_test(reads_pairs_as_they_are_written), cmocka_unit_test(names_the_line_that_is_wrong),
          cmocka_unit_test(a_line_of_198_bytes_arrives_whole), cmocka_unit_test(the_command_line_wins),
          cmocka_unit_test(files_that_are_none), cmocka_unit_test(settings_have_defaults_and_ranges),
          cmocka_unit_test(a_feature_gets_its_section), cmocka_unit_test(a_default_must_fit_its_option), cmocka_unit_test(exit_statuses_tell_what_to_do),
          cmocka_unit_test(every_key_is_somebodys));
