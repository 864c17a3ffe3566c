/* split.h - text into words, inside which alone merges happen. */
#ifndef MI_TOKENIZERS_SPLIT_H
#define MI_TOKENIZERS_SPLIT_H

#include <miniinfer/format.h>

typedef struct MiSplitter MiSplitter;

/* pre, split: as in MiTokenizerData.  NULL with *error: a name or an expression it does not know. */
MiSplitter *mi_splitter_new(const char *pre, const char *const *split, GError **error);
void        mi_splitter_free(MiSplitter *);

enum { MI_MAX_SPLITS = 8 };

/* Goes through the words of a text, gap-free. */
typedef struct {
    const MiSplitter *splitter;
    const char       *text;
    size_t            at, len;
    size_t            segment; /* smollm: end of what lies between two digits */
    size_t            valid_end; /* regex: end of the run of valid UTF-8, or of other bytes, around `at` */
    bool              valid;
    /* Of expression i: it cuts what begins at start; its piece around `at` ends at end; the match
     * it knows of after that. */
    struct { size_t start, end, match_start, match_end; } level[MI_MAX_SPLITS];
    int64_t           deadline; /* microseconds of this thread's CPU time */
    unsigned          calls;
    bool              failed;
} MiWords;

void mi_words_start(MiWords *, const MiSplitter *, const char *text, size_t len);
/* False: no more, or `failed`: an expression ran out of its budget. */
bool mi_words_next(MiWords *, const char **word, size_t *len);

#endif
