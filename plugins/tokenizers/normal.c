/* normal.c - NFC by GLib, made safe for text of strangers.
 *
 * g_utf8_normalize() wants valid UTF-8, stops at NUL, and orders combining marks by
 * bubble sort: a megabyte of marks in the wrong order would take it hours.  So the
 * text is cut at what is not for it, and a long run of marks is put into canonical
 * order (stable, by combining class) before it sees it, which does not change what
 * it makes of it. */
#include "normal.h"

#include "utf8.h"

#include <glib.h>
#include <string.h>

enum { LONG_RUN = 32 /* marks; what GLib may bubble */ };

typedef struct {
    uint32_t c, class;
} Mark;

static gint by_class(gconstpointer a, gconstpointer b)
{
    const Mark *x = a, *y = b;
    return (x->class > y->class) - (x->class < y->class);
}

/* Below U+0300 nothing combines and everything is composed; the same holds for a text of such. */
static bool is_plain(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)text[i] >= 0xcc)
            return false;
    return true;
}

static void append(GString *out, uint32_t c)
{
    char bytes[6];
    g_string_append_len(out, bytes, g_unichar_to_utf8(c, bytes));
}

/* Sorts the run of marks at p; its end. */
static const char *order_run(const char *p, const char *end, GArray *marks, GString *out)
{
    size_t n;

    g_array_set_size(marks, 0);
    for (; p < end; p += n) {
        const uint32_t c = mi_utf8_at(p, end, &n);
        const Mark     m = { c, (uint32_t)g_unichar_combining_class(c) };
        if (!m.class)
            break;
        g_array_append_val(marks, m);
    }
    if (marks->len > LONG_RUN)
        g_array_sort(marks, by_class); /* stable */
    for (guint i = 0; i < marks->len; i++)
        append(out, g_array_index(marks, Mark, i).c);
    return p;
}

/* [p, end): valid, no NUL. */
static bool normalize(const char *p, const char *end, GArray *marks, GString *ordered, GString *out)
{
    size_t n;

    if (is_plain(p, (size_t)(end - p))) {
        g_string_append_len(out, p, end - p);
        return true;
    }
    g_string_truncate(ordered, 0);
    while (p < end) {
        const uint32_t c = mi_utf8_at(p, end, &n);
        if (c >= 0x300 && g_unichar_combining_class(c)) {
            p = order_run(p, end, marks, ordered);
            continue;
        }
        g_string_append_len(ordered, p, (gssize)n);
        p += n;
    }
    g_autofree char *normal = g_utf8_normalize(ordered->str, (gssize)ordered->len, G_NORMALIZE_NFC);
    if (!normal)
        return false;
    g_string_append(out, normal);
    return true;
}

bool mi_nfc(const char *text, size_t len, char **out, size_t *out_len)
{
    const char *p = text, *end = text + len;
    size_t      n;
    bool        ok = true;

    *out = (char *)text;
    *out_len = len;
    if (is_plain(text, len))
        return true;
    GString *result = g_string_sized_new(len), *ordered = g_string_new(NULL);
    GArray  *marks = g_array_new(FALSE, FALSE, sizeof(Mark));
    while (p < end && ok) {
        const char *start = p;
        while (p < end && *p && mi_utf8_at(p, end, &n) < MI_INVALID_BYTE)
            p += n;
        if (p > start)
            ok = normalize(start, p, marks, ordered, result);
        else
            g_string_append_c(result, *p++);
    }
    g_array_unref(marks);
    g_string_free(ordered, TRUE);
    *out_len = result->len;
    *out = g_string_free(result, FALSE);
    return ok;
}
