/* out.h - writing of what only appears when it is complete.
 *
 * A file or a folder is made under "<path>.part" beside its place, and renamed at the
 * end; after an error nothing is left.  Errors stick: the first one is kept, later
 * calls do nothing, so that a writer reads as a list of what it writes. */
#ifndef MI_FORMATS_OUT_H
#define MI_FORMATS_OUT_H

#include <miniinfer/format.h>
#include <stdio.h>

typedef struct {
    const char        *path; /* where it is to be */
    char              *part; /* under which it is made */
    bool               folder;
    FILE              *file; /* NULL: none is open */
    char              *name; /* of the open file */
    uint64_t           at;   /* bytes written to it */
    uint64_t           done, total; /* of the weights' bytes, for progress */
    const MiWriteSpec *spec;
    GError            *error; /* NULL: all is well */
} MiOut;

/* path must not exist. */
void mi_out_start(MiOut *, const char *path, bool folder, uint64_t total, const MiWriteSpec *);
/* Flushes, renames, tidies up; false with *error: nothing is at path. */
bool mi_out_end(MiOut *, GError **error);

/* The next file of a folder; a single file is open from the start. */
void mi_out_file(MiOut *, const char *name);
void mi_out_close(MiOut *);

void mi_out_bytes(MiOut *, const void *data, size_t bytes);
void mi_out_text(MiOut *, const char *text);
void mi_out_print(MiOut *, const char *form, ...) G_GNUC_PRINTF(2, 3);
/* A JSON string with its quotes; text [len] must be UTF-8. */
void mi_out_json(MiOut *, const char *text, size_t len);
/* So many bytes of the weights are done: tells the caller, who may stop. */
void mi_out_progress(MiOut *, size_t bytes);
void mi_out_fail(MiOut *, int code, const char *form, ...) G_GNUC_PRINTF(3, 4);

#endif
