#include "cmd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int mi_cmd_report(GError *error)
{
    const int status = mi_exit_status(error);

    if (error) {
        fflush(stdout);
        fprintf(stderr, "miniinfer: %s\n", error->message);
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
