/* test_tuned.c - what is measured is there at the next start, and a file that is not ours stays as it is. */
#include "common.h"
#include "tuned.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <sys/stat.h>

static int complaints;
static GLogWriterOutput count_lines(GLogLevelFlags level, const GLogField *fields, gsize n, gpointer user)
{
    (void)level, (void)fields, (void)n, (void)user;
    complaints++;
    return G_LOG_WRITER_HANDLED;
}

/* A path in a folder that is not there yet. */
static char *fresh(void)
{
    g_autofree char *dir = g_dir_make_tmp("miniinfer-XXXXXX", NULL);
    assert_non_null(dir);
    return g_build_filename(dir, "new", "tuned", NULL);
}

static void remove_all(char *path)
{
    g_autofree char *dir = g_path_get_dirname(path), *above = g_path_get_dirname(dir);
    (void)g_unlink(path), (void)g_rmdir(dir), (void)g_rmdir(above);
    g_free(path);
}

static void find(const char *path, const char *key, const char *value)
{
    size_t      n = 0;
    MiTuned    *t = mi_tuned_new(path);
    const char *have = mi_tuned_recall(t, key, &n);

    if (!value)
        assert_null(have);
    else if (!have || n != strlen(value) || memcmp(have, value, n) != 0)
        fail_msg("%s is '%.*s', not '%s'", key, (int)n, have ? have : "", value);
    mi_tuned_free(t);
}

static void keep(const char *path, const char *key, const char *value)
{
    MiTuned *t = mi_tuned_new(path);

    assert_true(mi_tuned_measures(t));
    mi_tuned_remember(t, key, value, strlen(value));
    (void)mi_tuned_end(t);
    mi_tuned_free(t);
}

static void is_there_at_the_next_start(void **state)
{
    char *path = fresh();

    (void)state;
    find(path, "a", NULL);
    keep(path, "a", "one");
    find(path, "a", "one");
    keep(path, "a b, 2 x 3", "two\n\t");
    keep(path, "a", "another");
    find(path, "a", "another");
    find(path, "a b, 2 x 3", "two\n\t");
    find(path, "b", NULL);
    remove_all(path);
}

static void two_at_once_both_keep(void **state)
{
    char    *path = fresh();
    MiTuned *x = mi_tuned_new(path), *y = mi_tuned_new(path);

    (void)state;
    mi_tuned_remember(x, "x", "1", 1);
    mi_tuned_remember(y, "y", "2", 1);
    (void)mi_tuned_end(x);
    (void)mi_tuned_end(y);
    mi_tuned_free(x);
    mi_tuned_free(y);
    find(path, "x", "1");
    find(path, "y", "2");
    remove_all(path);
}

static void measures_only_while_it_may(void **state)
{
    char    *path = fresh();
    MiTuned *t = mi_tuned_new("off");

    (void)state;
    assert_false(mi_tuned_measures(t));
    mi_tuned_remember(t, "a", "1", 1);
    mi_tuned_free(t);
    t = mi_tuned_new(path);
    assert_true(mi_tuned_measures(t));
    g_usleep(2000);
    mi_tuned_remember(t, "a", "1", 1);
    assert_true(mi_tuned_end(t) >= 2000);
    assert_false(mi_tuned_measures(t));
    mi_tuned_free(t);
    remove_all(path);
}

static void leaves_others_files_alone(void **state)
{
    static const char *const texts[] = {
        "", "hello", "miniinfer tuned 2\n", "miniinfer tuned 1", "miniinfer tuned 1\na\n", "miniinfer tuned 1\na\t\n",
        "miniinfer tuned 1\na\t1\n", "miniinfer tuned 1\na\t1g\n", "miniinfer tuned 1\n\t11\n", "miniinfer tuned 1\na\x01\t11\n",
        "miniinfer tuned 1\na\t11\nb\t1", "miniinfer tuned 1\na\t11\n\n", "[engine]\ndevice = cuda\n",
    };
    (void)state;
    for (size_t i = 0; i < G_N_ELEMENTS(texts); i++) {
        char            *path = fresh();
        g_autofree char *dir = g_path_get_dirname(path), *now = NULL;
        complaints = 0;
        assert_int_equal(g_mkdir(dir, 0700), 0);
        assert_true(g_file_set_contents(path, texts[i], -1, NULL));
        find(path, "a", NULL);
        if (complaints != 1)
            fail_msg("text %zu: %d lines", i, complaints);
        keep(path, "a", "one");
        assert_true(g_file_get_contents(path, &now, NULL, NULL));
        assert_string_equal(now, texts[i]);
        remove_all(path);
    }
}

static void is_bounded(void **state)
{
    char            *path = fresh(), *long_key = g_strnfill(MI_TUNED_KEY, 'k');
    g_autofree char *large = g_strnfill(MI_TUNED_BYTES + 1, 'x');
    MiTuned         *t = mi_tuned_new(path);
    struct stat      st;

    (void)state;
    for (int i = 0; i < MI_TUNED_ENTRIES + 100; i++) {
        g_autofree char *key = g_strdup_printf("key %d", i);
        mi_tuned_remember(t, key, key, strlen(key));
    }
    mi_tuned_remember(t, long_key, "1", 1);
    mi_tuned_remember(t, "large", large, MI_TUNED_BYTES + 1);
    mi_tuned_remember(t, "a\nb", "1", 1);
    (void)mi_tuned_end(t);
    mi_tuned_free(t);
    complaints = 0;
    find(path, "key 99", NULL);
    find(path, "key 100", "key 100");
    find(path, "large", NULL);
    find(path, "key 4195", "key 4195");
    assert_int_equal(complaints, 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size / 100000, 1);
    g_free(long_key);
    remove_all(path);
}

static void goes_on_where_it_cannot_write(void **state)
{
    char            *path = fresh();
    g_autofree char *dir = g_path_get_dirname(path);

    (void)state;
    complaints = 0;
    assert_true(g_file_set_contents(dir, "a file", -1, NULL)); /* where a folder should be */
    keep(path, "a", "one");
    assert_int_equal(complaints, 1);
    (void)g_unlink(dir);
    remove_all(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(is_there_at_the_next_start), cmocka_unit_test(two_at_once_both_keep),
        cmocka_unit_test(measures_only_while_it_may), cmocka_unit_test(leaves_others_files_alone),
        cmocka_unit_test(is_bounded), cmocka_unit_test(goes_on_where_it_cannot_write),
    };
    g_log_set_writer_func(count_lines, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
