/* batch_output.c - see batch_output.h.
 *
 * A line is written whole and at the end of the file, so that whatever kills the process leaves whole lines and at
 * most one broken one, the last, which the next run cuts off.  What a run has to know of those before it stands in
 * the lines themselves: there is no second file that could be older or newer than this one. */
#define _GNU_SOURCE
#include "batch_output.h"
#include "batch_request.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

static void earlier_free(void *p)
{
    g_free(((BatchEarlier *)p)->of);
    g_free(p);
}

static bool fail(const BatchOutput *o, GError **error)
{
    g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s: %s", o->path, g_strerror(errno));
    return false;
}

/* False: the line is none of a batch's. */
static bool take_line(BatchOutput *o, const char *line, size_t len, int64_t number)
{
    json_error_t  why;
    json_t       *j = json_loadb(line, len, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &why);
    const json_t *id = json_object_get(j, "id"), *index = json_object_get(j, "index");
    const char   *of = json_string_value(json_object_get(j, "request"));
    const bool    ok = (json_is_string(id) || json_is_integer(id)) && json_is_integer(index) && of;

    if (ok) {
        BatchEarlier *e = g_new0(BatchEarlier, 1);
        *e = (BatchEarlier){ g_strdup(of), number, false };
        g_hash_table_replace(o->earlier, batch_key(id, json_integer_value(index)), e);
    }
    json_decref(j);
    return ok;
}

/* What earlier runs answered; a broken last line is cut off. */
static bool read_earlier(BatchOutput *o, GError **error)
{
    FILE   *f = fdopen(dup(o->fd), "r");
    char   *line = NULL;
    size_t  size = 0;
    int64_t number = 0, whole = 0; /* bytes of whole lines */
    ssize_t n;
    bool    ok = f;

    while (ok && (n = getline(&line, &size, f)) > 0) {
        if (line[n - 1] != '\n') {
            o->torn = n;
            break;
        }
        whole += n;
        if ((ok = take_line(o, line, (size_t)n - 1, ++number)))
            continue;
        g_set_error(error, MI_ERROR, MI_ERROR_MODEL, "%s:%lld: no answer of an earlier batch; nothing is added to it",
                    o->path, (long long)number);
    }
    free(line);
    if (!f || (ok && ferror(f)))
        ok = fail(o, error);
    if (f)
        fclose(f);
    return ok && (ftruncate(o->fd, whole) == 0 || fail(o, error));
}

bool batch_output_open(BatchOutput *o, const char *path, bool in_order, GError **error)
{
    struct stat is;

    *o = (BatchOutput){ .path = path, .earlier = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, earlier_free) };
    if (in_order)
        o->held = g_hash_table_new_full(g_int64_hash, g_int64_equal, g_free, g_free);
    if (strcmp(path, "-") == 0)
        return (o->fd = dup(STDOUT_FILENO)) >= 0 || fail(o, error);
    if ((o->fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666)) < 0 || fstat(o->fd, &is) != 0) {
        g_set_error(error, G_FILE_ERROR, (gint)g_file_error_from_errno(errno), "%s: %s", path, g_strerror(errno));
        return false;
    }
    if (!S_ISREG(is.st_mode)) /* a device or a pipe holds no answers; reading some of them never ends */
        return true;
    if (flock(o->fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return read_earlier(o, error);
    g_set_error(error, MI_ERROR, MI_ERROR_IO, "%s: another batch writes to it", path);
    return false;
}

void batch_output_close(BatchOutput *o)
{
    if (o->fd >= 0)
        close(o->fd);
    if (o->earlier)
        g_hash_table_unref(o->earlier);
    if (o->held)
        g_hash_table_unref(o->held);
    *o = (BatchOutput){ .fd = -1 };
}

static bool write_line(const BatchOutput *o, const char *line, GError **error)
{
    const size_t len = strlen(line);

    for (size_t done = 0; done < len;) {
        const ssize_t n = write(o->fd, line + done, len - done);
        if (n < 0 && errno != EINTR)
            return fail(o, error);
        done += n > 0 ? (size_t)n : 0;
    }
    return true;
}

bool batch_output_put(BatchOutput *o, int64_t at, char *line, GError **error)
{
    bool ok = true;

    if (!o->held) {
        ok = !line || write_line(o, line, error);
        g_free(line);
        return ok;
    }
    g_hash_table_insert(o->held, g_memdup2(&at, sizeof at), line);
    for (void *key, *held; ok && g_hash_table_lookup_extended(o->held, &o->next, &key, &held); o->next++) {
        ok = !held || write_line(o, held, error);
        g_hash_table_remove(o->held, &o->next);
    }
    return ok;
}
