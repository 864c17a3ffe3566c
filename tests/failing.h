/* failing.h - memory and files that fail when a test says so.
 *
 * A program that links failing.c has g_try_malloc() and its like, open(), read(), mmap() and
 * the other calls below replaced, for the plugins it loads, too.  g_malloc() is left alone:
 * it ends the program by design, and nobody hands it a size out of a file. */
#ifndef TESTS_FAILING_H
#define TESTS_FAILING_H

#include <glib.h>
#include <stdbool.h>

typedef enum { FAIL_MEMORY, FAIL_FILES, FAIL_N } FailKind;

/* From now on the nth call of that kind fails, from 1; for_ever: and all behind it. */
void failing_begin(FailKind kind, long nth, bool for_ever);
/* No more of it.  False: there were fewer calls. */
bool failing_end(void);

/* What may fail: true, with what came of it in `result`, or false with *error. */
typedef bool FailingAct(void *user, GString *result, GError **error);
/* Does it once with each call failing, alone and with all behind it: each time it is done as well as without,
 * or there is one line that names the reason, and no file is left open. */
void failing_each(FailKind kind, FailingAct *act, void *user);

#endif
