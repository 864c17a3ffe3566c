/* template_text.h - strings of the template interpreter: every byte knows whether it is
 * trusted, through all that is done to it.  What cannot be told byte by byte is untrusted. */
#ifndef MI_CORE_TEMPLATE_TEXT_H
#define MI_CORE_TEMPLATE_TEXT_H

#include "template_value.h"

/* ---- template_text.c --------------------------------------------------- */
void         tpl_put(Ctx *, Builder *, const char *s, size_t n, bool trusted);
void         tpl_put_value(Ctx *, Builder *, const Value *);                            /* as str() shows it */
void         tpl_put_slice(Ctx *, Builder *, const Value *text, size_t start, size_t n); /* bytes */
const Value *tpl_built(Ctx *, Builder *);                                               /* takes its memory */
const Value *tpl_text(Ctx *, const char *s, size_t n, bool trusted);                    /* borrows s */
const Value *tpl_str(Ctx *, const char *s);                                             /* borrows s; trusted */
const Value *tpl_cut(Ctx *, const Value *text, size_t start, size_t n);                 /* bytes; shares them */
bool         tpl_trusted(const Value *text);                                            /* every byte of it */
size_t       tpl_offset(Ctx *, const Value *text, size_t i); /* the byte where code point i starts */
/* The first place of `part` at or after byte `from`; SIZE_MAX: none. */
size_t       tpl_find(Ctx *, const Value *text, const Value *part, size_t from);
const char  *tpl_name(Ctx *, const Value *text); /* terminated, for a table's key */
bool         tpl_same(const Value *text, const char *s);
gunichar     tpl_char(const Value *text, size_t *at); /* the one at byte *at, which moves on */
bool         tpl_is_space(gunichar);                  /* what Python's str.strip() takes off */
typedef enum { CASE_UPPER, CASE_LOWER, CASE_CAPITAL, CASE_TITLE, CASE_WORDS } Case; /* WORDS: the filter `title` */
const Value *tpl_case(Ctx *, const Value *text, Case);
const Value *tpl_strip(Ctx *, const Value *text, const Value *chars, bool left, bool right); /* chars NULL: blanks */
const Value *tpl_replace(Ctx *, const Value *text, const Value *old, const Value *now, int64_t count);
const Value *tpl_join(Ctx *, const Value *separator, List);
const Value *tpl_lines(Ctx *, const Value *text, bool keep_ends);

/* ---- template_print.c -------------------------------------------------- */
const Value *tpl_to_str(Ctx *, const Value *); /* a string stays what it is */
void         tpl_repr(Ctx *, Builder *, const Value *);
enum { FLOAT_TEXT = 32 };
void         tpl_float_text(double, char out[FLOAT_TEXT]); /* repr() of it */
typedef struct {
    bool         ascii, sort;
    const Value *indent;     /* a string, or NULL: one line */
    const Value *comma, *colon;
} JsonStyle;
const Value *tpl_json(Ctx *, const Value *, const JsonStyle *);

/* ---- template_format.c ------------------------------------------------- */
const Value *tpl_percent(Ctx *, const Value *format, const Value *args);
const Value *tpl_strftime(Ctx *, const Value *format);

#endif
