/* batch_output.h - where the answers of a batch go, and those that an earlier run left there. */
#ifndef BATCH_OUTPUT_H
#define BATCH_OUTPUT_H

#include <miniinfer/plugin.h>

/* An answer that was there when the file was opened. */
typedef struct {
    char   *of;   /* what batch_digest() said of its request then */
    int64_t line; /* in the file */
    bool    met;  /* the input has its request; the batch's to set */
} BatchEarlier;

typedef struct {
    const char *path; /* "-": standard output */
    int         fd;
    GHashTable *earlier; /* by batch_key(): BatchEarlier * */
    int64_t     torn;    /* bytes of a broken last line, cut off */
    GHashTable *held;    /* by number: lines that wait for one before them; NULL: none ever waits */
    int64_t     next;    /* in order: the number that is written next */
} BatchOutput;

/* Reads what is there, and keeps others from writing to it.  in_order: answers are written by number, not as they
 * come.  To be closed even if it fails. */
bool batch_output_open(BatchOutput *, const char *path, bool in_order, GError **error);
void batch_output_close(BatchOutput *);

/* Answer number `at`, counted from 0: a line with its end, taken; NULL: there is none.  Each number comes once.
 * What still waits for one before it when the output is closed is lost. */
bool batch_output_put(BatchOutput *, int64_t at, char *line, GError **error);

#endif
