/* formats_common.h - a format plugin and a folder for the files that a test makes up. */
#ifndef TESTS_FORMATS_COMMON_H
#define TESTS_FORMATS_COMMON_H

#include "common.h"
#include <glib/gstdio.h>
#include <stdio.h>

static inline const MiFormat *format_of(const char *name)
{
    static MiRegistry *r;
    g_autoptr(GError)  error = NULL;

    if (!r)
        r = load(NULL);
    const MiFeature *f = mi_registry_find(r, MI_KIND_FORMAT, name, "*", &error);
    if (!f)
        fail_msg("%s", error->message);
    return f->vtable;
}

static inline char *new_folder(void)
{
    char *path = g_dir_make_tmp("mi-formats-XXXXXX", NULL);
    assert_non_null(path);
    return path;
}

/* With what is in it, two levels deep at most. */
static inline void remove_folder(const char *path)
{
    GDir       *d = g_dir_open(path, 0, NULL);
    const char *name;

    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *inner = g_build_filename(path, name, NULL);
        if (g_file_test(inner, G_FILE_TEST_IS_DIR) && !g_file_test(inner, G_FILE_TEST_IS_SYMLINK))
            remove_folder(inner);
        else
            g_remove(inner);
    }
    if (d)
        g_dir_close(d);
    g_rmdir(path);
}

static inline void put(const char *folder, const char *name, const void *data, size_t bytes)
{
    g_autofree char *path = g_build_filename(folder, name, NULL);
    FILE            *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

/* Opening fails with one line that begins with a path and holds `words`. */
static inline void refused(const MiFormat *f, const char *path, const char *words)
{
    g_autoptr(GError) error = NULL;
    void             *self = f->open(path, NULL, &error);

    if (self)
        fail_msg("%s was opened; '%s' was to be the error", path, words);
    if (!strstr(error->message, words) || strchr(error->message, '\n') || error->message[0] != '/')
        fail_msg("'%s' lacks '%s', or is not one line that begins with a path", error->message, words);
}

#endif
