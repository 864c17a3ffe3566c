#include "cmd.h"
#include "suggest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int mi_cmd_report(GError *error)
{
    const int status = mi_exit_status(error);

    if (error) {
        fflush(stdout);
        g_autofree char *line = mi_printable(error->message, strlen(error->message)); /* whoever wrote it: one line */
        fprintf(stderr, "miniinfer: %s\n", line);
        g_error_free(error);
    }
    return status;
}

int mi_cmd_usage(GError *error)
{
    mi_cmd_report(error);
    return MI_EXIT_USAGE;
}

static char *slurp_stdin(size_t *len, GError **error)
{
    g_autoptr(GByteArray) bytes = g_byte_array_new();
    guint8                block[65536];
    ssize_t               n;

    while ((n = read(STDIN_FILENO, block, sizeof block)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            g_set_error(error, MI_ERROR, MI_ERROR_IO, "standard input: %s", g_strerror(errno));
            return NULL;
        }
        if (bytes->len > G_MAXINT32 - sizeof block) {
            g_set_error(error, MI_ERROR, MI_ERROR_IO, "standard input holds more than 2 GB");
            return NULL;
        }
        g_byte_array_append(bytes, block, (guint)n);
    }
    *len = bytes->len;
    g_byte_array_append(bytes, (const guint8 *)"", 1);
    return (char *)g_byte_array_free(g_steal_pointer(&bytes), FALSE);
}

char *mi_cmd_slurp(const char *file, size_t *len, GError **error)
{
    char *text;

    if (strcmp(file, "-") == 0)
        return slurp_stdin(len, error);
    return g_file_get_contents(file, &text, len, error) ? text : NULL;
}

bool mi_cmd_ids(const char *list, int32_t **out, size_t *n, GError **error)
{
    g_autoptr(GArray) ids = g_array_new(FALSE, FALSE, sizeof(int32_t));

    for (const char *p = list; *p;) {
        char         *end;
        const gint64  id = g_ascii_strtoll(p, &end, 10);
        const int32_t narrow = (int32_t)id;
        if (end == p || id < 0 || id > G_MAXINT32 || (*end && *end != ',' && *end != ' ')) {
            g_set_error(error, MI_ERROR, MI_ERROR_CONFIG, "--ids: '%.20s' is no list of token ids such as 1,2,3", p);
            return false;
        }
        g_array_append_val(ids, narrow);
        p = end + strspn(end, ", ");
    }
    *n = ids->len;
    *out = (int32_t *)(void *)g_array_free(g_steal_pointer(&ids), FALSE);
    return true;
}
