/* tuned.h - what parts found out by measuring on this machine, kept from one start to the next.
 *
 * A file of lines, key TAB bytes in hexadecimal.  A cache: one that is damaged or somebody else's is left as it
 * is and out of account, with a line that says so. */
#ifndef MI_CORE_TUNED_H
#define MI_CORE_TUNED_H

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

enum { MI_TUNED_KEY = 256, MI_TUNED_BYTES = 1024, MI_TUNED_ENTRIES = 4096 }; /* the most; older entries go first */

typedef struct MiTuned MiTuned;

/* where: "auto", in the user's cache folder; "off", nothing is measured or kept; or a file's path. */
MiTuned *mi_tuned_new(const char *where);
void     mi_tuned_free(MiTuned *);

/* NULL: not known; valid until the next call. */
const void *mi_tuned_recall(MiTuned *, const char *key, size_t *bytes);
/* Whether there is time to find it out now; that ends with remember(). */
bool mi_tuned_measures(MiTuned *);
void mi_tuned_remember(MiTuned *, const char *key, const void *data, size_t bytes);
/* Nothing is measured from here on; what is new is written.  Microseconds that measuring took. */
int64_t mi_tuned_end(MiTuned *);

#endif
