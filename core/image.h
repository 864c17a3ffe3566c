/* image.h - a shared object, as a file and as it lies in memory. */
#ifndef MI_CORE_IMAGE_H
#define MI_CORE_IMAGE_H

#include <glib.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of this machine, and whole: the linker maps what the headers promise without asking the
 * file's size, so that a file cut short would be a SIGBUS instead of a message. */
bool mi_image_check_file(const char *file, GError **error);

/* The readable parts of an object that dlopen() gave. */
enum { MI_MAX_SEGMENTS = 16 };
typedef struct {
    struct { uintptr_t start, end; bool code; } at[MI_MAX_SEGMENTS];
    int n;
} MiImage;

bool mi_image_of(void *dl, MiImage *out);
/* Whether bytes [p, p + n) are the object's own and may be read. */
bool mi_image_holds(const MiImage *, const void *p, size_t n);
/* Whether p is in the object's code. */
bool mi_image_holds_code(const MiImage *, const void *p);
/* Whether p is a terminated text of the object's own. */
bool mi_image_holds_text(const MiImage *, const char *p);

#endif
