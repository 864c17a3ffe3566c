/* json_scan.h - JSON read in one pass, for the vocabulary and merges of a tokenizer.json: a tree
 * of 400,000 strings takes jansson longer than all the rest of loading.  Small values in
 * between are handed to jansson as text. */
#ifndef MI_FORMATS_JSON_SCAN_H
#define MI_FORMATS_JSON_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* After an error `wrong` says what was wanted at `at`, and every function gives false. */
typedef struct {
    const char *start, *at, *end; /* valid UTF-8 */
    const char *wrong;            /* NULL: nothing */
} MiJson;

typedef struct {
    const char *text; /* not terminated */
    size_t      len;
} MiJsonText;

/* '{' or '['. */
bool mi_json_open(MiJson *, char bracket);
/* Is there another element?  *n counts them, from 0; bracket: what closes. */
bool mi_json_more(MiJson *, char bracket, size_t *n);
/* A string: out points into the text, or, if it has escapes, to what is written at *buffer, which
 * needs room for as many bytes as the string has in the text, and moves on. */
bool mi_json_string(MiJson *, char **buffer, MiJsonText *out);
/* A string and a colon. */
bool mi_json_key(MiJson *, char **buffer, MiJsonText *out);
bool mi_json_int(MiJson *, int64_t *out);
bool mi_json_real(MiJson *, double *out);
/* Any value, as its text; brackets are only counted. */
bool mi_json_skip(MiJson *, MiJsonText *out);
/* The first byte of the next value; 0: the end. */
char mi_json_peek(MiJson *);
bool mi_json_is(const MiJsonText *, const char *word);

#endif
