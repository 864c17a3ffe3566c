#include "out.h"

#include "names.h"
#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <unistd.h>

void mi_out_fail(MiOut *o, int code, const char *form, ...)
{
    if (o->error)
        return;
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    g_set_error(&o->error, MI_ERROR, code, "%s: %s", o->path, mi_one_line(text));
}

static void system_error(MiOut *o, const char *what)
{
    mi_out_fail(o, MI_ERROR_DEVICE, "%s: %s", what, g_strerror(errno));
}

static void open_file(MiOut *o, const char *path)
{
    o->at = 0;
    o->file = fopen(path, "wbxe");
    if (!o->file)
        system_error(o, "cannot be made");
}

void mi_out_start(MiOut *o, const char *path, bool folder, uint64_t total, const MiWriteSpec *spec)
{
    *o = (MiOut){ .path = path, .folder = folder, .total = total, .spec = spec };
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    if (g_file_test(path, G_FILE_TEST_EXISTS) || g_file_test(path, G_FILE_TEST_IS_SYMLINK)) {
        mi_out_fail(o, MI_ERROR_CONFIG, "exists already; nothing is overwritten");
        return;
    }
    char *part = g_strdup_printf("%.*s.part", (int)n, path);
    if (g_file_test(part, G_FILE_TEST_EXISTS)) {
        mi_out_fail(o, MI_ERROR_CONFIG, "'%s' is in the way, of a conversion that runs or was killed; remove it", part);
        g_free(part);
        return;
    }
    o->part = part; /* from here on ours to remove */
    if (!folder)
        open_file(o, part);
    else if (g_mkdir(part, 0777) != 0)
        system_error(o, "cannot be made");
}

void mi_out_file(MiOut *o, const char *name)
{
    if (o->error)
        return;
    g_free(o->name);
    o->name = g_build_filename(o->part, name, NULL);
    open_file(o, o->name);
}

void mi_out_close(MiOut *o)
{
    if (!o->file)
        return;
    /* A full disk may show only here. */
    if (fflush(o->file) != 0 || fsync(fileno(o->file)) != 0)
        system_error(o, "cannot be written");
    if (fclose(o->file) != 0)
        system_error(o, "cannot be written");
    o->file = NULL;
}

static void remove_part(MiOut *o)
{
    GDir       *d = o->folder ? g_dir_open(o->part, 0, NULL) : NULL;
    const char *name;

    while (d && (name = g_dir_read_name(d))) {
        g_autofree char *inner = g_build_filename(o->part, name, NULL);
        g_unlink(inner);
    }
    if (d)
        g_dir_close(d);
    g_remove(o->part);
}

bool mi_out_end(MiOut *o, GError **error)
{
    mi_out_close(o);
    if (!o->error && g_rename(o->part, o->path) != 0)
        system_error(o, "cannot be renamed to");
    if (o->error && o->part)
        remove_part(o);
    g_free(o->part);
    g_free(o->name);
    if (!o->error)
        return true;
    g_propagate_error(error, o->error);
    return false;
}

void mi_out_bytes(MiOut *o, const void *data, size_t bytes)
{
    if (o->error)
        return;
    if (fwrite(data, 1, bytes, o->file) != bytes)
        system_error(o, "cannot be written");
    o->at += bytes;
}

void mi_out_text(MiOut *o, const char *text) { mi_out_bytes(o, text, strlen(text)); }

void mi_out_print(MiOut *o, const char *form, ...)
{
    va_list args;
    va_start(args, form);
    g_autofree char *text = g_strdup_vprintf(form, args);
    va_end(args);
    mi_out_text(o, text);
}

void mi_out_json(MiOut *o, const char *text, size_t len)
{
    size_t from = 0;

    mi_out_text(o, "\"");
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        mi_out_bytes(o, text + from, i - from);
        mi_out_print(o, "\\u%04x", c);
        from = i + 1;
    }
    mi_out_bytes(o, text + from, len - from);
    mi_out_text(o, "\"");
}

void mi_out_progress(MiOut *o, size_t bytes)
{
    o->done += bytes;
    if (!o->error && o->spec->progress && !o->spec->progress(o->spec->user, o->done, o->total))
        mi_out_fail(o, MI_ERROR_CONFIG, "stopped");
}
