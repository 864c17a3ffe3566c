#include "json_out.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static void escaped(GString *out, const char *text, size_t len)
{
    const char *end = text + len;

    g_string_append_c(out, '"');
    while (text < end) {
        const char *good;
        g_utf8_validate_len(text, (gsize)(end - text), &good); /* stops at a NUL, too */
        for (; text < good; text++) {
            const unsigned char c = (unsigned char)*text;
            if (c == '"' || c == '\\')
                g_string_append_c(out, '\\');
            if (c == '\n')
                g_string_append(out, "\\n");
            else if (c == '\t')
                g_string_append(out, "\\t");
            else if (c < 0x20 || c == 0x7f)
                g_string_append_printf(out, "\\u%04x", c);
            else
                g_string_append_c(out, *text);
        }
        if (text < end)
            g_string_append(out, *text++ ? "\xef\xbf\xbd" : "\\u0000");
    }
    g_string_append_c(out, '"');
}

static GString *begin(MiJson *j, const char *key)
{
    if (j->comma)
        g_string_append_c(j->text, ',');
    j->comma = true;
    if (key) {
        escaped(j->text, key, strlen(key));
        g_string_append_c(j->text, ':');
    }
    return j->text;
}

void mi_json_open(MiJson *j, const char *key, char bracket)
{
    g_string_append_c(begin(j, key), bracket);
    j->comma = false;
}

void mi_json_close(MiJson *j, char bracket)
{
    g_string_append_c(j->text, bracket);
    j->comma = true;
}

void mi_json_text(MiJson *j, const char *key, const char *text, size_t len) { escaped(begin(j, key), text, len); }

void mi_json_string(MiJson *j, const char *key, const char *text)
{
    if (text)
        mi_json_text(j, key, text, strlen(text));
    else
        g_string_append(begin(j, key), "null");
}

void mi_json_int(MiJson *j, const char *key, int64_t n)
{
    g_string_append_printf(begin(j, key), "%" G_GINT64_FORMAT, n);
}

void mi_json_float(MiJson *j, const char *key, double x)
{
    char digits[G_ASCII_DTOSTR_BUF_SIZE];
    g_string_append(begin(j, key), isfinite(x) ? g_ascii_formatd(digits, sizeof digits, "%.9g", x) : "null");
}

void mi_json_bool(MiJson *j, const char *key, bool b) { g_string_append(begin(j, key), b ? "true" : "false"); }

void mi_json_ints(MiJson *j, const char *key, const int32_t *ids, size_t n)
{
    mi_json_open(j, key, '[');
    for (size_t i = 0; i < n; i++)
        mi_json_int(j, NULL, ids[i]);
    mi_json_close(j, ']');
}

void mi_json_print(MiJson *j)
{
    g_string_append_c(j->text, '\n');
    fwrite(j->text->str, 1, j->text->len, stdout);
    g_string_free(j->text, TRUE);
    j->text = NULL;
}
