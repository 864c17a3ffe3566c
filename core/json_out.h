/* json_out.h - one JSON value, written front to back into a string.
 *
 * Commas and escapes are the writer's business.  Text that is not UTF-8 comes
 * out with U+FFFD in place of each bad byte; a number that JSON cannot say is
 * null.  Floats do not follow the locale. */
#ifndef MI_CORE_JSON_OUT_H
#define MI_CORE_JSON_OUT_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    GString *text;
    bool     comma; /* something stands before, on this level */
} MiJson;

static inline MiJson mi_json_new(void) { return (MiJson){ g_string_new(NULL), false }; }

/* key NULL: an item of an array, or the outermost value. */
void mi_json_open(MiJson *, const char *key, char bracket); /* '{' or '[' */
void mi_json_close(MiJson *, char bracket);                 /* '}' or ']' */
void mi_json_text(MiJson *, const char *key, const char *text, size_t len);
void mi_json_string(MiJson *, const char *key, const char *text); /* NULL: null */
void mi_json_int(MiJson *, const char *key, int64_t n);
void mi_json_float(MiJson *, const char *key, double x);
void mi_json_bool(MiJson *, const char *key, bool b);
void mi_json_ints(MiJson *, const char *key, const int32_t *ids, size_t n);

/* Writes it to standard output as one line, and frees it. */
void mi_json_print(MiJson *);

#endif
